"""Bad rows: the records of a text file that are none, or whose values do not fit the types of their columns.

A record is bad exactly where Arrow's parser does not take it alone, so it does not matter how a file is cut. Records
are parsed together; where that fails they are looked at one by one, and what looks good is halved until all of it is
taken. Nothing is spent on text without a bad one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.types as t

from h3lab import brief
from h3lab.errors import DataError
from h3lab.sources import records
from h3lab.sources.parsing import is_utf8, parse
from h3lab.sources.records import Span
from h3lab.sources.schemas import unify

_REFUSED = (pa.ArrowInvalid, pa.ArrowNotImplementedError, DataError)


@dataclass(frozen=True)
class Bad:
    """A record that was left out. ``row``: its number among the records of its file, from 0; ``line``: where it begins,
    from 1."""

    row: int
    line: int
    text: bytes
    reason: str

    def __str__(self) -> str:
        return f"line {self.line} {self.reason}: {shown(self.text)}"


@dataclass(frozen=True)
class Sifted:
    """Some text of whole records: a table of the good ones, how many there are in all, and which are bad: (number,
    span)."""

    table: pa.Table
    records: int
    bad: Sequence[tuple[int, Span]]


@dataclass(frozen=True)
class Sieve:
    """What a record of a file must be. ``names``: of its columns in their order (CSV); ``types``: their schema."""

    kind: str
    names: list[str] | None
    types: pa.Schema

    @property
    def width(self) -> int:
        """Fields of a CSV record."""
        return len(self.names or ())

    def sift(self, data: bytes) -> Sifted:
        """The good records of some text that begins and ends between two of them."""
        return _sift(data, self.kind, self.width, self._parse, self.types)

    def _parse(self, data: bytes) -> pa.Table:
        return parse(data, self.kind, self.names, self.types.names, self.types)

    def bad(self, data: bytes, found: Sifted, row: int, line: int) -> Iterator[Bad]:
        """The bad ones with their places and reasons; ``row`` and ``line`` are the text's first ones."""
        at = 0
        for number, span in found.bad:
            line, at = line + records.line_ends(data[at : span.start]), span.start
            text = data[span.start : span.stop]
            yield Bad(row + number, line, text, span.wrong or self.reason(text))

    def first(self, data: bytes) -> Bad | None:
        """The first record as a bad one."""
        spans = records.split(data, self.kind, self.width)
        text = data[spans[0].start : spans[0].stop] if spans else b""
        return Bad(0, 1 + records.line_ends(data[: spans[0].start]), text, self.reason(text)) if spans else None

    def reason(self, record: bytes) -> str:
        """Why a record is none."""
        if not is_utf8(record):
            return "is no UTF-8 text"
        row: Any = {}
        if self.kind == "jsonl":
            try:
                row = json.loads(record.decode("utf-8-sig"))
            except json.JSONDecodeError as error:
                return f"is no JSON ({error.msg}, at character {error.pos + 1})"
            except (ValueError, RecursionError) as error:
                return f"is no JSON ({error})"
            if not isinstance(row, dict):
                return "is no JSON object, whose names would be columns"
        elif (count := records.fields(record, self.kind)) != self.width:
            return f"has {count} field{'s' * (count != 1)}, expected {self.width}"
        try:
            parse(record, self.kind, self.names, None, None)
        except _REFUSED as error:
            return f"is not taken ({str(error).removesuffix(' in row 0')})"
        return self._misfit(record, row)

    def _misfit(self, record: bytes, row: dict[str, Any]) -> str:
        for field in self.types:
            try:
                parse(record, self.kind, self.names, [field.name], self.types)
            except _REFUSED:
                value = f"; here it is {json.dumps(row.get(field.name))}" if self.kind == "jsonl" else ""
                return f"does not fit column {field.name!r}, {brief.line(field.type, 60)}{brief.line(value, 60)}"
        return "is no single record"


def _sift(data: bytes, kind: str, width: int, parsed: Callable[[bytes], pa.Table], types: Any = ()) -> Sifted:
    table = None if records.spoilt(data, kind, width) else _table(data, None, parsed)
    if table is not None:
        return Sifted(table, table.num_rows, ())
    spans = records.split(data, kind, width)
    bad = _bad_of(data, spans, _Doubts(kind, width, types), parsed)
    wrong = {number for number, _ in bad}
    return Sifted(parsed(_joined(data, spans, set(range(len(spans))) - wrong)), len(spans), bad)


