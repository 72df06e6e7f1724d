"""Fingerprints: the same recipe and the same learned numbers give the same hex digest, in any process.

It knows how to walk parameters and fitted attributes; it does not know what they mean.
"""

from __future__ import annotations

import functools
import hashlib
import pickle
import types
from collections.abc import Mapping
from typing import Any

import numpy as np


def fingerprint(*values: Any) -> str:
    """32 hex digits of any values: numbers, text, arrays, containers, estimators, functions. Functions count by their
    name and code, so an edited one gives another fingerprint."""
    digest = hashlib.blake2b(digest_size=16)
    _feed(digest, values)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    def text(*words: object) -> None:
        digest.update(("\0".join(map(str, words)) + "\1").encode())

    if value is None or isinstance(value, bool | int | float | str | np.generic):
        text(type(value).__name__, repr(value))
    elif isinstance(value, bytes):
        text("bytes", len(value))
        digest.update(value)
    elif isinstance(value, np.ndarray):
        text("array", value.dtype.str, value.shape)
        _feed(digest, value.tolist()) if value.dtype.hasobject else digest.update(np.ascontiguousarray(value).data)
    elif isinstance(value, Mapping):
        text("mapping", len(value))
        if all(type(key) is str for key in value) and all(type(item) is int for item in value.values()):
            text(*sorted(value), *(value[key] for key in sorted(value)))  # a vocabulary of many thousand words
        else:
            _feed(digest, [(key, value[key]) for key in sorted(value, key=repr)])
    elif isinstance(value, set | frozenset):
        _feed(digest, sorted(value, key=repr))
    elif isinstance(value, list | tuple):
        text(type(value).__name__, len(value))
        for item in value:
            _feed(digest, item)
    elif isinstance(value, type | types.BuiltinFunctionType | np.ufunc):
        text("name", getattr(value, "__module__", ""), getattr(value, "__qualname__", value.__name__))
    elif isinstance(value, types.FunctionType):
        text("function", value.__module__, value.__qualname__)
        _function(digest, value)
    elif isinstance(value, types.MethodType):
        _feed(digest, (value.__func__, value.__self__))
    elif isinstance(value, functools.partial):
        _feed(digest, (value.func, value.args, value.keywords))
    elif hasattr(value, "get_params") or hasattr(value, "indptr"):  # estimators, sparse matrices
        text("object", type(value).__module__, type(value).__qualname__)
        _feed(digest, vars(value))
    else:
        text("pickled", type(value).__module__, type(value).__qualname__)
        digest.update(pickle.dumps(value, protocol=5))


def _function(digest: Any, value: types.FunctionType) -> None:
    _code(digest, value.__code__)
    _feed(digest, [cell.cell_contents for cell in value.__closure__ or ()] + list(value.__defaults__ or ()))


def _code(digest: Any, code: types.CodeType) -> None:
    # Line numbers and file names are left out: a cell that is run again has the same function.
    _feed(digest, [code.co_code, code.co_names, code.co_varnames])
    for constant in code.co_consts:
        _code(digest, constant) if isinstance(constant, types.CodeType) else _feed(digest, constant)
