"""Rows: prepared parts one after another under one numbering, gathered by position over their boundaries.

It knows arrays; it does not know files, tasks or epochs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from h3lab.batch import Batch
from h3lab.errors import OutOfRange

#: One array of a batch: dense, or a CSR matrix.
Column = Any
FIELDS = ("y", "weight", "soft", "keys")


def columns(batch: Batch) -> dict[str, Column]:
    """The arrays of a batch by name: ``x`` (or ``x/<block>`` for each of a dict), then those of y, weight, soft and
    keys that are there."""
    x = batch.x
    named = {f"x/{name}": block for name, block in x.items()} if isinstance(x, Mapping) else {"x": x}
    return named | {name: value for name in FIELDS if (value := getattr(batch, name)) is not None}


def batch_of(named: Mapping[str, Column], total: int | None = None) -> Batch:
    """The inverse of :func:`columns`."""
    x = named["x"] if "x" in named else {name[2:]: block for name, block in named.items() if name.startswith("x/")}
    return Batch(x, named.get("y"), named.get("weight"), named.get("soft"), named.get("keys"), total)


def is_sparse(column: Column) -> bool:
    """Whether an array is a sparse matrix; SciPy is not imported to find out."""
    return hasattr(column, "indptr")


def bytes_of(column: Column) -> int:
    """Bytes of an array's numbers."""
    if is_sparse(column):
        return int(column.data.nbytes + column.indices.nbytes + column.indptr.nbytes)
    return int(column.nbytes)


