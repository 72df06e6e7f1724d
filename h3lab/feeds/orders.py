"""Orders: which rows an epoch sees, one after another; a value, and the mathematics behind it.

It knows positions, weights and lengths; it does not know what rows mean, nor how they are gathered (``epochs``).
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab.errors import DataError, UnknownName, UsageError
from h3lab.feeds import arrays
from h3lab.feeds.rows import Rows, columns, is_sparse
from h3lab.memory import whole_memory

if TYPE_CHECKING:
    from h3lab.feeds.feed import Feed

#: A block of rows is read in one piece: a megabyte, so that a disk spends its time reading. The rows of a window of
#: blocks are mixed. Both are fixed, so that the order does not depend on the machine.
BLOCK_BYTES, WINDOW_BYTES = 1 << 20, 256 << 20
#: Batches among which rows are sorted by length, as in the samplers of fairseq and Transformers.
BUCKET_BATCHES = 64
_NOT_ON_THE_WAY = (
    "came with rows that are prepared when they are due, and needs all of them at once. Leave it out, or prepare the "
    "rows first: leave out prepare='stream'."
)
SHUFFLES, SAMPLINGS = (True, False, "rows", "blocks"), ("balanced", "weighted")


@dataclass(frozen=True, eq=False)
class Order:
    """How the rows of an epoch are drawn.

    ``shuffle``: ``"rows"``, an exact permutation; ``"blocks"``, an exact permutation of blocks of rows and of the rows
    within a window of blocks, for what memory does not hold; True chooses (:func:`settled`); False: in order.
    ``sampling``: None, each row once; ``"balanced"``, each class as often as the others; ``"weighted"``, by the rows'
    weights, which then count no more in the loss; or weights, (rows,) from 0 on. ``bucket``: batches of rows of similar
    length; True, by the non-zeros of a row; the name of a block, by its; or lengths, (rows,).
    """

    shuffle: bool | str = True
    sampling: Any = None
    bucket: Any = None

    def __post_init__(self) -> None:
        if not any(self.shuffle is known or self.shuffle == known for known in SHUFFLES):
            raise UnknownName("way to shuffle", self.shuffle, list(map(str, SHUFFLES)))
        if isinstance(self.sampling, str) and self.sampling not in SAMPLINGS:
            raise UnknownName("way to sample", self.sampling, SAMPLINGS)
        for name, value in (("sampling", self.sampling), ("bucket", self.bucket)):
            if not self.shuffle and value is not None and value is not False:
                raise UsageError(f"{name}={value!r} came with shuffle=False; rows are drawn, or they come in order.")

    def check(self, feed: Feed) -> None:
        """UsageError, DataError or UnknownName where rows of this feed cannot be drawn so."""
        if self.sampling is not None:
            self._weights(feed)
        if self.bucket is not None and self.bucket is not False:
            self._lengths(feed)

    def positions(self, feed: Feed, number: int, seed: int, batch_size: int) -> np.ndarray:
        """(rows,) positions in the feed, in the order of epoch ``number``: the same on every machine."""
        count = len(feed)
        if self.sampling is None:
            order = np.arange(count)
        else:
            classes = feed.targets() if isinstance(self.sampling, str) and self.sampling == "balanced" else None
            order = drawn(self._weights(feed), number, seed, classes)
        if self.shuffle and feed._rows.window:
            at = order if feed._picked is None else feed._picked[order]
            parts = np.searchsorted(feed._rows.starts, at, "right") - 1
            order = order[in_windows(parts, feed._rows.window, number, seed)]
        elif self.shuffle == "blocks":
            block, window = blocks(feed)
            order = order[in_blocks(count, block, window // block, number, seed)]
        elif self.shuffle:
            mixed = permutation(count, number, seed)
            order = mixed if self.sampling is None else order[mixed]
        if self.bucket is not None and self.bucket is not False:
            order = bucketed(order, self._lengths(feed), batch_size, number, seed)
        return order

    def _weights(self, feed: Feed) -> np.ndarray:
        if not isinstance(self.sampling, str):
            found = arrays.weights(self.sampling, len(feed))
            assert found is not None
            return _some(found)
        return _some(feed._once(f"weights by {self.sampling}", _balance if self.sampling == "balanced" else _given))

    def _lengths(self, feed: Feed) -> np.ndarray:
        if self.bucket is True or isinstance(self.bucket, str):
            if feed._rows.window:
                raise UsageError(f"bucket={self.bucket!r} {_NOT_ON_THE_WAY}")
            return np.asarray(feed._once(f"lengths of {self.bucket}", lambda given: _nonzeros(given, self.bucket)))
        found = np.asarray(self.bucket)
        if found.shape != (len(feed),) or found.dtype.kind not in "iuf":
            came = f"{found.dtype} of shape {found.shape}"
            raise DataError(f"bucket came as {came}; expected a length a row, ({len(feed)},), True or a block's name.")
        return found


def settled(feed: Feed, order: Order) -> Order:
    """The order with ``shuffle=True`` decided, by the bytes of the feed and of this machine: a permutation of all rows,
    or one in blocks where a stored feed is larger than ``$H3LAB_SHUFFLE_BYTES`` (half of the memory without it), with
    a warning. Whoever trains in several processes decides once."""
    if feed._rows.window:
        return _on_the_way(order)
    if order.shuffle is not True:
        return order
    limit = shuffle_bytes()
    if feed.url is None or feed.nbytes <= limit:
        return replace(order, shuffle="rows")
    block, window = blocks(feed)
    warnings.warn(
        f"this feed has {feed.nbytes / 1e9:.2f} GB, more than the {limit / 1e9:.2f} GB that are counted on to stay in "
        f"memory, so it is shuffled in blocks: runs of {block:,} rows in a random order, and rows mixed among "
        f"{window:,} at a time. Every row still comes once an epoch. shuffle='rows' draws an exact permutation, at the "
        "price of a disk access a row; shuffle='blocks' says this on every machine; $H3LAB_SHUFFLE_BYTES is the limit.",
        stacklevel=3,
    )
    return replace(order, shuffle="blocks")


def blocks(feed: Feed) -> tuple[int, int]:
    """Rows of a block, and of a window of blocks."""
    row_bytes = max(1, feed.nbytes // max(1, len(feed)))
    block = max(1, BLOCK_BYTES // row_bytes)
    return block, block * max(1, WINDOW_BYTES // (block * row_bytes))


def _on_the_way(order: Order) -> Order:
    """The same where rows are prepared when they are due: in windows of parts, or in order."""
    if order.shuffle == "rows":
        raise UsageError(f"shuffle='rows' {_NOT_ON_THE_WAY} shuffle='blocks' mixes the rows of a window of parts.")
    return replace(order, shuffle="blocks" if order.shuffle else False)


def shuffle_bytes() -> float:
    """Bytes of a feed that may be expected to stay in memory."""
    text = os.environ.get("H3LAB_SHUFFLE_BYTES")
    if text is None:
        return 0.5 * whole_memory()
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"H3LAB_SHUFFLE_BYTES={text} came; expected a number of bytes, for example 8e9.") from None


def generator(number: int, seed: int, *stream: int) -> np.random.Generator:
    """The random numbers of epoch ``number``: the same for a seed in any process and on any machine."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number, *stream])))


