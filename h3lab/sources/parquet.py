"""Parquet files: pieces are runs of row groups, or runs of rows where a group is large."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from h3lab.sources import cursors
from h3lab.sources.formats import Piece, rows_at_once, runs
from h3lab.sources.places import File
from h3lab.urls import is_url

#: A column chunk of a large row group is read in pieces of this, so that its first rows cost no more.
_BUFFER = 1 << 18


def _opened(file: File) -> pq.ParquetFile:
    # Far away few large requests are the quickest; here they only cost memory: all of a row group, still compressed.
    far = is_url(file.root)
    options = {"pre_buffer": far, "buffer_size": 0 if far else _BUFFER}
    return pq.ParquetFile(file.open(), page_checksum_verification=True, **options)


def schema(file: File, kind: str) -> pa.Schema:
    """From the footer."""
    with _opened(file) as opened:
        return opened.schema_arrow.remove_metadata()


def cut(file: File, kind: str, schema: pa.Schema) -> list[Piece]:
    """Small row groups together, large ones in runs of rows."""
    with _opened(file) as opened:
        groups = [opened.metadata.row_group(n) for n in range(opened.metadata.num_row_groups)]
    rows = [group.num_rows for group in groups]
    usual = rows_at_once(sum(group.total_byte_size for group in groups) / max(1, sum(rows)))
    pieces: list[Piece] = []
    version, start, first = file.version, 0, 0
    while first < len(rows):
        if rows[first] > 1.5 * usual:
            for low, high in runs(0, rows[first], usual):
                pieces.append(Piece(start + low, high - low, {"group": first, "rows": [low, high]}, version))
            last = first + 1
        else:
            last, count = first + 1, rows[first]
            while last < len(rows) and count + rows[last] <= usual:
                count += rows[last]
                last += 1
            pieces.append(Piece(start, count, {"groups": [first, last]}, version))
        start += sum(rows[first:last])
        first = last
    return pieces


def read(file: File, kind: str, position: Any, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
    """The rows of a piece."""
    if "groups" in position:
        with _opened(file) as opened:
            table = opened.read_row_groups(list(range(*position["groups"])), columns=list(columns))
            # A name also brings columns that begin with it and a dot.
            return table.select(list(columns))

    def decoded() -> Iterator[pa.RecordBatch]:
        with _opened(file) as opened:
            for batch in opened.iter_batches(high - low, [position["group"]], list(columns)):
                yield batch.select(list(columns))

    low, high = position["rows"]
    key = (file, file.version, position["group"], tuple(columns))
    found = cursors.take(key, decoded, low, high)
    return pa.Table.from_batches(found, found[0].schema)


def stream(file: File, kind: str, columns: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """From the first row on; small batches, because the first rows are what is mostly asked for."""
    with _opened(file) as opened:
        yield from opened.iter_batches(1024, columns=list(columns))
