"""States: what a loop of one's own keeps ↔ a codec tree that gives it back with its types; nothing is pickled.

The codec alone would refuse keys that are numbers, as optimizers have them, and give tuples back as lists, which
``random.setstate`` refuses. It knows containers and leaves; tensors it leaves to their world.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from h3lab import worlds
from h3lab.errors import UsageError


def to_tree(value: Any, path: str = "state") -> Any:
    """A copy of ``value`` as a codec tree: numbers, text, bytes, None, arrays, tensors (of any device), and dicts,
    lists and tuples of them, at any depth. UsageError names the path of whatever else it meets."""
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    if isinstance(value, Mapping):
        return {"dict": [[_key(key, path), to_tree(item, f"{path}[{key!r}]")] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [to_tree(item, f"{path}[{number}]") for number, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.dtype.kind not in "OV"):
        return np.array(value)
    kind = worlds.tensor(value)
    if kind is not None:
        return {"tensor": worlds.load(worlds.TENSORS[kind]).to_array(value), "dtype": str(value.dtype), "kind": kind}
    raise UsageError(
        f"{path} is a {type(value).__module__}.{type(value).__qualname__}, which a snapshot cannot hold; expected "
        f"numbers, text, arrays, tensors, and dicts, lists and tuples of them{_instead(value, path)}."
    )


def from_tree(tree: Any) -> Any:
    """The inverse. Tensors come back as tensors on the CPU, every mapping as a dict, every array in memory of its
    own."""
    if isinstance(tree, list):
        return [from_tree(item) for item in tree]
    if not isinstance(tree, dict):
        return tree[()] if isinstance(tree, np.ndarray) and not tree.ndim else tree
    if "tensor" in tree:
        return worlds.load(worlds.TENSORS[tree["kind"]]).from_array(tree["tensor"], tree["dtype"])
    if "tuple" in tree:
        return tuple(from_tree(item) for item in tree["tuple"])
    return {from_tree(key): from_tree(item) for key, item in tree["dict"]}


def _key(key: Any, path: str) -> Any:
    if isinstance(key, np.generic):
        key = key.item()
    flat = key if isinstance(key, tuple) else (key,)
    if not all(part is None or isinstance(part, (bool, int, float, str)) for part in flat):
        raise UsageError(f"{path} has {key!r} for a key; a snapshot's keys are numbers, text, or tuples of them.")
    return to_tree(key)


def _instead(value: Any, path: str) -> str:
    """What to write in its place, where frameworks agree on a word."""
    for name, call in (("state_dict", "state_dict()"), ("bit_generator", "bit_generator.state")):
        if hasattr(value, name):
            return f", for example {path}.{call}"
    return ""
