"""Epochs: who of several ranks sees which rows of an order, and the hot loop that yields them in batches.

It knows shares and batches; it does not know where an order comes from (``orders``) or what rows mean.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from h3lab.batch import Batch
from h3lab.feeds.ahead import Ahead
from h3lab.feeds.rows import Rows, batch_of, columns, is_sparse

#: Rows are gathered a few batches at a time: each gather costs some microseconds however few the rows are, and a
#: megabyte still lies in the processor's cache when its batches are drawn. (A shuffled copy of everything takes
#: twice as long, page faults included; see benchmarks/feed.py.)
CHUNK_BYTES = 1 << 20
#: Rows of many parts are gathered more at a time, because each part costs some microseconds too.
ROWS_A_PART, LARGEST_CHUNK_BYTES = 32, 32 << 20
#: In order a window is fetched in so many pieces, so that the first batch need not wait for all of it.
IN_ORDER = 16


def steps(count: int, batch_size: int) -> int:
    """Batches in an epoch, the short last one included."""
    return -(-count // batch_size)


def share(size: int, rank: int, ranks: int) -> tuple[int, int]:
    """Which rows of a batch of ``size`` are a rank's: contiguous, shares differ by at most one row. A smaller batch
    never gives a rank more rows, so a rank's rows of all batches but the last have one length."""
    each, more = divmod(size, ranks)
    low = rank * each + min(rank, more)
    return low, low + each + (rank < more)


def shares(order: np.ndarray, batch_size: int, rank: int, ranks: int) -> np.ndarray:
    """A rank's rows of every batch of an order, one batch after another."""
    if ranks == 1:
        return order
    whole = len(order) // batch_size * batch_size
    low, high = share(batch_size, rank, ranks)
    rest = order[whole:]
    last = slice(*share(len(rest), rank, ranks))
    return np.concatenate([order[:whole].reshape(-1, batch_size)[:, low:high].ravel(), rest[last]])


def row_bytes(rows: Rows) -> int:
    """Bytes of a row, at least one."""
    return max(1, rows.nbytes // max(1, len(rows)))


def gathered_at_once(each: float, parts: int, size: int) -> int:
    """How many batches of ``size`` rows of ``each`` bytes are gathered at a time, so many of which lie in memory."""
    several = parts > 1
    wanted = max(CHUNK_BYTES, min(ROWS_A_PART * parts * each * several, LARGEST_CHUNK_BYTES))
    return max(1, int(wanted // (each * max(1, size))))


def shuffled(
    rows: Rows,
    order: np.ndarray,
    batch_size: int,
    rank: int,
    ranks: int,
    start: int,
    copy: bool,
    window: int,
    scarce: bool,
) -> Iterator[Batch]:
    """A rank's batches of an order, from batch ``start`` on. Without ``copy`` a batch is valid until the next one.
    ``window``: so many rows of the order are fetched ahead of those in use; 0 where memory is expected to hold all,
    which a store far away then fetches first, several parts at once. ``scarce``: it does not hold all, for sure."""
    low, high = share(batch_size, rank, ranks)
    mine, size = shares(order, batch_size, rank, ranks), high - low
    ahead, rows = _ahead(rows, mine, -(-window // ranks), start * size, 1, scarce)
    try:
        yield from _gathered(rows, mine, len(order), batch_size, size, start, copy, ahead)
    finally:
        if ahead is not None:
            ahead.close()


def _gathered(
    rows: Rows, mine: np.ndarray, whole: int, batch_size: int, size: int, start: int, copy: bool, ahead: Ahead | None
) -> Iterator[Batch]:
    """Batches of ``size`` of a rank's rows; in all, ``whole`` rows come in batches of ``batch_size``."""
    count, at_once = steps(whole, batch_size), gathered_at_once(row_bytes(rows), len(rows.parts), size)
    if rows.window:  # no more than a window, so that rows of two of them are there at most
        at_once = max(1, min(at_once, rows.window * len(rows) // len(rows.parts) // batch_size))
    buffers: dict[str, np.ndarray] | None = None if copy else {}
    for begin in range(start, count, at_once):
        at = mine[begin * size : (begin + at_once) * size]
        if ahead is not None:
            ahead.until(begin * size + len(at))
        chunk = rows.gather(at, buffers)
        named = list(columns(chunk).items())
        last = min(begin + at_once, count)
        for number in range(begin, last):
            total = min(batch_size, whole - number * batch_size)
            a, b = (number - begin) * size, (number - begin + 1) * size
            if number == count - 1:
                b = len(chunk)
            yield batch_of({name: column[a:b] for name, column in named}, total)


def in_order(
    rows: Rows, batch_size: int, rank: int, ranks: int, start: int, copy: bool, window: int, scarce: bool
) -> Iterator[Batch]:
    """As :func:`shuffled`, in the order of the source; without ``copy`` a batch may be a view of the rows."""
    each = -(-window // IN_ORDER)
    ahead, rows = _ahead(rows, np.arange(len(rows)), each, start * batch_size, IN_ORDER, scarce)
    try:
        for number in range(start, steps(len(rows), batch_size)):
            begin = number * batch_size
            total = min(batch_size, len(rows) - begin)
            low, high = share(total, rank, ranks)
            if ahead is not None:
                ahead.until(begin + total)
            batch = rows.run(begin + low, begin + high, copy=copy)
            named = columns(batch)
            # Frameworks take no read-only arrays, and memory maps are read-only.
            yield batch_of({n: c if is_sparse(c) or c.flags.writeable else c.copy() for n, c in named.items()}, total)
    finally:
        if ahead is not None:
            ahead.close()


def _ahead(
    rows: Rows, order: np.ndarray, window: int, begin: int, depth: int, scarce: bool
) -> tuple[Ahead | None, Rows]:
    """Who fetches the rows of an order from ``begin`` on, and the rows to gather then."""
    if rows.runs is None or not (window or rows.runs.far):
        return None, rows
    return Ahead(rows.runs, order, window or max(1, len(order)), begin, depth, scarce and window > 0), rows.runs.rows
