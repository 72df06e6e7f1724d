"""Keys: rows of a source known by the values of a column, not by their row numbers.

It knows how values become 64-bit keys, the same in any process and version; it does not know splits or lookups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab import worlds
from h3lab.errors import DataError, UsageError
from h3lab.source import Part, Source, mix

if TYPE_CHECKING:
    import pyarrow as pa


class Keyed(Source):
    """A source whose rows are known by one column or several."""

    numbered = False

    def __init__(self, base: Source, key: str | Sequence[str]) -> None:
        self.base, self.key = base, columns_of_key(key)
        base.check(self.key)
        self.bounded, self.replayable, self.ordered = base.bounded, base.replayable, base.ordered

    @property
    def schema(self) -> pa.Schema:
        return self.base.schema

    def parts(self) -> Sequence[Part]:
        # What was prepared with other keys is not the same; a part whose version nobody knows stays one.
        by = f"|by {', '.join(self.key)}"
        return [replace(part, version=part.version and part.version + by) for part in self.base.parts()]

    def read(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        return self.base.read(part, columns)

    def first(self, rows: int) -> pa.Table:
        return self.base.first(rows)

    def keys(self, part: Part, table: pa.Table) -> np.ndarray:
        """Keys of the values; the columns are read where the table came without them."""
        if not set(self.key) <= set(table.column_names):
            table = self.base.read(part, list(self.key))
        found = np.zeros(table.num_rows, np.uint64)
        for name in self.key:
            found = mix(found) ^ keys_of(table.column(name), f"{part.name!r}, rows from {part.start}, column {name!r}")
        return found

    def describe(self) -> dict[str, Any]:
        return {"kind": "keyed", "of": self.base.describe(), "key": list(self.key)}

    @property
    def title(self) -> str:
        return f"{self.base.title} by {', '.join(self.key)}"

    def size(self) -> str:
        return self.base.size()


def columns_of_key(key: Any) -> tuple[str, ...]:
    """The names of the columns of a key; UsageError for anything else."""
    names = (key,) if isinstance(key, str) else tuple(key) if isinstance(key, Iterable) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise UsageError(f"key={key!r} came; expected a column or columns, for example key='id'.")
    return names


def reopen(description: Mapping[str, Any]) -> Keyed:
    """The inverse of ``describe``."""
    return Keyed(worlds.reopen(description["of"]), description["key"])


def keys_of(column: pa.ChunkedArray, what: str) -> np.ndarray:
    """(rows,) uint64 of whole numbers, booleans, times, text or bytes; DataError for missing values and other types."""
    import pyarrow as pa
    import pyarrow.types as t

    if column.null_count:
        raise DataError(f"{what}: {column.null_count} rows have no key. Fill them, or leave the rows out.")
    if t.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    type_ = column.type
    if t.is_temporal(type_):
        column = column.cast(pa.int32() if type_.bit_width == 32 else pa.int64())
    if t.is_integer(column.type) or t.is_boolean(type_):
        numbers = column.to_numpy()
        return mix(numbers.astype(np.int64 if numbers.dtype.kind != "u" else np.uint64).view(np.uint64))
    if t.is_string(type_) or t.is_large_string(type_) or t.is_string_view(type_) or t.is_decimal(type_):
        return _of_text(column.cast(pa.large_string()))
    if t.is_binary(type_) or t.is_large_binary(type_):
        return _of_text(column.cast(pa.large_binary()))
    raise DataError(f"{what} is {type_}; keys are whole numbers, text, booleans or times.")


def _of_text(column: pa.ChunkedArray) -> np.ndarray:
    """Each byte at each place draws 64 bits; a text is their sum and its length, scrambled (Zobrist hashing)."""
    import pyarrow as pa

    found = []
    for chunk in column.chunks:
        offsets = np.frombuffer(chunk.buffers()[1], np.int64, len(chunk) + 1, chunk.offset * 8)
        data = chunk.buffers()[2] or pa.py_buffer(b"")
        text = np.frombuffer(data, np.uint8, int(offsets[-1] - offsets[0]), int(offsets[0]) if len(data) else 0)
        lengths = np.diff(offsets)
        place = np.arange(len(text), dtype=np.uint64) - np.repeat((offsets[:-1] - offsets[0]), lengths).astype(
            np.uint64
        )
        drawn = mix(text.astype(np.uint64) | (place << np.uint64(8)))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(drawn, dtype=np.uint64)])
        edges = offsets - offsets[0]
        found.append(mix((sums[edges[1:]] - sums[edges[:-1]]) ^ mix(lengths.astype(np.uint64))))
    return np.concatenate(found) if found else np.zeros(0, np.uint64)
