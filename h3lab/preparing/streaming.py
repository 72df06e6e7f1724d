"""Streaming: a feed whose rows are prepared when they are due, part by part, and neither stored nor held.

It knows a fitted pipeline, the parts of a source and how many prepared ones are kept; orders and batches are those of
any feed.
"""

from __future__ import annotations

import secrets
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from h3lab.batch import Batch
from h3lab.errors import DataError, UsageError, guided
from h3lab.feeds import manifest
from h3lab.feeds.feed import Feed
from h3lab.feeds.rows import Column, Rows, bytes_of, columns, digest
from h3lab.pipeline import Pipeline
from h3lab.preparing.executor import Executor, Here
from h3lab.preparing.fitting import Progress, first_rows, fit
from h3lab.preparing.from_sklearn import as_pipeline
from h3lab.preparing.labels import Labels
from h3lab.preparing.matching import lookups_of, matched, opened, settled
from h3lab.preparing.passes import Job, Look, labelled_rows
from h3lab.preparing.prepare import check_source, labelled, schema_of
from h3lab.preparing.reuse import Reuse
from h3lab.preparing.workroom import Shared, workroom
from h3lab.preparing.writing import write
from h3lab.source import Part

#: Rows are mixed among as many parts as prepared fit in here, one at least. It is fixed, so that the order does not
#: depend on the machine.
WINDOW_BYTES = 64 << 20
#: Windows whose parts are kept: a batch may lie in two, and with the parts of two alone the next one's would push out
#: parts that are still needed, because they are asked for by number.
KEPT_WINDOWS = 3


@guided
def stream(
    pipeline: Any,
    source: Any,
    *,
    label: str | None = None,
    keys: Any = None,
    executor: Executor | None = None,
    on_missing: str = "error",
    on_duplicate: str = "error",
    on_null_label: str = "error",
    progress: Progress | None = None,
) -> Feed:
    """As :func:`h3lab.preparing.prepare.prepare`, without the preparing: a pipeline that is not fitted is fitted by a
    first pass (a later worker of a block needs another one), and then each part is read and transformed whenever an
    epoch comes to it. Rows are shuffled within a window of parts.

    UsageError: a worker that gives the rows it is fitted on other values than later ones (TargetEncoder).
    """
    pipeline = as_pipeline(pipeline, source, label)
    source = opened(pipeline, source, keys, on_missing, on_duplicate)
    pipeline = labelled(pipeline, label)
    check_source(pipeline, source, on_null_label)
    counted = _Counted(executor or Here())
    drop, parts = on_null_label == "drop", list(source.parts())
    counts: dict[str, Any] = {"passes": 0, "fit_seconds": 0.0}
    with workroom(Path(tempfile.gettempdir())) as folder:
        if not pipeline.fitted:
            show = progress or _quiet
            landed = settled(pipeline, source, folder, counted, show, by_content=False)
            landed, matches = matched(pipeline, landed, folder, counted, show)
            job = Job(pipeline, landed, parts, schema_of(pipeline, source), folder, drop, {})
            job, fitted = fit(job, counted, show)
            counts |= {**fitted, **matches}
            pipeline = job.pipeline.with_fitted(replace(job.pipeline.state, lookups=lookups_of(source)))
            _check_cross_fitted(pipeline)
            if (classes := pipeline.spec.labels) is not None and counted.labels is not None:
                counts["labels"] = [counted.labels.counts.get(value, 0) for value in classes]
        lengths = counted.lengths or _lengths(pipeline, source, parts, drop, counted, folder)
    counts |= {"rows": sum(rows for rows, _ in lengths), "dropped": sum(left for _, left in lengths)}
    return Stream(pipeline, source, parts, lengths, on_null_label, counts)


class Stream(Feed):
    """Rows that are prepared when they are due. ``lengths``: (rows, rows left out) of each part of the source. It goes
    to another process as pipeline, source and parts, because text is read once to be cut into parts."""

    def __init__(
        self,
        pipeline: Pipeline,
        source: Any,
        parts: Sequence[Part],
        lengths: Sequence[tuple[int, int]],
        on_null_label: str,
        counts: dict[str, Any],
    ) -> None:
        self._made = (pipeline, source, parts, lengths, on_null_label, counts)
        if not counts["rows"]:
            raise DataError("the source has no rows, so there is nothing to learn from.")
        state = pipeline.state
        job = Job(pipeline, source, parts, state.schema, Path(), on_null_label == "drop", state.stages)
        rows_of = {number: rows for number, (rows, _) in enumerate(lengths) if rows}
        row_bytes = _row_bytes(job)
        window = window_of(row_bytes * max(rows_of.values()))
        made = Parts(job, rows_of, KEPT_WINDOWS * window, row_bytes)
        rows = Rows(made, list(rows_of.values()), int(row_bytes * counts["rows"]), made.one, window)
        rows.versioned = all(part.version for part in parts)
        found = [{"rows": rows, "dropped": left} for rows, left in lengths]
        account = manifest.of(job, found, counts, on_null_label, {}) | {"streamed": True}
        super().__init__(rows, pipeline.spec, pipeline=pipeline, account=account)
        told = [manifest.identity(part) for part in parts]
        # A source that cannot tell whether its rows have changed gives no version.
        sure = told if rows.versioned else secrets.token_hex(8)
        self._fingerprint = digest("stream", pipeline.fingerprint, source.describe(), sure, on_null_label)

    def __reduce__(self) -> Any:
        return Stream, self._made


