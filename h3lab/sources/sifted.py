"""Sifted text: CSV, TSV and JSON lines whose bad rows are left out; each other row keeps the number that it has among
all of them.

Pieces say which of their records are bad, found once when a file is cut, so that whoever reads a piece and whoever
counts its rows agree. The file is cut as it is read from its beginning: a stray quote may turn all that follows it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from h3lab.errors import DamagedData, DataError
from h3lab.sources import cursors, records
from h3lab.sources.badrows import Bad, Sieve, Sifted, inferred
from h3lab.sources.formats import Piece, compression
from h3lab.sources.parsing import empty_is_missing, parse
from h3lab.sources.places import File
from h3lab.sources.schemas import unify
from h3lab.sources.text import batches, header, opened, samples


def schema(file: File, kind: str) -> pa.Schema:
    """As of text, of the good rows of its samples."""
    found, bad = _types(file, kind)
    if found is None and bad is not None:
        raise DataError(f"{file.shown} has no good row in its beginning, so nothing says what its columns are: {bad}.")
    if found is None:
        raise DataError(f"{file.shown} is empty: not even a line that names its columns.")
    return found


def _types(file: File, kind: str) -> tuple[pa.Schema | None, Bad | None]:
    """The schema, or else the first row, which is bad as all are that were looked at."""
    found: pa.Schema | None = None
    bad: Bad | None = None
    names: list[str] | None = None
    for number, sample in enumerate(samples(file, kind)):
        if number == 0:
            names, start = header(file, kind)
            sample = sample[start:]
        elif kind != "jsonl" and b'"' in sample:
            continue  # it may begin inside quotes, and nothing would tell
        one = inferred(sample, kind, names, found)
        found = one if found is None or one is None or kind == "jsonl" else unify(found, one, mixed=True)
        if found is None and number == 0:
            bad = Sieve(kind, names, pa.schema([])).first(sample)
    return found, bad


@dataclass(frozen=True)
class Run:
    """Some records of a file: ``start`` (the first byte) and ``line`` of its ``text``, and what is in it."""

    sieve: Sieve
    start: int
    line: int
    text: bytes
    found: Sifted


def sift(file: File, kind: str, schema: pa.Schema) -> Iterator[Run]:
    """The rows of a file, from the first on."""
    names, start = header(file, kind)
    sieve = Sieve(kind, names, schema)
    with opened(file) as source:
        line = 1 + records.line_ends(source.read(start))
        for text in records.blocks(source, kind, sieve.width):
            yield Run(sieve, start, line, text, sieve.sift(text))
            start, line = start + len(text), line + records.line_ends(text)


def cut(file: File, kind: str, schema: pa.Schema) -> Iterator[tuple[Piece, Iterable[Bad]]]:
    """Byte ranges of whole records, or rows of a stream where a file is compressed; each with its bad rows, whose
    reasons are found out when they are looked at."""
    row = kept = 0
    for run in sift(file, kind, schema):
        found, good = run.found, run.found.table.num_rows
        position: dict[str, Any] = {"bytes": [run.start, run.start + len(run.text)]}
        if compression(file):
            position = {"kept": [kept, kept + good]}
        digest = hashlib.sha1(run.text, usedforsecurity=False)
        if found.bad:
            position["bad"] = _runs(found)
            digest.update(repr(position["bad"]).encode())
        if found.records:
            piece = Piece(row, good, position, digest.hexdigest()[:16], len(found.bad))
            yield piece, run.sieve.bad(run.text, found, row, run.line)
        row, kept = row + found.records, kept + good


def _runs(found: Sifted) -> list[list[int]]:
    """Bad records that follow one another: the number of the first in the piece, how many, and their bytes."""
    runs: list[list[int]] = []
    for number, span in found.bad:
        if runs and runs[-1][0] + runs[-1][1] == number:
            runs[-1][1], runs[-1][3] = runs[-1][1] + 1, span.stop
        else:
            runs.append([number, 1, span.start, span.stop])
    return runs


def read(file: File, kind: str, position: Any, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
    """The good rows of a piece."""
    if "bytes" in position:
        first, last = position["bytes"]
        data = file.bytes(first, last)
        if len(data) < last - first:
            raise DamagedData(f"it ends at byte {first + len(data)}; it has changed")
        table = parse(_without(data, position.get("bad", ())), kind, header(file, kind)[0], columns, schema)
        return empty_is_missing(table.select(list(columns)))
    low, high = position["kept"]
    if low == high:
        return pa.schema([schema.field(name) for name in columns]).empty_table()
    key = (file, file.version, "sifted", tuple(columns))
    found = cursors.take(key, lambda: stream(file, kind, columns, schema), low, high)
    return pa.Table.from_batches(found, found[0].schema)


def _without(data: bytes, bad: Iterable[Sequence[int]]) -> bytes:
    pieces, at = [], 0
    for _, _, start, stop in bad:
        pieces.append(data[at:start])
        # With its line end: text with blank lines is looked at line by line.
        at = stop + len(data[stop : stop + 2]) - len(data[stop : stop + 2].lstrip(b"\r\n"))
    return b"".join([*pieces, data[at:]]) or b"\n" if pieces else data


def stream(file: File, kind: str, columns: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The good rows from the first on."""
    for run in sift(file, kind, schema):
        yield from batches(run.found.table, columns)


def first(file: File, kind: str, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """As of text: out of a sample where it has enough."""
    names, start = header(file, kind)
    for sample in samples(file, kind):
        table = Sieve(kind, names, schema).sift(sample[start:]).table
        if table.num_rows >= rows:
            yield from batches(table.slice(0, rows), schema.names)
            return
        break
    yield from stream(file, kind, schema.names, schema)


def first_bad(file: File, kind: str, known: pa.Schema | None) -> Bad | None:
    """The first bad row of a file, whose types are ``known`` or found out; None where all are good."""
    types, bad = (known, None) if known is not None else _types(file, kind)
    for _, found in cut(file, kind, types) if types is not None else ():
        for one in found:
            return one
    return bad