class Rows:
    """Batches in a row. ``parts`` may be a lazy sequence, read when a row of it is asked for; ``lengths`` are their
    rows; ``nbytes`` what they weigh in all; ``one`` reads a single array of a part, by number and name, where that is
    less than the part. ``window``: where a part costs work, how many to go through at a time (0: all). ``runs``: the
    same rows for whoever fetches them before they are gathered. ``versioned``: False where nobody could tell
    whether they have changed. All parts have the same arrays with the same types and shapes of a row."""

    versioned = True

    def __init__(
        self,
        parts: Sequence[Batch],
        lengths: Sequence[int],
        nbytes: int,
        one: Callable[[int, str], Column | None] | None = None,
        window: int = 0,
        runs: Runs | None = None,
    ) -> None:
        self.parts, self.nbytes, self.window, self.runs = parts, nbytes, window, runs
        self._one = one or (lambda number, name: columns(parts[number]).get(name))
        self.starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)

    @classmethod
    def of(cls, batches: Iterable[Batch]) -> Rows:
        """Rows in memory; at least one batch, which may be empty."""
        parts = list(batches)
        nbytes = sum(bytes_of(column) for part in parts for column in columns(part).values())
        return cls(parts, [len(part) for part in parts], nbytes)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def column(self, name: str) -> Column | None:
        """One array over all parts, or None where there is none of that name."""
        pieces = [self._one(number, name) for number in range(len(self.parts))]
        return None if any(piece is None for piece in pieces) else _stack(pieces)

    def take(self, index: Any) -> Batch:
        """Rows by slice, positions (negative ones count from the end) or mask; the batch owns its data.
        IndexError names a position that is out of range."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self.run(start, max(start, stop), copy=True)
            return self.gather(np.arange(start, stop, step))
        return self.gather(positions(index, len(self)))

    def run(self, start: int, stop: int, *, copy: bool) -> Batch:
        """Rows ``start`` to ``stop``; without ``copy`` a view where they lie in one part."""
        pieces = [part.take(slice(a, b)) for part, a, b in self._spans(start, stop)]
        if len(pieces) == 1:
            if not copy:
                return pieces[0]
            return batch_of({name: column.copy() for name, column in columns(pieces[0]).items()})
        return concatenate(pieces)

    def cuts(self, length: int) -> Iterator[tuple[int, int]]:
        """Runs of rows to store as parts: the parts as they are, large ones in runs of ``length``."""
        for start, stop in zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True):
            each = length if stop - start > 2 * length else max(1, stop - start)
            for begin in range(start, stop, each) if stop > start else [start]:
                yield begin, min(begin + each, stop)

    def _spans(self, start: int, stop: int) -> Iterator[tuple[Batch, int, int]]:
        first = min(int(np.searchsorted(self.starts, start, "right")) - 1, len(self.parts) - 1)
        last = max(first, int(np.searchsorted(self.starts, stop, "left")) - 1)
        for number in range(first, last + 1):
            begin, end = int(self.starts[number]), int(self.starts[number + 1])
            if begin < end or first == last:
                yield self.parts[number], max(start - begin, 0), min(stop, end) - begin

    def gather(self, at: np.ndarray, buffers: dict[str, np.ndarray] | None = None) -> Batch:
        """Rows at valid positions. ``buffers`` (name → array with room for them) are filled and handed out as views
        where they are given; sparse arrays are always new."""
        if len(self.parts) == 1:
            picked = {n: _take(c, at, _room(buffers, n, c, len(at))) for n, c in columns(self.parts[0]).items()}
            return batch_of(picked)
        where = np.searchsorted(self.starts, at, "right") - 1
        order = np.argsort(where, kind="stable")
        bounds = np.searchsorted(where[order], np.arange(len(self.parts) + 1))
        used = [n for n in range(len(self.parts)) if bounds[n] < bounds[n + 1]] or [0]
        slots = [order[bounds[n] : bounds[n + 1]] for n in used]
        parts = [columns(self.parts[n]) for n in used]
        local = [at[slot] - self.starts[n] for n, slot in zip(used, slots, strict=True)]
        picked = {}
        for name, column in parts[0].items():
            if is_sparse(column):
                stacked = _stack([part[name][rows] for part, rows in zip(parts, local, strict=True)])
                picked[name] = stacked[np.argsort(order, kind="stable")]
                continue
            out = _room(buffers, name, column, len(at))
            for part, slot, rows in zip(parts, slots, local, strict=True):
                out[slot] = part[name][rows]
            picked[name] = out
        return batch_of(picked)


class Runs(NamedTuple):
    """Rows of which nothing has been read, nor checked, before ``fetch(part, begin, end)`` has done so with a run;
    ``release`` gives its memory back. Threads may call both at once. ``far``: whoever gathers first without fetching
    waits for one part after another."""

    rows: Rows
    fetch: Callable[[int, int, int], Any]
    release: Callable[[int, int, int], None]
    far: bool = False


def positions(index: Any, count: int) -> np.ndarray:
    """Positions or a mask over ``count`` rows → positions from 0. IndexError says which is out of range."""
    at = np.asarray(index)
    if at.ndim != 1 or at.dtype.kind not in "biu":
        if at.size:
            raise OutOfRange(
                f"rows are chosen by a slice, a list of positions or a mask; {type(index).__name__} of {at.dtype} came."
                " For one row write [3]."
            )
        at = at.astype(np.int64).reshape(-1)
    if at.dtype.kind == "b":
        if len(at) != count:
            raise OutOfRange(f"a mask of {len(at)} values came for {count} rows; expected one a row.")
        return np.flatnonzero(at)
    at = at.astype(np.int64, copy=False)
    wrong = (at < -count) | (at >= count)
    if wrong.any():
        raise OutOfRange(f"row {int(at[wrong][0])} was asked for; there are {count} rows, from 0 to {count - 1}.")
    return np.where(at < 0, at + count, at)


def pieces(column: Column) -> dict[str, np.ndarray]:
    """The plain arrays of one, C-ordered and little-endian: ``data``, and of a sparse one ``indices``, ``indptr``."""
    names = ("data", "indices", "indptr") if is_sparse(column) else ()
    plain = {name: getattr(column, name) for name in names} or {"data": column}
    return {name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in plain.items()}


def identity(batch: Batch) -> str:
    """32 hex digits of all arrays: the same names, types and numbers give the same ones in any process."""
    named = columns(batch)
    return identity_of(
        {
            name: [list(column.shape), {n: [a.dtype.str, _sha256(a)] for n, a in pieces(column).items()}]
            for name, column in named.items()
        }
    )


def identity_of(arrays: Mapping[str, Any]) -> str:
    """The same from what is known of each array: its shape, and type and SHA-256 of its pieces."""
    return digest(arrays)


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.reshape(-1).view(np.uint8).data if array.size else b"").hexdigest()


def digest(*values: Any) -> str:
    """32 hex digits of JSON-able values and arrays."""
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            value = [value.dtype.str, list(value.shape), _sha256(np.ascontiguousarray(value))]
        found.update(json.dumps(value, sort_keys=True).encode() + b"\n")
    return found.hexdigest()[:32]


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Batches of the same arrays, one after another; the result owns its data."""
    parts = [columns(batch) for batch in batches]
    return batch_of({name: _stack([part[name] for part in parts]) for name in parts[0]})


def _stack(pieces: Sequence[Column]) -> Column:
    if not is_sparse(pieces[0]):
        return np.concatenate(pieces)
    from scipy import sparse

    return sparse.vstack(pieces, format="csr")


def _take(column: Column, at: np.ndarray, out: np.ndarray | None) -> Column:
    if is_sparse(column):
        return column[at]
    # The positions are valid; any other mode than "raise" spares NumPy a buffer of its own. An empty array has
    # nothing to clip to, and NumPy refuses it.
    return np.take(column, at, axis=0, out=out, mode="clip") if len(at) else column[:0].copy()


def _room(buffers: dict[str, np.ndarray] | None, name: str, column: Column, count: int) -> Any:
    if is_sparse(column):
        return None
    if buffers is None:
        return np.empty((count, *column.shape[1:]), column.dtype)
    if name not in buffers or len(buffers[name]) < count:
        buffers[name] = np.empty((count, *column.shape[1:]), column.dtype)
    return buffers[name][:count]