def window_of(part_bytes: float) -> int:
    """Parts of a window, where the largest has so many bytes when it is prepared."""
    return max(1, int(WINDOW_BYTES // part_bytes))


def kept_bytes(part_bytes: Sequence[float]) -> float:
    """Bytes of the prepared parts that are kept at most, by those of each part."""
    largest = sorted(part_bytes, reverse=True)
    return sum(largest[: KEPT_WINDOWS * window_of(max(1.0, *largest))])


class Parts(Sequence[Batch]):
    """The parts of a source that have rows, each prepared when it is asked for; the last ``kept`` stay.

    ``rows_of``: number in the source → rows, of ``row_bytes`` each. DataError where a part has other rows than it had.
    """

    def __init__(self, job: Job, rows_of: dict[int, int], kept: int, row_bytes: float) -> None:
        self.row_bytes = row_bytes
        self._job, self._numbers, self._rows_of, self._most = job, list(rows_of), rows_of, kept
        self._kept: OrderedDict[int, Batch] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[n] for n in range(*at.indices(len(self)))]
        number = self._numbers[at]
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
            while len(self._kept) >= self._most:  # before there is one more
                self._kept.popitem(last=False)
            found = write((Shared((self._job, Reuse()), Path()), number))
            self._check(number, found["rows"])
            return self._kept.setdefault(number, found["batch"])

    @property
    def nbytes(self) -> float:
        """Bytes that are kept at most, by those of a row."""
        return kept_bytes([self.row_bytes * rows for rows in self._rows_of.values()])

    def one(self, at: int, name: str) -> Column | None:
        """A single array of a part; label, weight and keys without the features."""
        if name == "x" or name.startswith("x/"):
            return columns(self[at]).get(name)
        job, number = self._job, self._numbers[at]
        told = [n for n in (job.pipeline.label, job.pipeline.weight) if n and n in job.source.schema.names]
        part = job.parts[number]
        table = job.source.read(part, told or job.pipeline.columns[:1])
        left, mask = labelled_rows(job, table)
        self._check(number, left.num_rows)
        keys = job.source.keys(part, table)
        if name == "keys":
            return np.asarray(keys if mask is None else keys[mask])
        made = {"y": job.pipeline._y, "weight": job.pipeline._weights}.get(name)
        return None if made is None else made(left)

    def _check(self, number: int, rows: int) -> None:
        if rows != self._rows_of[number]:
            part = self._job.parts[number]
            raise DataError(
                f"{part.name!r}, rows from {part.start}, has {rows} rows now, and had {self._rows_of[number]} when the "
                "training began. Rows that are prepared on the way must stay as they are; train again, or prepare them "
                "first: leave out prepare='stream'."
            )


class _Counted:
    """An executor that notes in a fit's first pass how many rows each part had, and which labels they had."""

    def __init__(self, executor: Executor) -> None:
        self._executor, self.width, self.local = executor, executor.width, executor.local
        self.lengths: list[tuple[int, int]] = []
        self.labels: Labels | None = None

    def map(
        self, function: Callable[[Any], Any], tasks: Sequence[Any], label: str = "", alike: bool = True
    ) -> Generator[Any, None, None]:
        """See :class:`Executor`."""
        first = not self.lengths
        with closing(self._executor.map(function, tasks, label, alike)) as results:
            for found in results:
                if first and isinstance(found, Look):
                    self.lengths.append((found.rows, found.dropped))
                    if found.labels is not None:
                        self.labels = found.labels if self.labels is None else self.labels + found.labels
                yield found


def _lengths(
    pipeline: Pipeline, source: Any, parts: Sequence[Any], drop: bool, executor: Executor, folder: Path
) -> list[tuple[int, int]]:
    """The same where nothing was fitted; reads one column, and only where no part says its rows."""
    drop = drop and pipeline.label in source.schema.names
    if not drop and all(part.rows is not None for part in parts):
        return [(part.rows, 0) for part in parts]
    job = Job(pipeline, source, parts, pipeline.state.schema, folder, drop, pipeline.state.stages)
    shared = Shared(job, folder / "count")
    with closing(executor.map(_count, [(shared, number) for number in range(len(parts))], "counting")) as done:
        return list(done)


def _count(task: tuple[Shared, int]) -> tuple[int, int]:
    job: Job = task[0].value
    column = job.pipeline.label if job.drop and job.pipeline.label else job.pipeline.columns[0]
    table = job.source.read(job.parts[task[1]], [column])
    left, _ = labelled_rows(job, table)
    return left.num_rows, table.num_rows - left.num_rows


def _row_bytes(job: Job) -> float:
    """Bytes of a prepared row, by the first ones."""
    batch = job.pipeline.batch(first_rows(job))
    return sum(map(bytes_of, columns(batch).values())) / len(batch) + 8  # and its key


def _check_cross_fitted(pipeline: Pipeline) -> None:
    for how in pipeline.state.how:
        if "cross_fitted" in how:
            raise UsageError(
                f"{how['worker']} of block {how['block']!r} encodes each row that it is fitted on without that row's "
                "own label, which is done for all rows at once. Leave out prepare='stream', or fit the pipeline on "
                "other rows first: feed = lab.prepare(pipeline, others); feed.pipeline."
            )


def _quiet(what: str, done: int, total: int) -> None:
    return None
