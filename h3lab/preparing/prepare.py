"""Preparing: raw rows of a source → a Feed, fitted exactly and in parallel.

It knows what is checked first and in which order things happen; passes over parts are in ``fitting`` and ``passes``.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from h3lab import worlds
from h3lab.errors import DataError, UnknownName, UsageError, guided
from h3lab.feeds import manifest
from h3lab.feeds.feed import Feed
from h3lab.feeds.rows import Rows
from h3lab.home import room
from h3lab.pipeline import Pipeline
from h3lab.preparing.executor import Executor, Here
from h3lab.preparing.fitting import Progress, fit
from h3lab.preparing.from_sklearn import as_pipeline
from h3lab.preparing.labels import check_label
from h3lab.preparing.matching import check_blocks, lookups_of, matched, opened, settled
from h3lab.preparing.passes import Job
from h3lab.preparing.reasons import reasons, recipes_of
from h3lab.preparing.remembered import FOLDER, Memory, mark_of_writing, resumed
from h3lab.preparing.reuse import Reuse, marks_of, unchanged
from h3lab.preparing.workroom import Shared, workroom
from h3lab.preparing.writing import write
from h3lab.serial import documents
from h3lab.serial.fingerprints import fingerprint
from h3lab.source import Source
from h3lab.spec import Spec


@guided
def prepare(
    pipeline: Any,
    source: Any,
    *,
    to: Path | str | None = None,
    label: str | None = None,
    keys: Any = None,
    executor: Executor | None = None,
    on_missing: str = "error",
    on_duplicate: str = "error",
    on_null_label: str = "error",
    progress: Progress | None = None,
) -> Feed:
    """A Feed of a source's rows. A pipeline that is not fitted is fitted on them, in a copy; a fitted one is applied.

    A ColumnTransformer or Pipeline of scikit-learn's becomes a Pipeline first (``Pipeline.from_sklearn``).

    ``source``: whatever ``h3.read`` takes. ``to``: the folder to store it in, where what has not changed is reused;
    None keeps it in memory. ``label``: names the label where the pipeline does not. ``executor``: where parts are
    worked on. ``on_null_label``: ``"error"``, or ``"drop"`` leaves out rows without a label. ``progress``: called with
    (what is done, parts done, parts in all).

    Where blocks have sources of their own, ``source`` is a dict of sources, the first of which gives the rows, and
    ``keys`` says by which columns each other one is looked up. ``on_missing``: ``"error"``, ``"drop"`` leaves out rows
    whose key is not there, ``"fill"`` gives their columns nulls. ``on_duplicate``: ``"error"``, or ``"first"`` takes
    the first row of a key that stands twice. Errors name columns that are missing, misspelt or of a wrong type, rows
    without labels and labels that a fitted pipeline does not know; a feed that was stored before stays as it is.
    """
    pipeline = as_pipeline(pipeline, source, label)
    source = opened(pipeline, source, keys, on_missing, on_duplicate)
    pipeline = labelled(pipeline, label)
    check_source(pipeline, source, on_null_label)
    parts = list(source.parts())
    store = None if to is None else worlds.load("h3lab.stores:open_store")(to)
    show = progress or (lambda what, done, total: None)
    known_by = [manifest.mark(source, parts)]
    if store is not None and (found := manifest.reusable(store, pipeline, known_by[0], on_null_label)):
        show("reused", len(parts), len(parts))
        return _opened(store, found, pipeline, unchanged=True)
    executor = executor or Here()
    with nullcontext() if store is None else store.turn, _room(store) as folder:
        source = settled(pipeline, source, folder, executor, show, store is not None)
        known_by.append(manifest.mark(source, list(source.parts())))
        if store is not None and (found := manifest.reusable(store, pipeline, known_by[1], on_null_label)):
            show("reused", len(parts), len(parts))
            return _opened(store, found, pipeline, unchanged=True)
        source, counts = matched(pipeline, source, folder, executor, show)
        parts = list(source.parts())
        job = Job(pipeline, source, parts, schema_of(pipeline, source), folder, on_null_label == "drop", {})
        job = replace(job, memory=None if store is None else Memory.of(_memory(store), len(parts)))
        return _prepared(job, store, executor, show, on_null_label, counts, known_by)


def _prepared(
    job: Job,
    store: Any,
    executor: Executor,
    show: Progress,
    on_null_label: str,
    matches: dict[str, Any],
    known_by: list[str],
) -> Feed:
    counts: dict[str, Any] = {"passes": 0, "fit_seconds": 0.0}
    if job.pipeline.fitted:
        job = replace(job, schema=job.pipeline.state.schema, stages=job.pipeline.state.stages)
    else:
        job, counts = fit(job, executor, show)
        told = replace(job.pipeline.state, lookups=lookups_of(job.source))
        job = replace(job, pipeline=job.pipeline.with_fitted(told))
    counts |= matches
    # Rows go by storage: without a folder to keep, other processes still write them to the workroom.
    where = store or (None if executor.local else worlds.load("h3lab.stores:open_store")(job.folder))
    job = replace(job, store=None if where is None else where.folder, marks=mark_of_writing(job))
    began = time.perf_counter()
    before = None if store is None else manifest.current(store)
    known = resumed(job, store) | manifest.written(before, job.pipeline, on_null_label, counts["passes"] == 0)
    same = unchanged(before, job, on_null_label)
    results = _written(job, known, same, executor, show)
    counts |= {**_summed(results), "write_seconds": round(time.perf_counter() - began, 3)}
    counts["again"] = reasons(before, job, results)
    if not counts["rows"]:
        raise DataError("the source has no rows, so there is nothing to prepare.")
    account = manifest.of(job, results, counts, on_null_label, {} if store is None else marks_of(job.pipeline))
    account |= {"known_by": sorted({mark for mark in known_by if mark}), "recipes": recipes_of(job.pipeline)}
    if store is None:
        batches = [
            found["batch"] if where is None else where.read(found["entry"]) for found in results if found["rows"]
        ]
        return Feed(Rows.of(batches), job.pipeline.spec, pipeline=job.pipeline, account=account)
    number = _stored(store, account, job.pipeline)
    if job.memory is not None:
        job.memory.forget()
    return _opened(store, store.manifest(number), job.pipeline)


def _stored(store: Any, account: dict[str, Any], pipeline: Pipeline) -> int:
    """Make it the current state of the store; its number."""
    document = pipeline.to_document()
    reason = documents.missing(document)
    if reason is not None:
        warnings.warn(
            f"this feed can be trained on now, and h3.open_feed cannot open it later: {reason} Name it and prepare "
            "again; h3.open_feed(..., types=[...]) is then given it.",
            stacklevel=4,
        )
    number: int = store.commit(account | {"unsaved": reason}, document)
    store.collect_garbage()
    return number


def _summed(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows, and what was reused: whole parts, and by block how many of the other parts took it from what was stored."""
    anew = [found for found in results if "reused" not in found]
    blocks = Counter(name for found in anew for name, block in found["blocks"].items() if "reused" in block)
    counts = {name: sum(found[name] for found in results) for name in ("rows", "dropped")}
    return {**counts, "reused": len(results) - len(anew), "reused_blocks": dict(blocks)}


