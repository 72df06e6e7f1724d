"""Whole columns: fits of workers that cannot be merged, on what the parts have kept for them.

It knows one worker and the files of a workroom; which workers need it is a :class:`~h3lab.preparing.growing.Growing`'s.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from h3lab.preparing import chain
from h3lab.preparing.cells import native
from h3lab.preparing.passes import Job
from h3lab.preparing.workroom import Shared, keep, kept
from h3lab.source import fraction

#: Parts may be worked on by threads, and NumPy's global stream is one.
_global_stream = threading.Lock()


@dataclass(frozen=True)
class ColumnFit:
    """One worker that is fitted on a whole column. ``runs``: the parts that have rows, in runs that ``partial_fit``
    takes at once where ``stream`` says so; ``share`` of the rows is taken, by key. ``cross``: the rows go on as the
    worker's ``fit_transform`` gives them, from this seed."""

    block: str
    number: int
    runs: Sequence[Sequence[int]]
    share: float = 1.0
    stream: bool = False
    cross: int | None = None


def fit_column(task: tuple[Shared, ColumnFit]) -> tuple[Shared, float]:
    """The worker, fitted on what the parts have kept for it, in their order; and the seconds that it took."""
    began = time.perf_counter()
    job, what = task[0].value, task[1]
    worker = job.pending[what.block].workers[what.number]
    at = len(job.stages[what.block])
    where = f"block {what.block!r}"

    def column(parts: Sequence[int]) -> tuple[Any, Any]:
        found = []
        for part in parts:
            x = kept(job.file(what.block, at, what.number, part))
            y = None if job.pipeline.label is None else kept(job.folder / f"label-{part}")
            if what.share < 1:
                chosen = fraction(kept(job.folder / f"keys-{part}"), job.pipeline.seed) < what.share
                x, y = chain.rows(x, chosen), None if y is None else chain.rows(y, chosen)
            found.append((x, y))
        label = None if found[0][1] is None else chain.stacked([y for _, y in found]).native().to_numpy()
        return chain.stacked([x for x, _ in found]), label

    for parts in what.runs if what.stream else [[part for run in what.runs for part in run]]:
        x, y = column(parts)
        with chain.naming(worker, x, where):
            if what.stream:
                worker.partial_fit(native(x))
            elif what.cross is not None:
                _keep_crossed(job, what, at, _crossed(worker, native(x), y, what.cross))
            else:
                worker.fit(native(x)) if y is None else worker.fit(native(x), y)
    fitted = Shared(worker, job.folder / f"fitted-{at}-{what.number}-{task[0].path.name}-{what.block}")
    return fitted, time.perf_counter() - began


def _crossed(worker: Any, x: Any, y: Any, seed: int) -> Any:
    """``fit_transform`` from a seed: since scikit-learn 1.9 a target encoder without a splitter of its own draws its
    folds from NumPy's global stream, which is put back."""
    with _global_stream:
        before = np.random.get_state()
        np.random.seed(seed)
        try:
            return worker.fit_transform(x, y)
        finally:
            np.random.set_state(before)


def _keep_crossed(job: Job, what: ColumnFit, at: int, out: Any) -> None:
    """What ``fit_transform`` gave, part by part, for the next stage to begin with. A target encoder encodes each row
    it is fitted on without looking at that row's own label; its ``transform`` would look."""
    begin = 0
    for part in (number for run in what.runs for number in run):
        rows = kept(job.file(what.block, at, what.number, part)).shape[0]
        piece = out.iloc[begin : begin + rows] if hasattr(out, "iloc") else out[begin : begin + rows]
        keep(job.file(what.block, at + 1, 0, part), piece)
        begin += rows
