"""Contents: digests of rows by their values, whatever pieces, offsets and unused slots they lie in.

It knows Arrow's layouts; it does not know where rows come from. Equal digests mean equal values, bit for bit; equal
values of another type, or another order of rows, have other digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

_BYTES = 8


def column_digest(column: pa.ChunkedArray) -> str:
    """16 hex digits of a column."""
    return Digest().add(column).hexdigest()


def table_digest(tables: Iterable[pa.Table]) -> str:
    """16 hex digits of tables with the same columns, one below the other."""
    found: dict[str, Digest] = {}
    for table in tables:
        for name, column in zip(table.column_names, table.columns, strict=True):
            found.setdefault(name, Digest()).add(column)
    return joint({name: one.hexdigest() for name, one in found.items()})


def joint(digests: dict[str, str]) -> str:
    """16 hex digits of digests by name."""
    text = "".join(f"{name}\0{digests[name]}\1" for name in sorted(digests))
    return hashlib.blake2b(text.encode(), digest_size=_BYTES).hexdigest()


class Digest:
    """A column that comes in pieces. Values, lengths and places of nulls are streams of their own, so that it does not
    matter where one piece ends."""

    def __init__(self) -> None:
        self._streams: dict[str, Any] = {}
        self._rows: dict[str, int] = {}
        self._type = ""

    def add(self, column: pa.ChunkedArray) -> Digest:
        """The next rows."""
        self._type = _told(column.type)
        for chunk in column.chunks:
            self._feed("", chunk)
        return self

    def hexdigest(self) -> str:
        """16 hex digits."""
        streams = {name: stream.hexdigest() for name, stream in self._streams.items()}
        return joint(streams | {f"rows{name}": str(rows) for name, rows in self._rows.items()} | {"type": self._type})

    def _feed(self, path: str, values: pa.Array) -> None:
        import pyarrow as pa
        import pyarrow.types as t

        before = self._rows.get(path, 0)
        self._rows[path] = before + len(values)
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        if t.is_dictionary(values.type):
            values = values.dictionary_decode()
        if t.is_string_view(values.type) or t.is_binary_view(values.type):
            values = values.cast(pa.large_binary())  # a view cannot be filtered
        if values.null_count:
            self._bytes(f"{path}null", np.flatnonzero(values.is_null().to_numpy(False)) + before)
            values = values.drop_null()  # what lies in the slot of a null is nobody's
        kind = values.type
        if not len(values):
            return
        if t.is_boolean(kind):
            self._bytes(path, values.cast(pa.uint8()).to_numpy())
        elif _is_text(kind) or t.is_binary(kind) or t.is_large_binary(kind):
            self._text(path, values.cast(pa.large_binary()))
        elif t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
            if not t.is_fixed_size_list(kind):
                self._bytes(f"{path}length", values.value_lengths().to_numpy().astype(np.int64))
            self._feed(f"{path}.", values.flatten())
        elif t.is_struct(kind):
            for number, field in enumerate(values.flatten()):
                self._feed(f"{path}.{number}", field)
        elif t.is_primitive(kind) or t.is_decimal(kind) or t.is_fixed_size_binary(kind):
            width = kind.bit_width // 8
            self._bytes(path, np.frombuffer(values.buffers()[1], np.uint8, len(values) * width, values.offset * width))
        else:  # maps, unions: rare, and slow
            self._bytes(path, np.frombuffer("".join(f"{v!r}\0" for v in values.to_pylist()).encode(), np.uint8))

    def _text(self, path: str, values: Any) -> None:
        _, places, data = values.buffers()
        offsets = np.frombuffer(places, np.int64, len(values) + 1, values.offset * 8)
        self._bytes(f"{path}length", np.diff(offsets))
        if offsets[-1] > offsets[0]:
            self._bytes(path, np.frombuffer(data, np.uint8, int(offsets[-1] - offsets[0]), int(offsets[0])))

    def _bytes(self, stream: str, values: np.ndarray) -> None:
        if stream not in self._streams:
            self._streams[stream] = hashlib.blake2b(digest_size=_BYTES)
        self._streams[stream].update(np.ascontiguousarray(values).data)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind))


def _told(kind: pa.DataType) -> str:
    """A type's name; the three forms of text, which differ by who made them, have one."""
    return "text" if _is_text(kind) else str(kind)
