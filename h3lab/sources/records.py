"""Records: where the rows of some text begin and end, as Arrow's parsers see them.

It knows lines, separators and quotes; it does not know names or types.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from h3lab.source import PART_ROWS
from h3lab.sources import lines
from h3lab.sources.parsing import LINES, SEPARATOR, newlines

OPEN = "has a quote that does not close"
#: A record of CSV that is longer has a stray quote, and its first line stands alone.
RECORD_BYTES = 32 << 20
_BREAKS = re.compile(rb"[\r\n]*+")
_END = re.compile(rb"\r\n|\r|\n|\Z")
_LINE = re.compile(rb"[^\r\n]*+")
_SOME = re.compile(rb"[^\r\n]+")


class Span(NamedTuple):
    """Bytes of a record, without its line end, and the reason why it is none, where that is known already."""

    start: int
    stop: int
    wrong: str = ""


class _Grammar(NamedTuple):
    """Of CSV with a separator and so many fields. A quote counts where a field begins and nowhere else; what follows a
    closing one is text of the same field. ``record``: one, of any number of fields; ``run``: as many as there are, with
    their line ends, none of which has several lines and another number of fields."""

    separator: bytes
    quoted: re.Pattern[bytes]
    record: re.Pattern[bytes]
    run: re.Pattern[bytes]

    @classmethod
    def of(cls, kind: str, width: int, most: int | None = None) -> _Grammar:
        """``most``: how many records a run has, or None."""
        separator = SEPARATOR[kind].encode()
        # Possessive throughout (*+, ?>): nothing is tried twice, and no place to go back to is kept for each record.
        quoted, on_a_line = rb'"[^"]*+(?:""[^"]*+)*+"', rb'"[^"\r\n]*+(?:""[^"\r\n]*+)*+"'
        field, short = (
            rb'(?:%s[^%s\r\n]*+|[^%s"\r\n][^%s\r\n]*+|)' % (one, separator, separator, separator)
            for one in (quoted, on_a_line)
        )
        some, all_of_them = b"(?:%s%s)*+" % (separator, field), b"(?:%s%s){%d}" % (separator, field, max(0, width - 1))
        one = rb"(?>%s%s[\r\n]++|%s(?:%s%s)*+[\r\n]++)" % (field, all_of_them, short, separator, short)
        run = rb"[\r\n]*+%s%s" % (one, b"*+" if most is None else b"{0,%d}+" % most)
        start_of_field = rb"(?:\A|(?<=%s))%s" % (separator, quoted)
        return cls(separator, re.compile(start_of_field), re.compile(field + some + rb"(?=[\r\n]|\Z)"), re.compile(run))

    def fields(self, record: bytes) -> int:
        """How many fields a record has."""
        return 1 + self.quoted.sub(b"", record).count(self.separator)


_grammar = lru_cache(_Grammar.of)


def fields(record: bytes, kind: str) -> int:
    """How many fields a record of CSV has."""
    return _grammar(kind, 1).fields(record)


def header(data: bytes, kind: str) -> int:
    """Where the line behind the first record of a CSV file begins, which names its columns."""
    grammar = _grammar(kind, 1)
    at = _place(_BREAKS, data, 3 * data.startswith(b"\xef\xbb\xbf"))  # the mark of a byte order is no text
    match = grammar.record.match(data, at)
    return _place(_END, data, len(data) if match is None else match.end())


def split(data: bytes, kind: str, width: int = 0) -> list[Span]:
    """The records of some text that begins and ends between two of them. ``width``: fields of a CSV record; a quote
    that does not close, or that makes a record of several lines with other fields, spoils its own line alone: reading
    goes on behind that."""
    if not _quotes(data, kind):
        return [Span(*line.span()) for line in (LINES if kind == "jsonl" else _SOME).finditer(data)]
    grammar, at, spans = _grammar(kind, width), 0, []
    while (at := _place(_BREAKS, data, at)) < len(data):
        match = grammar.record.match(data, at)
        record = b"" if match is None else match.group()
        if match is None or ((b"\n" in record or b"\r" in record) and grammar.fields(record) != width):
            spans.append(Span(at, _place(_LINE, data, at), OPEN))
        else:
            spans.append(Span(at, match.end()))
        at = spans[-1].stop
    return spans


def spoilt(data: bytes, kind: str, width: int) -> bool:
    """Whether a quote in it spoils a line."""
    return _quotes(data, kind) and _place(_grammar(kind, width).run, _ended(data), 0) < len(data)


def _ended(data: bytes) -> bytes:
    return data if data[-1:] in (b"\n", b"\r") else data + b"\n"


def _quotes(data: bytes, kind: str) -> bool:
    return kind != "jsonl" and b'"' in data


def _place(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    """The end of a match that cannot fail."""
    match = pattern.match(data, at)
    assert match is not None
    return match.end()


def texts(source: Any, kind: str, width: int = 0) -> Iterator[bytes]:
    """The text of an open file in pieces of whole records, as it is read."""
    rest, chunk = b"", source.read(lines.PIECE_BYTES)
    while chunk:
        data, chunk = rest + chunk if rest else chunk, source.read(lines.PIECE_BYTES)
        stop = _stop(data, kind, width) if chunk else len(data)
        if stop:
            yield data[:stop]
        rest = data[stop:]


def blocks(source: Any, kind: str, width: int = 0) -> Iterator[bytes]:
    """The same in runs of ``PART_ROWS`` records or, where these are large, of once or twice ``PIECE_BYTES``; they are
    counted from the beginning, so that a file that grows keeps its first ones."""
    rest = b""
    for text in texts(source, kind, width):
        rest = rest + text if rest else text
        first = 0
        for cut in _cuts(rest, kind, width):
            yield rest[first:cut]
            first = cut
        if len(rest) - first >= lines.PIECE_BYTES:
            yield rest[first:]
            first = len(rest)
        rest = rest[first:]
    if rest:
        yield rest


def _stop(data: bytes, kind: str, width: int) -> int:
    """Where the last record ends that is surely whole, with more text to come; 0 where none is."""
    if data.endswith(b"\r"):  # perhaps half of a line end
        data = data[:-1]
    if not _quotes(data, kind):
        return max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
    grammar, at = _grammar(kind, width), 0
    while (at := _place(grammar.run, data, at)) < len(data):
        match = grammar.record.match(data, at)
        if (match is None or match.end() == len(data)) and len(data) - at <= RECORD_BYTES:
            return at
        at = _place(_END, data, _place(_LINE, data, at))
    return at


def _cuts(data: bytes, kind: str, width: int) -> list[int]:
    """Places behind ``PART_ROWS`` records each; blank lines count."""
    ends = newlines(data) + 1
    if not _quotes(data, kind):
        return list(ends[PART_ROWS - 1 :: PART_ROWS].tolist())
    if len(ends) < PART_ROWS:
        return []
    if spoilt(data, kind, width):
        spans = split(data, kind, width)
        return [_place(_END, data, span.stop) for span in spans[PART_ROWS - 1 :: PART_ROWS]]
    run, text, at, found = _grammar(kind, width, PART_ROWS).run, _ended(data), 0, []
    while (at := _place(run, text, at)) < len(data):
        found.append(at)
    return found


def line_ends(data: bytes) -> int:
    """How many lines end in some text that begins and ends between two of them."""
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