def _memory(store: Any) -> Path:
    local = isinstance(store.folder, Path)
    return store.folder / FOLDER if local else room("states") / fingerprint(store.folder)


def _written(job: Job, known: dict[str, Any], same: Reuse, executor: Executor, show: Progress) -> list[dict[str, Any]]:
    """What writing each part found, in their order; parts that are known are not written again."""
    results = [known.get(manifest.identity(part)) for part in job.parts]
    numbers = [number for number, found in enumerate(results) if found is None]
    shared = Shared((job, same), job.folder / "write")
    what = f"writing ({', '.join(same.places)} reused)" if any(n in same.entries for n in numbers) else "writing"
    with closing(executor.map(write, [(shared, number) for number in numbers], "writing")) as done:
        for count, (number, found) in enumerate(zip(numbers, done, strict=True), 1):
            results[number] = found
            show(what, count, len(numbers))
    return [found for found in results if found is not None]


def _opened(store: Any, found: dict[str, Any], pipeline: Pipeline, unchanged: bool = False) -> Feed:
    """The stored feed; where the pipeline that was given is not fitted, the stored one of the same recipe is."""
    types, spec = documents.types_of(pipeline), Spec.from_json(found["spec"])
    fitted = pipeline if pipeline.fitted else None
    account = {**found, "unchanged": unchanged}
    return Feed(store.rows(found), spec, pipeline=fitted, store=store, manifest=found, types=types, account=account)


def labelled(pipeline: Pipeline, label: str | None) -> Pipeline:
    """The pipeline with a label that was named beside it."""
    if label is None or label == pipeline.label:
        return pipeline
    if pipeline.fitted or pipeline.label is not None:
        raise UsageError(
            f"label={label!r} came, and the pipeline's label is {pipeline.label!r}. "
            f"Write pipeline.replace(label={label!r}), which is fitted anew."
        )
    return pipeline.replace(label=label)


def check_source(pipeline: Pipeline, source: Source, on_null_label: str) -> None:
    """UnknownName for columns that the source does not have; a fitted pipeline needs no label and no weight."""
    if on_null_label not in ("error", "drop"):
        raise UnknownName("on_null_label", on_null_label, ["error", "drop"])
    if not (source.bounded and source.replayable and source.ordered):
        raise UsageError(
            f"{source.title} comes {', '.join(source.notes)}; preparing reads all rows several times, and what it "
            "finds belongs to them by their order. Land a piece of it as files first."
        )
    check_blocks(pipeline, source)
    check_names(pipeline, source.schema.names, source.missing)
    if pipeline.label is not None and pipeline.label in source.schema.names:
        check_label(pipeline.label, source.schema.field(pipeline.label).type)


def check_names(
    pipeline: Pipeline, known: Sequence[str], missing: Callable[[str, str], DataError | UnknownName] | None = None
) -> None:
    """The error (``missing``, or UnknownName) of columns of a pipeline that are not among the ``known`` ones."""
    told = [] if pipeline.fitted else [name for name in (pipeline.label, pipeline.weight) if name]
    needed = [(name, f"the source (block {block.name!r})") for block in pipeline.preprocessors for name in block.names]
    for name, where in [*needed, *((name, "the source") for name in told)]:
        if name not in known:
            raise missing(name, where) if missing else UnknownName("column", name, known, where)


def schema_of(pipeline: Pipeline, source: Source) -> Any:
    """The columns of a pipeline with their types in a source."""
    import pyarrow as pa

    return pa.schema([source.schema.field(name).remove_metadata() for name in pipeline.columns])


def _room(store: Any) -> AbstractContextManager[Path]:
    local = store is not None and isinstance(store.folder, Path)
    return workroom(store.folder if local else Path(tempfile.gettempdir()))
