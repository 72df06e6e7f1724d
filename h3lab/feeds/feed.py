"""A Feed: the prepared set; stored or in memory, re-iterable, shardable.

It knows rows, their spec and the pipeline that made them; it does not know models, nor how files are laid out
(``stores/``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab import worlds
from h3lab.batch import Batch
from h3lab.errors import DataError, UsageError, guided
from h3lab.feeds import arrays, epochs, orders, portrait
from h3lab.feeds.report import Report
from h3lab.feeds.rows import Rows, digest, identity
from h3lab.feeds.rows import positions as checked
from h3lab.serial import trust
from h3lab.settings import whole
from h3lab.source import PART_ROWS, fraction, mix
from h3lab.spec import Spec, Task
from h3lab.splits import check_draw

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from h3lab.pipeline import Pipeline


@guided
class Feed:
    """Prepared rows with their ``spec`` and the fitted ``pipeline`` that made them (None: they came as arrays).

    ``url``: where it is stored, None in memory. ``manifest``: what its store says of it, None in memory. ``parent``:
    the feed that this one is a selection of, whose preprocessing it shares. ``account``: what preparing found where no
    manifest says it.

    >>> feed = Feed.of([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], ["no", "yes", "no"])
    >>> feed
    Feed: 3 rows · classification, 2 classes · 2 features · x (2) float64
    >>> feed.batch([0, 2]).y
    array([0, 0])
    >>> feed.arrays()[1]
    array(['no', 'yes', 'no'], dtype='<U3')
    """

    def __init__(
        self,
        rows: Rows,
        spec: Spec,
        *,
        pipeline: Pipeline | None = None,
        store: Any = None,
        manifest: Mapping[str, Any] | None = None,
        types: Sequence[Any] = (),
        parent: Feed | None = None,
        picked: np.ndarray | None = None,
        account: Mapping[str, Any] | None = None,
    ) -> None:
        self.spec, self.manifest, self.parent = spec, manifest, parent
        self._rows, self._pipeline, self._store, self._picked = rows, pipeline, store, picked
        self._types = tuple(types)
        self._account = manifest if account is None else account
        self._fingerprint: str | None = None
        self._known: dict[str, Any] = {}

    @classmethod
    def of(
        cls,
        X: Any,
        y: Any = None,
        *,
        weight: Any = None,
        task: Task | None = None,
        keys: Any = None,
        labels: Sequence[Any] | None = None,
    ) -> Feed:
        """A feed in memory; it keeps the arrays, so do not write into them.

        X: (rows, ...) numbers, CSR, or a dict of blocks. y: (rows,) or (rows, 1) labels, (rows, targets) quantities;
        strings, booleans, categories and integers are classes, floats quantities, ``task`` wins. ``labels``: all
        classes, where y may not show each. ``weight``: (rows,). ``keys``: (rows,) uint64. DataError for different
        numbers of rows, no rows, missing or infinite y.
        """
        batch, spec = arrays.given(X, y, weight, task, keys, labels)
        return cls(Rows.of([batch]), spec)

    @property
    def pipeline(self) -> Pipeline | None:
        """The fitted pipeline; a stored one is opened when it is first asked for."""
        if self.parent is not None:
            return self.parent.pipeline
        if self._pipeline is None and self._store is not None:
            document = self._store.pipeline(self.manifest)
            if document is not None:
                self._pipeline = worlds.load("h3lab.pipeline:Pipeline").from_document(document, types=self._types)
        return self._pipeline

    @property
    def url(self) -> str | None:
        """The folder it is stored in; None in memory."""
        return None if self._store is None else str(self._store.folder)

    @property
    def dropped(self) -> int:
        """Rows of the source that were left out for want of a label."""
        if self.parent is not None:
            return 0
        return int((self._account or {}).get("counts", {}).get("dropped", 0))

    def report(self) -> Report:
        """What each worker did when it was prepared: seconds, bytes, missing values, how it was fitted; and which rows
        were left out. Of a view: of the whole feed."""
        if self.parent is not None:
            return self._whole.report()
        return Report.of(self._account, len(self), self.nbytes)

    @property
    def nbytes(self) -> int:
        """Bytes of its rows, as they are stored."""
        return int(self._rows.nbytes * len(self) / max(1, len(self._rows)))

    @property
    def fingerprint(self) -> str:
        """32 hex digits: the same for the same rows in the same order and parts, spec and pipeline."""
        if self._fingerprint is None:
            self._fingerprint = self._identify()
        return self._fingerprint

    @property
    def _whole(self) -> Feed:
        return self if self.parent is None else self.parent._whole

    def _once(self, name: str, make: Callable[[Feed], Any]) -> Any:
        """What is found out of its rows once in this process, such as their lengths."""
        if name not in self._known:
            self._known[name] = make(self)
        return self._known[name]

    def _identify(self) -> str:
        if self.parent is not None:
            return digest("selection", self._whole.fingerprint, self._picked)
        if self.manifest is not None and "fingerprint" in self.manifest:
            return str(self.manifest["fingerprint"])
        pipeline = None if self.pipeline is None else self.pipeline.fingerprint
        if self.manifest is not None:
            return digest(self.spec.to_json(), pipeline, *(part["hash"] for part in self.manifest["parts"]))
        parts = (identity(self._rows.run(*cut, copy=False)) for cut in self._rows.cuts(PART_ROWS))
        return digest(self.spec.to_json(), pipeline, *parts)

    def __len__(self) -> int:
        return len(self._rows) if self._picked is None else len(self._picked)

    def batch(self, index: Any) -> Batch:
        """Rows by slice, positions or mask, y as class codes; the batch owns its data."""
        if self._picked is None:
            return self._rows.take(index)
        return self._rows.gather(self._picked[index if isinstance(index, slice) else checked(index, len(self))])

    def arrays(self) -> tuple[Any, np.ndarray | None]:
        """(X, y): all rows in the source's order, sparse where a block is; y as it stood in the source, or None."""
        batch = self.batch(slice(None))
        return batch.x, None if batch.y is None else self.spec.decode(batch.y)

    def targets(self) -> np.ndarray | None:
        """(rows,) class codes, or floats, of all rows in order; None without a label. Reads no features."""
        y = self._rows.column("y")
        return y if y is None or self._picked is None else y[self._picked]

    def frame(self, n: int = 5) -> pd.DataFrame:
        """The first ``n`` prepared rows, one column a feature, with the label and the row's key."""
        return worlds.load(worlds.DOORS["frame"])(self, whole("n", n, 0))

    def arrow(self) -> pa.Table:
        """All rows as an Arrow table: one list column a block, ``y`` decoded, ``weight``, ``key``."""
        return worlds.load(worlds.DOORS["arrow"])(self)

    def torch(self) -> Any:
        """A map-style ``torch.utils.data.Dataset`` of (x, y) tensors, y as codes; for loops of your own."""
        return worlds.load(worlds.DOORS["torch"])(self)

    def steps(self, batch_size: int) -> int:
        """Batches in an epoch, the short last one included."""
        return epochs.steps(len(self), whole("batch_size", batch_size, 1))

    def epoch(
        self,
        number: int,
        *,
        batch_size: int = 256,
        shuffle: bool | str = True,
        sampling: Any = None,
        bucket: Any = None,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        start: int = 0,
        copy: bool = True,
    ) -> Iterator[Batch]:
        """The batches of one epoch, in an order drawn from ``seed`` and ``number``, the same on every machine.

        ``start``: begin at this batch, as an uninterrupted epoch would go on. With ``ranks`` batch i is the same set
        of rows as with one, and each rank gets a contiguous share of it, empty where there are fewer rows than ranks;
        ``Batch.total`` is the size of the whole batch. ``copy=False`` reuses buffers: a batch holds until the next.
        ``shuffle``: True is ``"rows"``, an exact permutation, or, with a warning, ``"blocks"`` where a stored feed is
        larger than memory. ``sampling``: ``"balanced"`` (classes), ``"weighted"`` (the rows' weights) or weights,
        (rows,): some rows come several times, others not at all. ``bucket``: batches of rows of similar length, by
        the non-zeros of all blocks (True) or of one (its name), or by lengths, (rows,). See
        :class:`h3lab.feeds.orders.Order`.
        """
        whole("batch_size", batch_size, 1)
        for name, value in (("number", number), ("rank", rank), ("start", start), ("seed", seed)):
            whole(name, value, 0)
        if rank >= whole("ranks", ranks, 1):
            raise UsageError(f"rank={rank} of ranks={ranks} came; ranks count from 0.")
        order = orders.settled(self, orders.Order(shuffle, sampling, bucket))
        window = orders.blocks(self)[1] if order.shuffle in ("blocks", False) else 0
        ahead = window, self.nbytes > orders.shuffle_bytes()
        if not shuffle and self._picked is None:
            return epochs.in_order(self._rows, batch_size, rank, ranks, start, copy, *ahead)
        at = order.positions(self, number, seed, batch_size)
        at = at if self._picked is None else self._picked[at]
        batches = epochs.shuffled(self._rows, at, batch_size, rank, ranks, start, copy, *ahead)
        # A row that was drawn by its weight must not be counted by it too.
        weighted = isinstance(sampling, str) and sampling == "weighted"
        return (replace(batch, weight=None) for batch in batches) if weighted else batches

    def select(self, positions: Any) -> Feed:
        """A view of some rows, by slice, positions or mask, which shares spec and pipeline."""
        at = np.arange(len(self))[positions] if isinstance(positions, slice) else checked(positions, len(self))
        picked = at if self._picked is None else self._picked[at]
        return Feed(self._rows, self.spec, store=self._store, manifest=self.manifest, parent=self, picked=picked)

    def split(self, fraction: float, seed: int = 0) -> tuple[Feed, Feed]:
        """(rest, held out): views drawn by key and seed, so a row keeps its side when rows are added. Sizes are
        therefore approximate; an empty side is a DataError."""
        check_draw("fraction", fraction, seed)
        held_out = _drawn(self, seed) < fraction
        if held_out.all() or not held_out.any():
            side = "nothing" if not held_out.any() else "everything"
            raise DataError(
                f"a split of {fraction} holds out {side} of {len(self)} rows; take another fraction or seed."
            )
        return self.select(~held_out), self.select(held_out)

    def store(self, folder: Path | str) -> Feed:
        """Write it to a folder of memory-mapped columns; returns the stored feed."""
        stored: Feed = worlds.load(worlds.STORE)(self, folder)
        return stored

    def __reduce__(self) -> Any:
        if self.parent is not None:
            return Feed.select, (self._whole, self._picked)
        if self._store is not None and self.manifest is not None:
            # What no document holds (a lambda) goes by itself, to where the launch file's signature vouches for it.
            nameless = any("<" in str(getattr(kind, "__qualname__", "")) for kind in self._types)
            return open_state, (self.url, self.manifest["number"], self._types, self._pipeline if nameless else None)
        return _rebuild, (list(self._rows.parts), self.spec, self._pipeline, self._account)

    def __str__(self) -> str:
        return portrait.feed_line(self)

    def __repr__(self) -> str:
        return f"Feed: {self}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": portrait.feed_html(self)}