def _joined(data: bytes, spans: Sequence[Span], numbers: Iterable[int]) -> bytes:
    return b"\n".join(data[spans[n].start : spans[n].stop] for n in sorted(numbers)) or b"\n"


def _table(data: bytes, count: int | None, parsed: Callable[[bytes], pa.Table]) -> pa.Table | None:
    """The table of so many records, or None where one of them is bad."""
    if not is_utf8(data):
        return None
    try:
        table = parsed(data)
    except _REFUSED:
        return None
    return table if count in (None, table.num_rows) else None


@dataclass(frozen=True)
class _Doubts:
    """What is seen of a record without Arrow's parser, which takes a fifth of a millisecond however short its text is:
    whether it is surely bad (True), perhaps (None), or looks good (False)."""

    kind: str
    width: int
    types: Iterable[pa.Field]

    def __call__(self, record: bytes) -> bool | None:
        if not is_utf8(record):
            return True
        if self.kind != "jsonl":
            return records.fields(record, self.kind) != self.width
        try:
            row = json.loads(record.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            return None if _LENIENT.search(record) else True
        if not isinstance(row, dict):
            return True
        return None if any(not _alike(row.get(field.name), field.type) for field in self.types) else False


#: What Arrow takes and Python does not: more words for numbers, more digits, and lists within lists.
_LENIENT = re.compile(rb"(?i)inf|nan|[0-9]{4000}|[\[{]{500}")


def _alike(value: Any, type_: pa.DataType) -> bool:
    if value is None:
        return True
    if isinstance(value, bool):
        return t.is_boolean(type_)
    if isinstance(value, int | float):
        return t.is_floating(type_) or (t.is_integer(type_) and isinstance(value, int))
    return t.is_string(type_) or t.is_temporal(type_) if isinstance(value, str) else t.is_nested(type_)


def _bad_of(
    data: bytes, spans: Sequence[Span], doubts: _Doubts, parsed: Callable[[bytes], pa.Table]
) -> list[tuple[int, Span]]:
    bad, rest = [], []
    for number, (start, stop, wrong) in enumerate(spans):
        doubt = True if wrong else doubts(data[start:stop])
        if doubt or (doubt is None and _table(data[start:stop], 1, parsed) is None):
            bad.append(number)
        else:
            rest.append(number)

    def search(some: Sequence[int]) -> None:
        if not some or _table(_joined(data, spans, some), len(some), parsed) is not None:
            return
        if len(some) == 1:
            bad.append(some[0])
            return
        search(some[: len(some) // 2])
        search(some[len(some) // 2 :])

    search(rest)
    return [(number, spans[number]) for number in sorted(bad)]


def inferred(data: bytes, kind: str, names: list[str] | None, known: pa.Schema | None) -> pa.Schema | None:
    """The types of the good records of a sample, and of what was ``known`` before; None where there are none. Where the
    values of a field of JSON do not fit together, those that come first decide."""
    if kind != "jsonl":
        return _sift(data, kind, len(names or ()), lambda text: parse(text, kind, names, None, None)).table.schema
    types = known

    def parsed(text: bytes) -> pa.Table:
        nonlocal types
        table = parse(text, kind, None, None, None)
        types = table.schema if types is None else _unified(types, table.schema)
        return table

    if _table(data, None, parsed) is None:
        _bad_of(data, records.split(data, kind), _Doubts(kind, 0, ()), parsed)
    return types


def _unified(known: pa.Schema, new: pa.Schema) -> pa.Schema:
    """DataError where text stands beside what is none; a time is text that was read as one."""
    for field in new:
        types = [field.type, known.field(field.name).type] if field.name in known.names else []
        if any(map(t.is_string, types)) and not all(t.is_string(x) or t.is_temporal(x) or t.is_null(x) for x in types):
            raise DataError(f"field {field.name!r} is {types[1]} in some lines and {types[0]} in others.")
    return unify(known, new, mixed=False)


def shown(text: bytes) -> str:
    """The beginning of a record, on one line."""
    return brief.line(text[:400].decode(errors="replace"), 80)
