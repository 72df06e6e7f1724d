"""Parsing: the text of whole records → a table, by Arrow's parsers, or the error that one of the records is none.

It knows what these parsers take that is no record, and keeps it from them; it does not know files or places in them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson

from h3lab.sources.lines import PIECE_BYTES

SEPARATOR = {"csv": ",", "tsv": "\t"}
#: Lines that are not blank.
LINES = re.compile(rb"[^\r\n]*[^\s][^\r\n]*")
_OBJECT = re.compile(rb"\s*+\{.*\}\s*+", re.DOTALL)
_NULL = re.compile(rb"(?:\xef\xbb\xbf)?\s*+null")
_MARK = b"\xef\xbb\xbf"  # of the byte order
_MARKED = re.compile(rb"(\A|[\r\n])" + _MARK)


def parse(data: bytes, kind: str, names: Any, columns: Sequence[str] | None, types: pa.Schema | None) -> pa.Table:
    """``names`` None: the first line of a CSV file has them; ``types`` None: they are inferred. ArrowInvalid where a
    record is none, or does not fit the types of ``columns`` (None: all)."""
    size = min(len(data) + 1, 2**31 - 1)
    if kind != "jsonl":
        read, parse, convert = csv_options(kind, names, columns, types)
        read.block_size = size
        return pacsv.read_csv(pa.BufferReader(data), read, parse, convert)
    options = pajson.ReadOptions(block_size=size), json_options(columns, types)
    try:
        table = _read_json(data, *options)
    except pa.ArrowInvalid:
        if _MARK not in data:
            raise
        data = _MARKED.sub(rb"\1   ", data)  # files that were put one behind another
        table = _read_json(data, *options)
    # It also takes an object in several lines, several in one, later nulls, and bytes that are no text.
    if not _an_object_a_line(data, table.num_rows):
        raise pa.ArrowInvalid("JSON parse error: lines and objects are not the same")
    if not is_utf8(data):
        raise pa.ArrowInvalid("JSON parse error: invalid UTF8 data")
    return table


def _read_json(data: bytes, *options: Any) -> pa.Table:
    if _NULL.match(data):  # Arrow's parser ends the process there: github.com/apache/arrow/issues/47409
        raise pa.ArrowInvalid("JSON parse error: null is no object, in row 0")
    return pajson.read_json(pa.BufferReader(data), *options)


def csv_options(kind: str, names: Any, columns: Sequence[str] | None, types: pa.Schema | None) -> tuple[Any, Any, Any]:
    """Arrow's options to read, parse and convert CSV."""
    read = pacsv.ReadOptions(column_names=names, block_size=PIECE_BYTES)
    parse = pacsv.ParseOptions(delimiter=SEPARATOR[kind], newlines_in_values=True)
    convert = pacsv.ConvertOptions(include_columns=list(columns or []))
    if types is not None:
        convert.column_types = {field.name: field.type for field in types if columns is None or field.name in columns}
    return read, parse, convert


def json_options(columns: Sequence[str] | None, types: pa.Schema | None) -> Any:
    """Arrow's options to parse JSON lines."""
    if types is None:
        return pajson.ParseOptions()
    chosen = types if columns is None else pa.schema([types.field(name) for name in columns])
    return pajson.ParseOptions(explicit_schema=chosen, unexpected_field_behavior="ignore")


def _an_object_a_line(data: bytes, rows: int) -> bool:
    text = np.frombuffer(data, np.uint8)
    ends = newlines(data)
    if not data.endswith(b"\n"):
        ends = np.append(ends, len(text))
    starts = np.append(0, ends[:-1] + 1)
    if len(ends) == rows and (ends > starts).all() and (text[starts] == ord("{")).all():
        last = text[ends - 1]
        if (np.where(last == ord("\r"), text[np.maximum(ends - 2, 0)], last) == ord("}")).all():
            return True
    found = [line.group() for line in LINES.finditer(data.removeprefix(_MARK))]
    return len(found) == rows and all(map(_OBJECT.fullmatch, found))


def newlines(data: bytes) -> np.ndarray:
    """Where they are."""
    # Some of it at a time, because a mask of all of it costs more in new pages than in comparing.
    text, some = np.frombuffer(data, np.uint8), 1 << 18
    found = [np.flatnonzero(text[at : at + some] == ord("\n")) + at for at in range(0, len(data), some)]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def is_utf8(data: bytes) -> bool:
    """Whether it is text."""
    if data.isascii():
        return True
    ends = pa.py_buffer(np.array([0, len(data)], np.int64))
    try:  # without a copy of it
        pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(data)]).cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def empty_is_missing(table: pa.Table) -> pa.Table:
    """Empty text as nulls."""
    for position, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            column = table.column(position)
            empty = pc.equal(column, "")
            if pc.any(empty).as_py():
                column = pc.if_else(empty, pa.scalar(None, field.type), column)
                table = table.set_column(position, field, column)
    return table
