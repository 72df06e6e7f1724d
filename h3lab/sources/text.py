"""Text files: CSV and TSV with a header line, and JSON lines.

Types are found in samples (the beginning, the middle and the end of each file). Pieces are byte ranges at line ends;
where quotes make those doubtful, rows of a stream. An empty cell is a missing value.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson

from h3lab.errors import DamagedData, DataError
from h3lab.sources import cursors
from h3lab.sources.formats import Piece, compression, rows_at_once, runs
from h3lab.sources.lines import PIECE_BYTES, cuts
from h3lab.sources.places import File
from h3lab.sources.schemas import unify

_SAMPLE = 1 << 20
_SEPARATOR = {"csv": ",", "tsv": "\t"}


def schema(file: File, kind: str) -> pa.Schema:
    """Names from the header or the samples' fields, types from the samples."""
    found: pa.Schema | None = None
    for number, sample in enumerate(_samples(file, kind)):
        try:
            one = _parse(sample, kind, None if number == 0 else found.names if found else None, None, None).schema
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


def _samples(file: File, kind: str) -> Iterator[bytes]:
    with _stream_of(file) as opened:
        head = opened.read(_SAMPLE)
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


def _parse(data: Any, kind: str, names: Any, columns: Sequence[str] | None, types: pa.Schema | None) -> pa.Table:
    """Text → a table; ``names`` None: the first line has them; ``types`` None: they are inferred."""
    size = min(len(data) + 1, 2**31 - 1)
    if kind == "jsonl":
        options = pajson.ReadOptions(block_size=size)
        return pajson.read_json(pa.BufferReader(data), options, _json_options(columns, types))
    read, parse, convert = _csv_options(kind, names, columns, types)
    read.block_size = size
    return pacsv.read_csv(pa.BufferReader(data), read, parse, convert)


def _csv_options(kind: str, names: Any, columns: Sequence[str] | None, types: pa.Schema | None) -> tuple[Any, Any, Any]:
    read = pacsv.ReadOptions(column_names=names, block_size=PIECE_BYTES)
    parse = pacsv.ParseOptions(delimiter=_SEPARATOR[kind], newlines_in_values=True)
    convert = pacsv.ConvertOptions(include_columns=list(columns or []))
    if types is not None:
        convert.column_types = {field.name: field.type for field in types if columns is None or field.name in columns}
    return read, parse, convert


def _json_options(columns: Sequence[str] | None, types: pa.Schema | None) -> Any:
    if types is None:
        return pajson.ParseOptions()
    chosen = types if columns is None else pa.schema([types.field(name) for name in columns])
    return pajson.ParseOptions(explicit_schema=chosen, unexpected_field_behavior="ignore")


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
    names = _names(file, kind) or schema.names
    try:
        counts = [_parse(file.bytes(a, b), kind, names, names[:1], schema).num_rows for a, b, *_ in pieces]
    except pa.ArrowInvalid:
        return False
    return counts == [rows for _, _, rows, _ in pieces]


def _names(file: File, kind: str) -> list[str] | None:
    """The columns in this file's own order."""
    if kind == "jsonl":
        return None
    length = 1 << 16
    while True:
        head = file.bytes(0, length)
        line = _whole_lines(head, kind) if len(head) == length else head
        if len(line) < length:
            read, parse, convert = _csv_options(kind, None, None, None)
            # Closed, because a reader that nobody reads to its end has a thread that outlives Python, and aborts it.
            with pacsv.open_csv(pa.BufferReader(line), read, parse, convert) as first:
                return list(first.schema.names)
        length *= 16


def read(file: File, kind: str, position: Any, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
    """The rows of a piece."""
    if "bytes" in position:
        first, last = position["bytes"]
        data = file.bytes(first, last)
        if len(data) < last - first:
            raise DamagedData(f"it ends at byte {first + len(data)}; it has changed")
        table = _parse(data, kind, _names(file, kind), columns, schema)
        return _empty_is_missing(table.select(list(columns)))
    low, high = position["rows"]
    key = (file, file.version, tuple(columns))
    found = cursors.take(key, lambda: stream(file, kind, columns, schema), low, high)
    return pa.Table.from_batches(found, found[0].schema)


def first(file: File, kind: str, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """Batches with the first rows: those of a sample where it has enough, because a stream decodes a whole block."""
    for sample in _samples(file, kind):
        table = _parse(sample, kind, None, schema.names, schema)
        if table.num_rows >= rows:
            yield from _empty_is_missing(table.slice(0, rows).select(schema.names)).to_batches()
            return
        break
    yield from stream(file, kind, schema.names, schema)


def stream(file: File, kind: str, columns: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """From the first row on."""
    with _stream_of(file) as source:
        if kind == "jsonl":
            options = pajson.ReadOptions(block_size=PIECE_BYTES)
            reader = pajson.open_json(source, options, _json_options(columns, schema))
        else:
            read, parse, convert = _csv_options(kind, None, columns, schema)
            reader = pacsv.open_csv(source, read, parse, convert)
        with reader:
            for batch in reader:
                table = _empty_is_missing(pa.Table.from_batches([batch]).select(list(columns)))
                yield from table.combine_chunks().to_batches()


def first_bad(file: File, kind: str) -> str:
    """Where the first line is that is no JSON, or the first record with other columns than the header, and what stands
    there; "" for a file without one. Reads the file from its beginning."""
    if kind == "jsonl":
        with io.BufferedReader(_stream_of(file)) as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line) if line.strip() else {}
                except ValueError as error:
                    return f"line {number} is no JSON ({error}): {_short(line.decode(errors='replace'))}"
                if not isinstance(row, dict):
                    return f"line {number} is no JSON object, whose names would be columns: {_short(line.decode())}"
        return ""
    found: list[Any] = []
    read, parse, convert = _csv_options(kind, None, None, None)
    read.use_threads = False  # else records are not counted

    def stop(row: Any) -> str:
        found.append(row)
        return "error"

    parse.invalid_row_handler = stop
    with _stream_of(file) as source:
        try:
            with pacsv.open_csv(source, read, parse, convert) as reader:
                for _ in reader:
                    pass
        except pa.ArrowInvalid:
            if not found:
                return ""
    if not found:
        return ""
    bad = found[0]
    columns = f"Expected {bad.expected_columns} columns, got {bad.actual_columns}"
    return f"record {bad.number}, the header being the first: {columns}: {_short(bad.text)}"


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 80 else f"{text[:77]}..."


def _stream_of(file: File) -> Any:
    how = compression(file)
    return pa.CompressedInputStream(file.open(), how) if how else file.open()


def _empty_is_missing(table: pa.Table) -> pa.Table:
    for position, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            column = table.column(position)
            empty = pc.equal(column, "")
            if pc.any(empty).as_py():
                column = pc.if_else(empty, pa.scalar(None, field.type), column)
                table = table.set_column(position, field, column)
    return table
