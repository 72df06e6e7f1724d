"""Gathered: what one pass has found in the parts, merged in their order, and the fits that follow from it.

It knows states, sizes and counts; it does not know rows.
"""

from __future__ import annotations

import os
import time
import warnings
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from h3lab import worlds
from h3lab.preparing import chain
from h3lab.preparing.executor import Executor
from h3lab.preparing.growing import Growing, cross_fits, drawn
from h3lab.preparing.labels import Labels
from h3lab.preparing.passes import Look
from h3lab.preparing.whole import ColumnFit, fit_column
from h3lab.preparing.workroom import Shared

#: States that are merged at a time, so that the driver never holds those of a thousand parts.
MERGED_AT_A_TIME = 16
CROSSED = ", and these rows are encoded by their own labels too, without scikit-learn's cross-fitting"


def column_bytes() -> int:
    """What a whole column may weigh; heavier ones are sampled. ``$H3LAB_COLUMN_BYTES``, 1 GiB without it."""
    return int(os.environ.get("H3LAB_COLUMN_BYTES", 1 << 30))


@dataclass
class Gathered:
    """What one pass has found in the parts that are done."""

    growing: dict[str, Growing]
    rows: int = 0
    dropped: int = 0
    labels: Labels | None = None
    nulls: dict[str, int] = field(default_factory=dict)
    states: dict[str, list[list[Any]]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    saved: dict[str, tuple[int, int, Any]] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    recalled: dict[str, int] = field(default_factory=dict)

    def add(self, number: int, found: Look) -> None:
        """One part; parts come in their order."""
        self.rows, self.dropped = self.rows + found.rows, self.dropped + found.dropped
        if found.labels is not None:
            self.labels = found.labels if self.labels is None else self.labels + found.labels
        for name, count in found.nulls.items():
            self.nulls[name] = self.nulls.get(name, 0) + count
        for name, seconds in found.seconds.items():
            self.growing[name].spent(seconds)
        if found.rows:
            self.counts[number] = found.rows
        for name, size in found.sizes.items():
            one = self.growing[name]
            self.sizes[name] = self.sizes.get(name, 0) + size
            self.saved[name] = (len(one.stages), len(one.given), found.digests.get(name))
        for name in found.recalled:
            self.recalled[name] = self.recalled.get(name, 0) + 1
        for name, states in found.states.tree.items():
            self.states.setdefault(name, []).append(states)
            if len(self.states[name]) >= MERGED_AT_A_TIME:
                self.states[name] = [self.merged(name)]

    def merged(self, name: str) -> list[Any]:
        """The merged state of each worker of a pending stage."""
        workers = self.growing[name].pending.workers  # type: ignore[union-attr]
        lists = zip(*self.states[name], strict=True)
        return [_family(worker).merge(list(states)) for worker, states in zip(workers, lists, strict=True)]

    def finish(self, shared: Shared, executor: Executor) -> None:
        """Fit every pending stage: by the merged states, or on whole columns, which are tasks of their own."""
        tasks = []
        for name, one in self.growing.items():
            if one.pending is None:
                continue
            if not one.pending.merge:
                tasks += [(one, self._column(one, number)) for number in range(len(one.pending.workers))]
                continue
            began = time.perf_counter()
            for worker, state, x in zip(one.pending.workers, self.merged(name), one.given, strict=True):
                with chain.naming(worker, x, one.where):
                    _family(worker).finish(worker, state, x)
            one.spent(time.perf_counter() - began)
            one.fitted(one.pending.workers)
        columns = [(shared, task) for _, task in tasks]
        workers: dict[str, list[Any]] = {}
        with closing(executor.map(fit_column, columns, "fitting whole columns", alike=False)) as found:
            for (one, task), (fitted, seconds) in zip(tasks, found, strict=True):
                one.spent(seconds)
                workers.setdefault(one.block.name, []).append(fitted.value)
                if task.cross is not None:
                    self.saved[one.block.name] = (len(one.stages) + 1, 1, None)
        for name, stage in workers.items():
            self.growing[name].fitted(tuple(stage))

    def _column(self, one: Growing, number: int) -> ColumnFit:
        name, how = one.block.name, one.how[-1]
        size = self.sizes[name] // len(one.given)
        if how["how"] == "streamed":
            # Decompositions want at least as many rows at a time as they have components.
            width = int(np.prod(one.given[number].shape[1:]))
            return ColumnFit(name, number, runs(self.counts, 5 * width), stream=True)
        share = min(1.0, column_bytes() / max(size, 1))
        how["bytes"] = size
        crossed = cross_fits(one.pending.workers[number])  # type: ignore[union-attr]
        if share < 1:
            how |= {"how": "sample", "share": round(share, 4)}
            warnings.warn(
                f"{how['worker']} of {one.where} needs its whole column, {size:,} bytes; it is fitted on a sample of "
                f"{share:.1%} of the rows{CROSSED if crossed else ''}. Allow more with H3LAB_COLUMN_BYTES={size}.",
                stacklevel=2,
            )
        seed = drawn(one.seed, name, len(one.stages), number, "fit_transform") if crossed and share == 1 else None
        how |= {} if seed is None else {"cross_fitted": seed}
        return ColumnFit(name, number, [list(self.counts)], share, cross=seed)


def runs(counts: dict[int, int], least: int) -> list[list[int]]:
    """Parts in runs of at least so many rows, in their order; what is left over goes to the last run."""
    found: list[list[int]] = []
    current: list[int] = []
    for number in counts:
        current.append(number)
        if sum(counts[n] for n in current) >= least:
            found.append(current)
            current = []
    if not found:
        return [current]
    found[-1] += current
    return found


def _family(worker: Any) -> Any:
    return worlds.load("h3lab.workers:family")(worker)
