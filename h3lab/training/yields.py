"""What somebody's own loop yields: metrics, checked and made plain numbers.

It knows what a record may hold; it does not know what made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from h3lab.errors import UsageError
from h3lab.records import Record

#: Entries that a journal gives a meaning of its own.
_RESERVED = ("seconds", "event", "nonfinite")
_EXAMPLE = "yield {'loss': 0.25, 'epoch': 3}"


def checked(item: Any, name: str, before: int) -> Record:
    """The record of what the loop ``name`` yielded: ``step`` (one more than ``before``, or its own where that is
    greater), the ``epoch`` where it has one, and numbers. None is a metric without a value at this step and left out;
    NaN and infinities are values. UsageError for everything else."""
    if not isinstance(item, Mapping):
        raise UsageError(f"{name} yielded {_shown(item)}; expected a dict of metrics: {_EXAMPLE}.")
    record: Record = {"step": before + 1, "seconds": 0.0}
    for key, value in item.items():
        if type(value) is float and type(key) is str and key not in _RESERVED and key != "step":
            record[key] = value  # nearly all there is
            continue
        if not isinstance(key, str):
            raise UsageError(f"{name} yielded the key {key!r}; metrics are named by text: {_EXAMPLE}.")
        if key in _RESERVED:
            raise UsageError(f"{name} yielded {key!r}, a name that h3lab fills in itself; give it another one.")
        if value is not None:
            record[key] = _number(name, key, value)
    step = record["step"]
    if isinstance(step, float) or step <= before:
        raise UsageError(
            f"{name} yielded step={step!r} after step {before}; steps are whole numbers from 1 that only grow. Leave "
            "it out, and every yield is a step."
        )
    return record


def _number(name: str, key: str, value: Any) -> Any:
    if isinstance(value, (bool, int, float)):
        return value
    try:
        found = value.item()  # of NumPy and torch, whatever their shape, if it is one number
    except (AttributeError, ValueError, RuntimeError, TypeError):
        found = None
    if isinstance(found, (bool, int, float)):
        return found
    if isinstance(value, Real):  # after NumPy's integers, which count as such and would become floats
        return float(value)
    shape = getattr(value, "shape", None)
    instead = f"yield one number of it, for example {key}.mean()" if shape else "yield a number, or leave it out"
    raise UsageError(f"{name} yielded {key}={_shown(value)}, which is no number; {instead}.")


def _shown(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape:
        return f"a {type(value).__name__} of shape {tuple(shape)}"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
