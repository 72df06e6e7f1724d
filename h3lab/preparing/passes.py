"""Passes: what is done with one part at a time, wherever it is done. Look at it, to fit; or write it, prepared.

It knows one part and what was kept of it; merging and the order of passes are the driver's (``fitting``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab import worlds
from h3lab.feeds.rows import is_sparse
from h3lab.preparing import chain
from h3lab.preparing.cells import Cells, check_columns, native
from h3lab.preparing.executor import seeing, seen
from h3lab.preparing.heap import give_back
from h3lab.preparing.labels import Labels, present
from h3lab.preparing.workroom import Parcel, Shared, keep, kept
from h3lab.source import Part, Source, fraction

if TYPE_CHECKING:
    import pyarrow as pa

    from h3lab.pipeline import Pipeline

#: Parts may be worked on by threads, and NumPy's global stream is one.
_global_stream = threading.Lock()


@dataclass(frozen=True)
class Pending:
    """Workers that are fitted next: unfitted clones at one place of a block. ``merge``: by their states; else what
    they are given is kept, for :func:`fit_column`."""

    workers: chain.Stage
    merge: bool


@dataclass(frozen=True)
class Job:
    """What every task of a pass knows. ``saved``: blocks of which the inputs of a stage were kept → (stage, how many,
    the class of a digest). ``drop``: leave out rows without a label. ``survey``: count labels and nulls too."""

    pipeline: Pipeline
    source: Source
    parts: Sequence[Part]
    schema: pa.Schema
    folder: Path
    drop: bool
    stages: Mapping[str, tuple[chain.Stage, ...]]
    pending: Mapping[str, Pending] = field(default_factory=dict)
    saved: Mapping[str, tuple[int, int, Any]] = field(default_factory=dict)
    survey: bool = False
    store: Path | str | None = None

    def file(self, block: str, stage: int, number: int, part: int) -> Path:
        """Where the inputs of a stage are kept."""
        position = [given.name for given in self.pipeline.preprocessors].index(block)
        return self.folder / f"{position}-{stage}-{number}-{part}"


Task = tuple[Shared, int]


@dataclass(frozen=True)
class Look:
    """What a task found in its part. ``states``: a tree by block, one state a worker; ``sizes``: bytes kept by block;
    ``nulls``: missing values by column; ``dropped``: rows left out; ``seconds`` by block."""

    rows: int
    dropped: int
    labels: Labels | None
    nulls: Mapping[str, int]
    states: Parcel
    seconds: Mapping[str, float]
    sizes: Mapping[str, int]
    digests: Mapping[str, Any]


def read(job: Job, part: Part) -> tuple[pa.Table, np.ndarray, int]:
    """The rows of a part that count, their keys, and how many were left out; only the columns that are needed."""
    pipeline = job.pipeline
    extra = [name for name in (pipeline.label, pipeline.weight) if name and name in job.source.schema.names]
    raw = [name for block in pipeline.preprocessors if block.name not in job.saved for name in block.names]
    names = list(dict.fromkeys([*raw, *extra])) or pipeline.columns[:1]
    with seeing():
        table = job.source.read(part, names)
    left, kept_rows = labelled_rows(job, table)
    keys = job.source.keys(part, table)
    return left, keys if kept_rows is None else keys[kept_rows], table.num_rows - left.num_rows


def labelled_rows(job: Job, table: pa.Table) -> tuple[pa.Table, np.ndarray | None]:
    """The rows that have a label where the others are to be left out, and which they are (None: all)."""
    label = job.pipeline.label
    if label is None or label not in table.column_names or not job.drop:
        return table, None
    mask = present(table.column(label))
    return table.filter(mask), mask.to_numpy()


def climb(job: Job, block: Any, table: pa.Table, number: int) -> tuple[int, list[Any]]:
    """A block after all workers that are fitted: the stage it has come to, and what each of its workers is given."""
    where, stages = f"block {block.name!r}", job.stages[block.name]
    at, given = 0, []
    if block.name in job.saved:
        at, count, digest = job.saved[block.name]
        given = [kept(job.file(block.name, at, i, number), digest) for i in range(count)]
    else:
        import pyarrow as pa

        schema = pa.schema([job.schema.field(name) for name in block.names])
        part = job.parts[number]
        raw = block.cells(check_columns(table, schema, f"{part.name!r}, rows from {part.start}"))
        given = chain.inputs_of(stages[0][0], raw) if stages else [raw]
    following = [*stages[at + 1 :], *([job.pending[block.name].workers] if block.name in job.pending else [])]
    for stage in stages[at:]:
        x = chain.apply(stage, given, where)
        given = chain.inputs_of(following.pop(0)[0], x) if following else [x]
    if not stages and block.name in job.pending:
        given = chain.inputs_of(job.pending[block.name].workers[0], given[0])
    return len(stages), given


def look(task: Task) -> Look:
    """Fit what is pending on one part: its states, and what later passes begin with."""
    job: Job = task[0].value
    table, keys, dropped = read(job, job.parts[task[1]])
    found = _looked(job, task[1], table, keys, dropped)
    used = table.nbytes
    del table
    give_back(used)
    return found


def _looked(job: Job, number: int, table: pa.Table, keys: np.ndarray, dropped: int) -> Look:
    states: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    digests: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    waiting = [block for block in job.pipeline.preprocessors if block.name in job.pending]
    for block in waiting if table.num_rows else ():
        began = time.perf_counter()
        at, given = climb(job, block, table, number)
        pending = job.pending[block.name]
        if pending.merge:
            y = _label_cells(job, table)
            found = [_state(worker, x, block.name, y) for worker, x in zip(pending.workers, given, strict=True)]
            states[block.name] = [state for state, _ in found]
            changed = any(digest is not x for (_, digest), x in zip(found, given, strict=True))
            given, digests[block.name] = [digest for _, digest in found], _kept_class(pending) if changed else None
        # Raw columns are read again, which costs no space; whatever took work is kept.
        if not pending.merge or at > 0 or digests[block.name]:
            sizes[block.name] = sum(keep(job.file(block.name, at, i, number), x) for i, x in enumerate(given))
        seconds[block.name] = time.perf_counter() - began
    if any(not pending.merge for pending in job.pending.values()):
        _keep_labels(job, table, keys, number)
    label = job.pipeline.label if job.survey else None
    labels = None if label is None else Labels.of(table.column(label), job.pipeline.task)
    nulls = _nulls(table) if job.survey else {}
    parcel = Parcel(states, job.folder / f"states-{number}")
    return Look(table.num_rows, dropped, labels, nulls, parcel, seconds, sizes, digests)


def _nulls(table: pa.Table) -> dict[str, int]:
    return {name: table.column(name).null_count for name in table.column_names}


def _kept_class(pending: Pending) -> Any:
    return worlds.load("h3lab.workers:mergeable")(pending.workers[0]).kept


def _state(worker: Any, x: Any, block: str, labels: Cells | None) -> tuple[Any, Any]:
    family = worlds.load("h3lab.workers:mergeable")(worker)
    with chain.naming(worker, x, f"block {block!r}"):
        digest = family.digest(worker, x)
        if getattr(family, "labelled", False):
            return family.partial(worker, digest, None if labels is None else native(labels)), digest
        return family.partial(worker, digest), digest


def _label_cells(job: Job, table: pa.Table) -> Cells | None:
    return None if job.pipeline.label is None else Cells(table.select([job.pipeline.label]), one=True)


def _keep_labels(job: Job, table: pa.Table, keys: np.ndarray, number: int) -> None:
    keep(job.folder / f"keys-{number}", keys)
    if (labels := _label_cells(job, table)) is not None:
        keep(job.folder / f"label-{number}", labels)


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


def write(task: Task) -> dict[str, Any]:
    """Prepare one part by the fitted pipeline. With a store: its entry; without: the ``batch`` itself."""
    job, number = task[0].value, task[1]
    started = time.perf_counter()
    table, keys, dropped = read(job, job.parts[number])
    found: dict[str, Any] = {"rows": table.num_rows, "dropped": dropped, "nulls": _nulls(table), "blocks": {}}
    used = table.nbytes
    if table.num_rows:
        blocks = {block.name: _finished(job, block, table, number, found) for block in job.pipeline.preprocessors}
        table = table.select([name for name in (job.pipeline.label, job.pipeline.weight) if name in table.column_names])
        batch = job.pipeline.joined(blocks, table, keys)
        del blocks
        if job.store is None:
            found["batch"] = batch
        else:
            seen(job.store)
            found["entry"] = worlds.load("h3lab.stores:open_store")(job.store).write(f"{number:05d}", batch)
        del batch
    give_back(used)
    return found | {"seconds": round(time.perf_counter() - started, 4)}


def _finished(job: Job, block: Any, table: pa.Table, number: int, found: dict[str, Any]) -> Any:
    """A block, prepared; what it took and what it weighs is put into ``found``."""
    began = time.perf_counter()
    _, given = climb(job, block, table, number)
    x = chain.finished(given[0], f"block {block.name!r}")
    size = np.dtype(job.pipeline.spec.blocks[block.name].dtype).itemsize
    index = x.indptr.nbytes + x.indices.nbytes if is_sparse(x) else 0
    weight = (x.nnz if is_sparse(x) else x.size) * size + index
    found["blocks"][block.name] = {"seconds": round(time.perf_counter() - began, 6), "bytes": int(weight)}
    return x
