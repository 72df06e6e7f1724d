"""Text files: CSV and TSV with a header line, and JSON lines.

Types are found in samples (the beginning, the middle and the end of each file). Pieces are byte ranges at line ends;
where quotes make those doubtful, rows of a stream. An empty cell is a missing value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from h3lab.errors import DamagedData, DataError
from h3lab.sources import cursors, records
from h3lab.sources.formats import Piece, compression, rows_at_once, runs
from h3lab.sources.lines import cuts
from h3lab.sources.parsing import csv_options, empty_is_missing, parse
from h3lab.sources.places import File
from h3lab.sources.schemas import unify

_SAMPLE = 1 << 20


def schema(file: File, kind: str) -> pa.Schema:
    """Names from the header or the samples' fields, types from the samples."""
    found: pa.Schema | None = None
    for number, sample in enumerate(samples(file, kind)):
        try:
            one = parse(sample, kind, None if number == 0 else found.names if found else None, None, None).schema
        except pa.ArrowInvalid:
            if number == 0:
                raise
            continue  # a sample from the middle may begin inside quotes
        found = one if found is None else unify(found, one, mixed=kind != "jsonl")
    if found is None:
        raise DataError(f"{file.shown} is empty: not even a line that names its columns.")
    for field in found:
        if pa.types.is_binary(field.type):
            raise DataError(f"{file.shown}: column {field.name!r} is no UTF-8 text. Convert the file to UTF-8.")
    return found


def samples(file: File, kind: str) -> Iterator[bytes]:
    """Whole lines of the beginning, which has the header of a CSV file, of the middle and of the end."""
    with opened(file) as source:
        head = source.read(_SAMPLE)
    size = 0 if compression(file) else file.size
    if head.strip():
        yield _whole_lines(head, kind) if len(head) == _SAMPLE else head
    for place in (size // 2, size - _SAMPLE) if size > 4 * _SAMPLE else ():
        piece = file.bytes(place, place + _SAMPLE)
        piece = piece[piece.find(b"\n") + 1 :]
        yield piece if place + _SAMPLE >= size else piece[: piece.rfind(b"\n") + 1]


def _whole_lines(head: bytes, kind: str) -> bytes:
    end = head.rfind(b"\n")
    while kind != "jsonl" and end > 0 and head.count(b'"', 0, end) % 2:
        end = head.rfind(b"\n", 0, end)
    # A line longer than the sample, or quotes that do not close: the parser says it best.
    return head[: end + 1] if end > 0 else head


def cut(file: File, kind: str, schema: pa.Schema) -> list[Piece]:
    """Byte ranges of whole records, or rows of a stream where nobody can tell records without reading them all."""
    if not compression(file):
        found = cuts(file, header=kind != "jsonl", quotes=kind != "jsonl")
        if not found.returns and (not found.quoted or _agree(file, kind, schema, found.pieces)):
            pieces, start = [], 0
            for first, last, rows, digest in found.pieces:
                pieces.append(Piece(start, rows, {"bytes": [first, last]}, digest))
                start += rows
            return pieces
    rows = size = 0
    for batch in stream(file, kind, schema.names, schema):
        rows, size = rows + len(batch), size + batch.nbytes
    version = file.version
    usual = rows_at_once(size / max(1, rows))
    return [Piece(low, high - low, {"rows": [low, high]}, version) for low, high in runs(0, rows, usual)]


def _agree(file: File, kind: str, schema: pa.Schema, pieces: Sequence[tuple[int, int, int, str]]) -> bool:
    """Whether the parser finds as many rows in each piece as the quotes promise; a stray quote turns inside out what
    follows it, and then it does not."""
    names = header(file, kind)[0] or schema.names
    try:
        counts = [parse(file.bytes(a, b), kind, names, names[:1], schema).num_rows for a, b, *_ in pieces]
    except pa.ArrowInvalid:
        return False
    return counts == [rows for _, _, rows, _ in pieces]


def header(file: File, kind: str) -> tuple[list[str] | None, int]:
    """The columns of a CSV file in its own order, and where its rows begin."""
    if kind == "jsonl":
        return None, 0
    length = 1 << 16
    while True:
        with opened(file) as source:
            head = source.read(length)
        stop = records.header(head, kind)
        if stop < len(head) or len(head) < length:
            return parse(head[:stop], kind, None, None, None).schema.names, stop
        length *= 16


def read(file: File, kind: str, position: Any, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
    """The rows of a piece."""
    if "bytes" in position:
        first, last = position["bytes"]
        data = file.bytes(first, last)
        if len(data) < last - first:
            raise DamagedData(f"it ends at byte {first + len(data)}; it has changed")
        table = parse(data, kind, header(file, kind)[0], columns, schema)
        return empty_is_missing(table.select(list(columns)))
    low, high = position["rows"]
    key = (file, file.version, tuple(columns))
    found = cursors.take(key, lambda: stream(file, kind, columns, schema), low, high)
    return pa.Table.from_batches(found, found[0].schema)


def first(file: File, kind: str, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """Batches with the first rows: those of a sample where it has enough, because a stream decodes a whole block."""
    for sample in samples(file, kind):
        table = parse(sample, kind, None, schema.names, schema)
        if table.num_rows >= rows:
            yield from empty_is_missing(table.slice(0, rows).select(schema.names)).to_batches()
            return
        break
    yield from stream(file, kind, schema.names, schema)


def stream(file: File, kind: str, columns: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """From the first row on."""
    with opened(file) as source:
        if kind == "jsonl":
            for data in records.texts(source, kind):
                yield from batches(parse(data, kind, None, columns, schema), columns)
            return
        read, options, convert = csv_options(kind, None, columns, schema)
        # Closed, because a reader that nobody reads to its end has a thread that outlives Python, and aborts it.
        with pacsv.open_csv(source, read, options, convert) as reader:
            for batch in reader:
                yield from batches(pa.Table.from_batches([batch]), columns)


def batches(table: pa.Table, columns: Sequence[str]) -> list[pa.RecordBatch]:
    """The rows as they are given to others."""
    return empty_is_missing(table.select(list(columns))).combine_chunks().to_batches()


def opened(file: File) -> Any:
    """The text of a file, decompressed."""
    how = compression(file)
    return pa.CompressedInputStream(file.open(), how) if how else file.open()