def permutation(count: int, number: int, seed: int) -> np.ndarray:
    """The order of epoch ``number``."""
    return generator(number, seed).permutation(count)


def in_blocks(count: int, block: int, window: int, number: int, seed: int) -> np.ndarray:
    """A permutation of ``count`` rows that reads runs of ``block`` rows: the runs come in a random order, and the rows
    of each ``window`` of them are mixed. Where runs begin changes from epoch to epoch."""
    random = generator(number, seed, 1)
    bounds = np.arange(int(random.integers(block)) or block, count, block)
    starts, stops = np.concatenate([[0], bounds]), np.concatenate([bounds, [count]])
    runs = random.permutation(len(starts))
    out = np.empty(count, np.int64)
    done = 0
    for begin in range(0, len(runs), window):
        rows = np.concatenate([np.arange(starts[n], stops[n]) for n in runs[begin : begin + window]])
        out[done : done + len(rows)] = rows[random.permutation(len(rows))]
        done += len(rows)
    return out


def in_windows(parts: np.ndarray, window: int, number: int, seed: int) -> np.ndarray:
    """A permutation of rows that lie in these ``parts``, (rows,): the parts come in a random order, and the rows of
    each ``window`` of them are mixed."""
    random = generator(number, seed, 4)
    rank = random.permutation(int(parts.max()) + 1)
    mixed = random.permutation(len(parts))
    return mixed[np.argsort(rank[parts[mixed]] // window, kind="stable")]


def drawn(weights: np.ndarray, number: int, seed: int, classes: np.ndarray | None = None) -> np.ndarray:
    """As many positions as there are weights, ascending, each as often as its weight says, rounded up or down at random
    (systematic sampling: the expectation of independent draws with replacement, and less spread). So often, rounded,
    does each of the ``classes`` come, too."""
    random = generator(number, seed, 2)
    count = len(weights)
    mixed = random.permutation(count)  # else neighbours would never be drawn together
    if classes is not None:
        mixed = mixed[np.argsort(classes[mixed], kind="stable")]
    ends = np.cumsum(weights[mixed])
    points = (np.arange(count) + random.random()) * (ends[-1] / count)
    last = int(np.flatnonzero(weights[mixed])[-1])  # rounding may leave the last point at the very end
    found = mixed[np.minimum(np.searchsorted(ends, points, "right"), last)]
    return np.repeat(np.arange(count), np.bincount(found, minlength=count))


def bucketed(order: np.ndarray, lengths: np.ndarray, batch_size: int, number: int, seed: int) -> np.ndarray:
    """The same rows, sorted by length within runs of BUCKET_BATCHES batches, of which the batches are then mixed. The
    short batch stays the last, and is cut out anywhere, so that it is not always that of the longest rows."""
    random = generator(number, seed, 3)
    out = []
    for begin in range(0, len(order), BUCKET_BATCHES * batch_size):
        pool = order[begin : begin + BUCKET_BATCHES * batch_size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        whole, rest = divmod(len(pool), batch_size)
        at = int(random.integers(whole + 1)) * batch_size
        short, full = pool[at : at + rest], np.concatenate([pool[:at], pool[at + rest :]])
        out += [full.reshape(whole, batch_size)[random.permutation(whole)].ravel(), short]
    return np.concatenate(out)


def _some(weights: np.ndarray) -> np.ndarray:
    if not weights.any():
        raise DataError("all weights that rows are drawn by are 0; give some row a larger one.")
    return weights


def _balance(feed: Feed) -> np.ndarray:
    """Weights by which each class that has rows is drawn equally often."""
    codes = feed.targets()
    if feed.spec.classes is None or codes is None:
        what = "no label" if codes is None else "a quantity as label, and no classes"
        raise UsageError(f"sampling='balanced' came, and this feed has {what}. Give weights, or leave it out.")
    counts = np.bincount(codes, minlength=feed.spec.classes)
    return np.asarray(1.0 / np.maximum(counts, 1)[codes])


def _given(feed: Feed) -> np.ndarray:
    found = feed._rows.column("weight")
    if found is None:
        raise UsageError(
            "sampling='weighted' came, and these rows have no weights. Name a column, Pipeline(..., weight=...), or "
            "give weights: feed.epoch(..., sampling=weights)."
        )
    return _seen(feed, np.asarray(found, np.float64))


def _seen(feed: Feed, values: np.ndarray) -> np.ndarray:
    """Values of all rows → of those of a view."""
    return values if feed._picked is None else values[feed._picked]


def _nonzeros(feed: Feed, block: bool | str) -> np.ndarray:
    """Non-zeros of each row, in one block or in all; a padded row of numbers of words is as long as it has words."""
    known = list(feed.spec.blocks)
    if isinstance(block, str) and block not in known:
        raise UnknownName("block", block, known, "this feed")
    first = columns(feed._rows.parts[0])
    names = [name for name in first if name == "x" or name.startswith("x/")]
    if isinstance(block, str) and "x" not in names:
        names = [f"x/{block}"]
    elif isinstance(block, str) and len(known) > 1:
        raise UsageError(f"bucket={block!r} came, and the blocks are one matrix. Keep them apart: join='blocks'.")
    return _seen(feed, sum((_each(feed._rows, name) for name in names), np.zeros(len(feed._rows), np.int64)))


def _each(rows: Rows, name: str) -> Any:
    pieces = [rows._one(number, name) for number in range(len(rows.parts))]
    return np.concatenate(
        [
            np.diff(x.indptr) if is_sparse(x) else np.count_nonzero(x, axis=tuple(range(1, x.ndim)))
            for x in pieces
            if x is not None
        ]
    )