def _drawn(feed: Feed, seed: int) -> np.ndarray:
    if (keys := feed._rows.column("keys")) is None:
        raise DataError("this feed has no row keys, so it cannot be split; give them with Feed.of(..., keys=...).")
    keys = keys if feed._picked is None else keys[feed._picked]
    return fraction(mix(keys), seed)  # mixed once more: a source's split of that seed has left all rows on one side


def _rebuild(parts: list[Batch], spec: Spec, pipeline: Pipeline | None, account: Any = None) -> Feed:
    return Feed(Rows.of(parts), spec, pipeline=pipeline, account=account)


def open_state(url: str | Path, number: int | None, types: Any = (), pipeline: Pipeline | None = None) -> Feed:
    """The feed stored in a folder, in the state of a number, or the newest one (None)."""
    at = worlds.load(worlds.OPEN_STORE)(url)
    told = at.manifest(number)
    return Feed(at.rows(told), Spec.from_json(told["spec"]), pipeline=pipeline, store=at, manifest=told, types=types)


@guided
def open_feed(url: str | Path, *, types: Sequence[Any] = ()) -> Feed:
    """``h3.open_feed("prepared/reviews")``: the feed stored in a folder, in its newest complete state; relative paths
    start at the current directory. ``types``: classes of your own that its workers use. StorageError without one."""
    feed = open_state(url, None, trust.given_types(types))
    _ = feed.pipeline  # what it needs is said now, not in the middle of a training
    return feed
