"""Cuts: where parts of rows in the order of a key begin, found by the keys themselves.

A cut at every n-th row would move with each row that comes or goes before it, and all parts behind would be new ones.
Here a part begins at the row whose key has the smallest hash among those where it may begin, as backup programs cut
files: the rows around it decide alone, so a change moves the cuts beside it and, but by chance, no others. The same
rows have the same cuts, whatever was there before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab.keys import keys_of
from h3lab.source import mix

if TYPE_CHECKING:
    import pyarrow as pa

#: Keys in their order, their hashes, and the row number at which the run of equal keys that each belongs to begins.
Piece = tuple[Sequence[Any], np.ndarray, np.ndarray]


def cuts(pieces: Iterable[Piece], rows: int) -> Iterator[tuple[Any, int]]:
    """(key, row number) of each row that begins a part. Parts have about ``rows``, half as many at least and half as
    many again at most; a run of equal keys is never cut, however long, and the last part may be shorter."""
    least, most = max(1, rows // 2), max(2, rows // 2 + rows)
    keys: list[Any] = []
    hashes, runs, begun = np.zeros(0, np.uint64), np.zeros(0, np.int64), 0
    for more, hashed, firsts in pieces:
        if not keys and more:
            yield more[0], 0
        keys, hashes, runs = [*keys, *more], np.concatenate([hashes, hashed]), np.concatenate([runs, firsts])
        while len(keys) > most and (at := _next(hashes, runs - begun, least, most)):
            yield keys[at], begun + at
            keys, hashes, runs, begun = keys[at:], hashes[at:], runs[at:], begun + at


def _next(hashes: np.ndarray, runs: np.ndarray, least: int, most: int) -> int:
    """The row that begins the next part, the first of its key; 0 where there is none as yet."""
    first = np.flatnonzero(runs == np.arange(len(runs)))
    within = first[(first >= least) & (first < most)]
    if len(within):
        return int(within[np.argmin(hashes[within])])
    beyond = first[first >= most]
    return int(beyond[0]) if len(beyond) else 0


def hashes_of(keys: pa.Table) -> np.ndarray:
    """(rows,) uint64 of keys of any types."""
    import pyarrow as pa
    import pyarrow.types as t

    found = np.zeros(keys.num_rows, np.uint64)
    for column in keys.columns:
        kind = pa.large_string() if t.is_floating(column.type) else column.type
        found = mix(found) ^ keys_of(column.cast(kind), "a key")
    return found
