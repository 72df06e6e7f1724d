"""Fitting: a pipeline and a source → a fitted copy, in passes over all parts at once.

It knows the order of passes. States are merged in part order (``gathered``), so that any number of engines gives the
same bits; what is done with one part is in ``passes``, the mathematics are in ``workers/``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab.errors import DataError
from h3lab.pipeline import Fitted, Pipeline
from h3lab.preparing import chain
from h3lab.preparing.cells import check_columns
from h3lab.preparing.executor import Executor
from h3lab.preparing.gathered import Gathered
from h3lab.preparing.growing import Growing
from h3lab.preparing.heap import WORTH_BYTES, give_back
from h3lab.preparing.labels import Labels, null_labels
from h3lab.preparing.passes import Job, labelled_rows, look, read
from h3lab.preparing.remembered import marks
from h3lab.preparing.workroom import Shared
from h3lab.serial.fingerprints import fingerprint
from h3lab.spec import Block, Spec

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows that stand for all where only names, types and widths matter.
HEAD_ROWS = 64
#: (what is done, parts done, parts in all)
Progress = Callable[[str, int, int], None]


def fit(job: Job, executor: Executor, progress: Progress) -> tuple[Job, dict[str, Any]]:
    """The job with its pipeline fitted and what was kept for writing; and counts for the report."""
    began = time.perf_counter()
    head = first_rows(job)
    give_back(WORTH_BYTES)  # a few rows of a file may have taken a whole run of them
    growing = {
        block.name: Growing(block, _raw(job.schema, block, head), job.pipeline.seed)
        for block in job.pipeline.preprocessors
    }
    for one in growing.values():
        one.advance()
    job = replace(job, survey=True)
    counts: dict[str, Any] = {"passes": 0}
    labels: Labels | None = None
    recalled: Counter[str] = Counter()
    while job.survey or any(one.pending for one in growing.values()):
        stages = {name: tuple(one.stages) for name, one in growing.items()}
        job = replace(job, stages=stages, pending={n: one.pending for n, one in growing.items() if one.pending})
        job = job if job.memory is None else replace(job, marks=marks(job))
        shared = Shared(job, job.folder / f"pass-{counts['passes']}")
        gathered = _gathered(shared, growing, executor, progress, f"fitting, pass {counts['passes'] + 1}")
        if job.survey:
            labels = check_rows(job, gathered)
            job = replace(job, schema=widened(job.schema, gathered.nulls), survey=False)
            counts |= {"rows": gathered.rows, "dropped": gathered.dropped, "nulls": gathered.nulls}
            for one in growing.values():
                one.x = one.x if one.stages else _raw(job.schema, one.block, head)
        gathered.finish(shared, executor)
        recalled.update(gathered.recalled)
        job = replace(job, saved=_superseded(job, gathered.saved))
        counts["passes"] += 1
        for one in growing.values():
            if one.pending:
                one.advance()
    fitted = finished(job, growing, labels)
    counts |= {"recalled": dict(recalled), "fit_seconds": round(time.perf_counter() - began, 3)}
    return replace(job, pipeline=fitted, stages=fitted.state.stages, pending={}), counts


def _gathered(
    shared: Shared, growing: dict[str, Growing], executor: Executor, progress: Progress, what: str
) -> Gathered:
    """What all parts have, in one pass."""
    gathered = Gathered(growing)
    tasks = [(shared, number) for number in range(len(shared.value.parts))]
    # Closed here, not when a traceback is forgotten: an interrupted pass ends its workers at once.
    with closing(executor.map(look, tasks, "fitting")) as done:
        for number, found in enumerate(done):
            gathered.add(number, found)
            progress(what, number + 1, len(tasks))
    return gathered


def _raw(schema: pa.Schema, block: Any, head: pa.Table) -> Any:
    import pyarrow as pa

    return block.cells(check_columns(head, pa.schema([schema.field(name) for name in block.names]), "the source"))


def _superseded(job: Job, saved: dict[str, tuple[int, int, Any]]) -> dict[str, tuple[int, int, Any]]:
    """What is kept now; files of earlier stages that nobody will read again are removed."""
    for name in saved.keys() & job.saved.keys():
        stage, count, _ = job.saved[name]
        for part in range(len(job.parts)) if stage != saved[name][0] else ():
            for number in range(count):
                job.file(name, stage, number, part).unlink(missing_ok=True)
    return {**job.saved, **saved}


def first_rows(job: Job) -> pa.Table:
    """A few rows with a label, the columns of the pipeline; DataError for an empty source."""
    table = job.source.first(HEAD_ROWS)
    used = dict.fromkeys([*job.pipeline.columns, job.pipeline.label, job.pipeline.weight])
    # Of what nobody uses Arrow may have types that it cannot filter.
    table, _ = labelled_rows(job, table.select([name for name in used if name in table.column_names]))
    dropped = 0
    for part in job.parts if not table.num_rows else ():
        table, _, left = read(job, part)
        dropped += left
        if table.num_rows:
            break
    if not table.num_rows:
        why = f" All of its {dropped} rows miss the label {job.pipeline.label!r}." if dropped else ""
        raise DataError(f"the source has no rows, so there is nothing to learn from or to prepare.{why}")
    return table.slice(0, HEAD_ROWS)


def check_rows(job: Job, gathered: Gathered) -> Labels | None:
    """The label's values; DataError where labels are missing and not to be left out."""
    labels = gathered.labels
    if labels is not None and labels.nulls:
        raise null_labels(str(job.pipeline.label), labels.nulls, labels.rows)
    return labels


def widened(schema: pa.Schema, nulls: dict[str, int]) -> pa.Schema:
    """Columns of whole numbers that miss some in any part are floats in every part, as in one DataFrame."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(field.name, pa.float64()) if pa.types.is_integer(field.type) and nulls.get(field.name) else field
            for field in schema
        ]
    )


def finished(job: Job, growing: dict[str, Growing], labels: Labels | None) -> Pipeline:
    """The fitted pipeline, its spec taken from the first rows and the labels of all."""
    pipeline = job.pipeline
    blocks, names = {}, {}
    for name, one in growing.items():
        x = chain.finished(one.x, one.where)
        shape = tuple(int(n) for n in x.shape[1:])
        blocks[name] = Block(name, shape, pipeline.dtype or str(x.dtype), hasattr(x, "indptr"))
        names[name] = chain.feature_names(one.stages, one.block.bare, int(np.prod(shape)))
    features = sum(int(np.prod(block.shape)) for block in blocks.values())
    shape = next(iter(blocks.values())).shape if len(blocks) == 1 and pipeline.join == "concat" else (features,)
    if labels is None:
        spec = Spec(pipeline.task or "regression", features, shape, 0, None, None, blocks)
    else:
        task, known = labels.decide(str(pipeline.label), pipeline.task)
        classes = None if known is None else len(known)
        spec = Spec(task, features, shape, classes or 1, classes, known, blocks)
    stages = {name: tuple(one.stages) for name, one in growing.items()}
    how = [entry for one in growing.values() for entry in one.how]
    mark = fingerprint(pipeline.recipe, stages, spec.to_json(), str(job.schema))
    return pipeline.with_fitted(Fitted(spec, job.schema, stages, names, how, mark))
