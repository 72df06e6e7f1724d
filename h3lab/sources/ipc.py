"""Arrow files, Feather included: pieces are runs of record batches, or runs of rows where a batch is large."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from h3lab.errors import DataError
from h3lab.sources import cursors
from h3lab.sources.formats import Piece, rows_at_once, runs
from h3lab.sources.places import File


@contextmanager
def _opened(file: File, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """A reader of the file format, or of the stream format, which has no list of its batches."""
    magic = file.bytes(0, 6)
    if magic[:4] == b"FEA1":
        raise DataError(f"{file.shown} is Feather version 1, which Arrow has given up. Write it again as version 2.")
    with file.open() as source:
        if magic != b"ARROW1":
            with pa.ipc.open_stream(source) as reader:
                yield reader
            return
        options = None
        if columns is not None:
            names = pa.ipc.open_file(source).schema.names
            options = pa.ipc.IpcReadOptions(included_fields=[names.index(name) for name in columns])
        with pa.ipc.open_file(source, options=options) as reader:
            yield reader


def schema(file: File, kind: str) -> pa.Schema:
    """As it is written in the file."""
    with _opened(file) as reader:
        return reader.schema.remove_metadata()


def cut(file: File, kind: str, schema: pa.Schema) -> list[Piece]:
    """Small batches together, large ones in runs of rows; of a stream only reading tells them."""
    lengths = [len(batch) for batch in stream(file, kind, schema.names[:1], schema)]
    usual = rows_at_once(file.size / max(1, sum(lengths)))
    pieces: list[Piece] = []
    version, start, first = file.version, 0, 0
    whole = file.bytes(0, 6) == b"ARROW1"
    if not whole:
        return [Piece(low, high - low, {"rows": [low, high]}, version) for low, high in runs(0, sum(lengths), usual)]
    while first < len(lengths):
        last, count = first + 1, lengths[first]
        if count > 1.5 * usual:
            for low, high in runs(start, start + count, usual):
                pieces.append(Piece(low, high - low, {"rows": [low, high]}, version))
        else:
            while last < len(lengths) and count + lengths[last] <= usual:
                count += lengths[last]
                last += 1
            pieces.append(Piece(start, count, {"batches": [first, last]}, version))
        start, first = start + count, last
    return pieces


def read(file: File, kind: str, position: Any, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
    """The rows of a piece."""
    if "batches" in position:
        with _opened(file, columns) as reader:
            found = [reader.get_batch(number) for number in range(*position["batches"])]
            return pa.Table.from_batches(found, reader.schema).select(list(columns))
    low, high = position["rows"]
    key = (file, file.version, tuple(columns))
    found = cursors.take(key, lambda: stream(file, kind, columns, schema), low, high)
    return pa.Table.from_batches(found, found[0].schema)


def stream(file: File, kind: str, columns: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """From the first row on."""
    with _opened(file, columns) as reader:
        if hasattr(reader, "num_record_batches"):
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number).select(list(columns))
        else:
            for batch in reader:
                yield batch.select(list(columns))
