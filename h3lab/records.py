"""A Record: a plain dict with ``step``, ``epoch``, ``seconds`` and one entry a metric.

This module turns records into JSON lines that any JSON reader can read, and back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

Record = dict[str, Any]

#: Keys that stand in every record of a step and are no metrics.
AXES = ("step", "epoch", "seconds")
_PLAIN = (float, int, str, type(None), list, tuple, dict)


def metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a record: whatever is neither an axis nor bookkeeping."""
    return {name: value for name, value in record.items() if name not in AXES and name != "nonfinite"}


def encode(record: Mapping[str, Any]) -> str:
    """One line of JSON without its newline. NaN and infinities are no JSON: they become null, and ``nonfinite`` maps
    their names to "nan", "inf" or "-inf"."""
    record = {name: value if isinstance(value, _PLAIN) else _plain(value) for name, value in record.items()}
    bad = {name: str(value) for name, value in record.items() if isinstance(value, float) and not math.isfinite(value)}
    if bad:
        record = {
            **{name: None if name in bad else value for name, value in record.items()},
            "nonfinite": bad,
        }
    return json.dumps(record, separators=(",", ":"), allow_nan=False, default=_plain)


def decode(line: str | bytes) -> Record:
    """The record of one line, with its non-finite values put back."""
    record: Record = json.loads(line)
    for name, text in record.pop("nonfinite", {}).items():
        record[name] = float(text)
    return record


def decode_lines(data: bytes) -> list[Record]:
    """The records of many whole lines. Parsed as one array, which takes a third of the time that its lines take."""
    found: list[Record] = json.loads(b"[" + data.rstrip(b"\n").replace(b"\n", b",") + b"]")
    for record in found:
        for name, text in record.pop("nonfinite", {}).items():
            record[name] = float(text)
    return found


def columns(records: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Records → columns of equal length; what a record lacks is None. Axes first, then metrics as they first appear. A
    loop of one's own may have no epochs, and then there is no such column."""
    records = list(records)
    found = dict.fromkeys(AXES if not records else ())
    for record in records:
        found.update(dict.fromkeys(record))
    names = dict.fromkeys([*(name for name in AXES if name in found), *found])
    return {name: [record.get(name) for record in records] for name in names}


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):  # numpy and torch scalars
        return value.item()
    raise TypeError(f"a record holds numbers, text and None; {type(value).__name__} came")
