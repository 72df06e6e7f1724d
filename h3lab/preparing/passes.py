"""Passes: what is done with one part at a time, wherever it is done. Look at it, to fit; or write it, prepared.

It knows one part and what was kept of it; merging and the order of passes are the driver's (``fitting``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab import worlds
from h3lab.errors import UnseenValue
from h3lab.feeds import manifest
from h3lab.preparing import chain
from h3lab.preparing.cells import Cells, check_columns, native
from h3lab.preparing.executor import seeing
from h3lab.preparing.heap import give_back
from h3lab.preparing.labels import Labels, present
from h3lab.preparing.remembered import ROWS, Memory, labels_of, told
from h3lab.preparing.workroom import Parcel, Shared, keep, kept
from h3lab.source import Part, Source

if TYPE_CHECKING:
    import pyarrow as pa

    from h3lab.pipeline import Pipeline
    from h3lab.preprocessor import Preprocessor


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
    memory: Memory | None = None
    marks: Mapping[str, str] = field(default_factory=dict)

    def identity(self, number: int, block: Preprocessor | None = None) -> str:
        """A part, as its labels and the columns of a block (None: no block) make it; ``""`` where nobody knows."""
        part = self.parts[number]
        names = [name for name in (self.pipeline.label, self.pipeline.weight) if name]
        return manifest.identity(part, [*names, *(block.names if block else ())]) if part.version else ""

    def has(self, block: str, part: int) -> bool:
        """Whether the inputs of a stage were kept for this part: not where what is found in it was remembered."""
        return block in self.saved and self.file(block, self.saved[block][0], 0, part).exists()

    def file(self, block: str, stage: int, number: int, part: int) -> Path:
        """Where the inputs of a stage are kept."""
        position = [given.name for given in self.pipeline.preprocessors].index(block)
        return self.folder / f"{position}-{stage}-{number}-{part}"


Task = tuple[Shared, int]


@dataclass(frozen=True)
class Look:
    """What a task found in its part. ``states``: a tree by block, one state a worker; ``sizes``: bytes kept by block;
    ``nulls``: missing values by column; ``dropped``: rows left out; ``seconds`` by block; ``recalled``: blocks whose
    states were remembered."""

    rows: int
    dropped: int
    labels: Labels | None
    nulls: Mapping[str, int]
    states: Parcel
    seconds: Mapping[str, float]
    sizes: Mapping[str, int]
    digests: Mapping[str, Any]
    recalled: Sequence[str] = ()


def read(job: Job, part: Part, blocks: Sequence[Any] | None = None) -> tuple[pa.Table, np.ndarray, int]:
    """The rows of a part that count, their keys, and how many were left out; only the columns that are needed by these
    blocks (None: by all)."""
    pipeline = job.pipeline
    extra = [name for name in (pipeline.label, pipeline.weight) if name and name in job.source.schema.names]
    wanted = pipeline.preprocessors if blocks is None else blocks
    raw = [name for block in wanted if not job.has(block.name, part.index) for name in block.names]
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
    part = job.parts[number]
    at, given = 0, []
    if job.has(block.name, number):
        at, count, digest = job.saved[block.name]
        given = [kept(job.file(block.name, at, i, number), digest) for i in range(count)]
    else:
        import pyarrow as pa

        schema = pa.schema([job.schema.field(name) for name in block.names])
        raw = block.cells(check_columns(table, schema, f"{part.name!r}, rows from {part.start}"))
        given = chain.inputs_of(stages[0][0], raw) if stages else [raw]
    following = [*stages[at + 1 :], *([job.pending[block.name].workers] if block.name in job.pending else [])]
    for stage in stages[at:]:
        try:
            x = chain.apply(stage, given, where)
        except UnseenValue as error:
            of = f"part {part.index + 1} ({part.name!r}, rows from {part.start})"
            raise error.placed(of=of) from error.__cause__
        given = chain.inputs_of(following.pop(0)[0], x) if following else [x]
    if not stages and block.name in job.pending:
        given = chain.inputs_of(job.pending[block.name].workers[0], given[0])
    return len(stages), given


def look(task: Task) -> Look:
    """Fit what is pending on one part: its states, and what later passes begin with. What is remembered of the part is
    not found out again, and where that is all, it is not read."""
    job, number = task[0].value, task[1]
    part = job.parts[number]
    known = _recalled(job, number) if job.memory else {}
    blocks = [b for b in job.pipeline.preprocessors if (job.survey or b.name in job.pending) and b.name not in known]
    if not blocks and ROWS in known:
        rows = known.pop(ROWS)
        nulls = {name: count for found in known.values() for name, count in found["nulls"].items()}
        states = {name: found["states"] for name, found in known.items() if found["states"] is not None}
        labels = labels_of(rows) if job.survey else None
        parcel = Parcel(states, job.folder / f"states-{number}")
        return Look(rows["rows"], rows["dropped"], labels, nulls, parcel, {}, {}, {}, list(states))
    table, keys, dropped = read(job, part, blocks)
    known.pop(ROWS, None)
    found = _looked(job, number, table, keys, dropped, blocks, known)
    used = table.nbytes
    del table
    give_back(used)
    return found


def _recalled(job: Job, number: int) -> dict[str, Any]:
    """What is remembered of a part, by block."""
    assert job.memory is not None
    blocks = {block.name: block for block in job.pipeline.preprocessors}
    found = {n: job.memory.recall(mark, job.identity(number, blocks.get(n))) for n, mark in job.marks.items()}
    return {name: one for name, one in found.items() if one is not None}


def _looked(
    job: Job,
    number: int,
    table: pa.Table,
    keys: np.ndarray,
    dropped: int,
    blocks: Sequence[Any],
    known: Mapping[str, Any],
) -> Look:
    states = {name: found["states"] for name, found in known.items() if found["states"] is not None}
    nulls = {name: count for found in known.values() for name, count in found["nulls"].items()}
    recalled = list(states)
    sizes: dict[str, int] = {}
    digests: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for block in blocks if table.num_rows else ():
        if block.name not in job.pending:
            continue
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
    counted = nulls_of(table) if job.survey else {}
    parcel = Parcel(states, job.folder / f"states-{number}")
    if job.memory is not None:
        _remember(job, number, told(table.num_rows, dropped, labels), blocks, states, counted)
    return Look(table.num_rows, dropped, labels, nulls | counted, parcel, seconds, sizes, digests, recalled)


def _remember(
    job: Job,
    number: int,
    rows: dict[str, Any] | None,
    blocks: Sequence[Any],
    states: Mapping[str, Any],
    nulls: Mapping[str, int],
) -> None:
    """Keep what was found in a part for the next preparation."""
    assert job.memory is not None
    if job.survey and rows is not None:
        job.memory.keep(job.marks[ROWS], job.identity(number), rows)
    for block in blocks:
        if block.name in job.marks:
            counts = {name: nulls[name] for name in block.names if name in nulls}
            found = {"states": states.get(block.name), "nulls": counts}
            job.memory.keep(job.marks[block.name], job.identity(number, block), found)


def nulls_of(table: pa.Table) -> dict[str, int]:
    """Missing values by column."""
    return {name: table.column(name).null_count for name in table.column_names}


def _kept_class(pending: Pending) -> Any:
    return worlds.load("h3lab.workers:family")(pending.workers[0]).kept


def _state(worker: Any, x: Any, block: str, labels: Cells | None) -> tuple[Any, Any]:
    family = worlds.load("h3lab.workers:family")(worker)
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
