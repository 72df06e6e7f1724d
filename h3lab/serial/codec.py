"""The codec: a tree of arrays, bytes and JSON values ↔ one versioned byte string, nothing ever unpickled.

Snapshots, saved models and messages use it. Layout: magic ``H3LAB\\x00``, format number (uint16), header length
(uint64), JSON header, then each array's raw bytes, C order and little-endian, at offsets that are multiples of 64.
Arrays keep dtype and shape bit for bit at any depth of nesting.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from h3lab.errors import DamagedData

MAGIC = b"H3LAB\x00"
FORMAT = 1
_HEAD = struct.Struct("<6sHQ")
_ALIGN = 64
_REF = "$h3"  # a JSON object with this one key stands for an array or a byte string


def pack(tree: Any) -> bytes:
    """A tree of dicts with string keys, lists, tuples, numbers, text, None, bytes and NumPy arrays → bytes.

    Tuples come back as lists. Raises TypeError that names the path of whatever else it meets.
    """
    arrays: list[np.ndarray] = []
    document = _flatten(tree, arrays, "tree")
    entries: list[tuple[str, list[int], int]] = []
    offset = 0
    for array in arrays:
        entries.append((array.dtype.str, list(array.shape), offset))
        offset += -(-array.nbytes // _ALIGN) * _ALIGN
    header = json.dumps({"tree": document, "arrays": entries, "size": offset}, separators=(",", ":")).encode()
    header += b" " * (-(len(header) + _HEAD.size) % _ALIGN)
    out = bytearray(_HEAD.size + len(header) + offset)
    out[: _HEAD.size] = _HEAD.pack(MAGIC, FORMAT, len(header))
    out[_HEAD.size : _HEAD.size + len(header)] = header
    base = _HEAD.size + len(header)
    for array, (_, _, start) in zip(arrays, entries, strict=True):
        out[base + start : base + start + array.nbytes] = array.tobytes()
    return bytes(out)


def unpack(data: bytes | memoryview) -> Any:
    """The tree of :func:`pack`; arrays own their data. Raises DamagedData for anything else, truncation included."""
    view = memoryview(data)
    if len(view) < _HEAD.size:
        raise DamagedData(f"{len(view)} bytes came, less than the head of an h3lab file ({_HEAD.size} bytes).")
    magic, number, length = _HEAD.unpack(view[: _HEAD.size])
    if magic != MAGIC:
        raise DamagedData("these bytes do not begin like an h3lab file; was it written by something else?")
    if number > FORMAT:
        raise DamagedData(f"format {number} came; this h3lab reads up to {FORMAT}. Update h3lab to open it.")
    if len(view) < _HEAD.size + length:
        raise DamagedData(f"{len(view)} bytes came, the header alone has {length}; the file is truncated.")
    try:
        header = json.loads(bytes(view[_HEAD.size : _HEAD.size + length]))
        entries, size, document = header["arrays"], header["size"], header["tree"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedData("the header of this h3lab file cannot be read; it is damaged or truncated.") from error
    body = view[_HEAD.size + length :]
    if len(body) < size:
        raise DamagedData(f"{len(body)} bytes of arrays came, {size} were written; the file is truncated.")
    try:
        return _restore(document, [_array(body, *entry) for entry in entries])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        if isinstance(error, DamagedData):
            raise
        raise DamagedData("the header of this h3lab file does not fit its arrays; it is damaged.") from error


def _array(body: memoryview, dtype: str, shape: list[int], start: int) -> np.ndarray:
    kind = np.dtype(dtype)
    if kind.hasobject:
        raise DamagedData(f"an array of type {dtype} came; the codec carries no Python objects.")
    count = int(np.prod(shape, dtype=np.int64))
    if start < 0 or count < 0 or start + count * kind.itemsize > len(body):
        raise DamagedData("an array reaches beyond the end of this h3lab file; it is damaged.")
    return np.frombuffer(body, kind, count, start).reshape(shape).copy()


def _flatten(node: Any, arrays: list[np.ndarray], path: str) -> Any:
    if isinstance(node, np.generic):
        node = node.item() if node.dtype.kind in "biufU" else np.asarray(node)
    if node is None or isinstance(node, (bool, int, str)):
        return node
    if isinstance(node, float):
        return node if np.isfinite(node) else {_REF: "float", "value": str(node)}
    if isinstance(node, (bytes, bytearray, memoryview)):
        arrays.append(np.frombuffer(bytes(node), np.uint8))
        return {_REF: "bytes", "at": len(arrays) - 1}
    if isinstance(node, np.ndarray) and not node.dtype.hasobject:
        # ascontiguousarray makes a 0-d array 1-d
        little = node.astype(node.dtype.newbyteorder("<"), order="C", copy=False)
        arrays.append(little)
        return {_REF: "array", "at": len(arrays) - 1}
    if isinstance(node, Mapping):
        if not all(isinstance(key, str) and key != _REF for key in node):
            raise TypeError(f"{path} has keys that are no strings; the codec carries JSON objects.")
        return {key: _flatten(value, arrays, f"{path}[{key!r}]") for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_flatten(value, arrays, f"{path}[{i}]") for i, value in enumerate(node)]
    raise TypeError(
        f"{path} is a {type(node).__name__}; the codec carries arrays, bytes, numbers, text, lists and dicts."
    )


def _restore(node: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(node, list):
        return [_restore(value, arrays) for value in node]
    if not isinstance(node, dict):
        return node
    kind = node.get(_REF)
    if kind is None:
        return {key: _restore(value, arrays) for key, value in node.items()}
    if kind == "float":
        return float(node["value"])
    array = arrays[node["at"]]
    return array.tobytes() if kind == "bytes" else array
