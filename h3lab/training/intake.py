"""Intake: what a training was given, as the feed that it learns from and the feed that it is validated on.

It knows every form in which data comes (feeds, arrays, raw rows); it does not know models or epochs.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from h3lab import estimator, worlds
from h3lab.errors import DataError, UsageError
from h3lab.feeds import targets
from h3lab.feeds.feed import Feed
from h3lab.options import Options
from h3lab.preparing.cells import as_table
from h3lab.preparing.from_sklearn import as_pipeline, is_fitted, is_transformer
from h3lab.training import agreement, ways
from h3lab.training.validation import check_same


def pipeline_of(actor: Any) -> Any:
    """What prepares an actor's rows: its pipeline, or the steps before the estimator of its scikit-learn Pipeline."""
    return estimator.apart(actor.model, actor.pipeline)[1]


def with_fitted(clone: Any, pipeline: Any) -> Any:
    """A clone of an actor, with the actor's pipeline itself where that is scikit-learn's and came fitted: a clone of it
    would have to learn again, and it is only applied."""
    if pipeline is not None and not hasattr(pipeline, "recipe") and is_fitted(pipeline):
        clone.pipeline = pipeline
    return clone


def check_raw(actor: Any, data: Any, chosen: Mapping[str, Any]) -> None:
    """UsageError where choices of how rows are prepared come with rows that nothing prepares here, and where nobody
    says which column is the label."""
    pipeline = pipeline_of(actor)
    if pipeline is not None and not hasattr(pipeline, "transform"):
        raise UsageError(
            f"actor {actor.name!r} has a {type(pipeline).__name__} as pipeline; expected for example "
            'h3.Pipeline(h3.Preprocessor("numbers", ["price"], StandardScaler()), label="rating").'
        )
    if not isinstance(data, (Feed, tuple)) and pipeline is not None and not hasattr(pipeline, "recipe"):
        raise UsageError(
            f"the pipeline of actor {actor.name!r} is a {type(pipeline).__name__}, which names no label. Pass (X, y), "
            "or give the actor pipeline=h3.Pipeline.from_sklearn(transformer, source, label=...)."
        )
    for name, value in chosen.items():
        if isinstance(data, Feed):
            where = f"Choose it where they are: lab.prepare(pipeline, source, {name}={value!r})."
            where = "Leave it out, or pass the source." if name == "prepare" else where
            raise UsageError(f"{name}={value!r} came with a Feed, whose rows are prepared already. {where}")
        if pipeline is None:
            raise UsageError(
                f"{name}={value!r} came, and actor {actor.name!r} has no pipeline, so nothing is prepared. Give it "
                "one, for example h3.Pipeline.guess(source, label=...), or leave these rows out of the arrays."
            )
    if ways.streamed(chosen):
        ways.check_streamed(actor)


def actor_of(given: Any) -> Any:
    """The actor of a run; an actor is itself."""
    return given if hasattr(type(given), "learned") else getattr(given, "actor", given)


def feeds(actor: Any, data: Any, options: Options, chosen: Mapping[str, Any] | None = None) -> tuple[Feed, Feed | None]:
    """(rows to learn from, rows to validate on or None). ``chosen``: how raw rows are prepared."""
    chosen = chosen or {}
    check_raw(actor, data, chosen)
    pipeline = pipeline_of(actor)
    validation = options.validation
    fraction = fraction_of(validation)
    if isinstance(data, tuple) and any(isinstance(each, Feed) for each in data[:1]):
        raise UsageError("a Feed came with y beside it, and has its own labels and weights: actor.fit(feed).")
    if isinstance(data, Feed):
        agreement.check(actor, data)
        feed = as_learned(actor, data)
    elif pipeline is not None:
        return _prepared(actor, data, validation, fraction, options.seed, chosen)
    else:
        feed = of_arrays(actor, data, options.batch_size)
    if fraction is not None:
        _refuse_if_labels_were_seen(feed, fraction)
        _say_what_is_shared(feed, fraction)
        return feed.split(fraction, options.seed)
    return feed, None if validation is None else held_out(validation, feed)


def decided(actor: Any, pipeline: Any) -> Any:
    """An actor's pipeline for raw rows. Where it leaves the task open, a classifier or a regressor decides it, before
    the labels do: a regressor of whole numbers is not warned of their many classes."""
    if pipeline.fitted or pipeline.task is not None or pipeline.label is None:
        return pipeline
    task = estimator.declared_task(actor.model, None)
    return pipeline if task is None else pipeline.replace(task=task)


def as_learned(actor: Any, feed: Feed) -> Feed:
    """A feed as an actor's model learns from it, which decides the task where the feed's pipeline does not."""
    return targets.for_task(feed, estimator.declared_task(actor.model, None))


def of_arrays(actor: Any, data: Any, batch_size: int | None = None) -> Feed:
    """(X, y), (X, y, weight), a torch Dataset or DataLoader → a feed, checked as scikit-learn does. ``batch_size``:
    that of the training, told where a loader has another."""
    if worlds.holds_examples(data):
        data = worlds.load(worlds.PAIR)(data, batch_size)
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        raise UsageError(
            f"a {type(data).__name__} came as data; expected a Feed, (X, y) or (X, y, weight), or a torch Dataset. Raw "
            "rows need an actor with a pipeline: Actor(name, model, pipeline)."
        )
    X, y, weight = estimator.checked(actor, *data)
    task = estimator.declared_task(actor.model, None)
    return Feed.of(X, y, weight=weight, task=task)


def held_out(data: Any, feed: Feed, chosen: Mapping[str, Any] | None = None) -> Feed:
    """Validation rows in any form → a feed with the training feed's classes."""
    if isinstance(data, Feed):
        rows = targets.like(data, feed.spec)
        check_same(rows, feed.spec, "the validation feed")
        return rows
    if feed.pipeline is None and worlds.holds_examples(data):
        data = worlds.load(worlds.PAIR)(data)
    if isinstance(data, tuple) and len(data) not in (2, 3):
        raise UsageError(f"validation came as a tuple of {len(data)}; expected (X, y) or (X, y, weight).")
    if isinstance(data, tuple):
        X, y, weight = (*data, None)[:3]
        made = Feed.of(X, y, weight=weight, task=feed.spec.task, labels=feed.spec.labels)
        check_same(made, feed.spec, "validation")
        return made
    if feed.pipeline is None:
        raise UsageError(
            f"validation came as {type(data).__name__}; expected a fraction, a Feed, or (X, y), or a pipeline "
            "on the actor, which raw rows need."
        )
    return apply(feed.pipeline, data, chosen)


def apply(pipeline: Any, data: Any, chosen: Mapping[str, Any] | None = None) -> Feed:
    """Raw rows through a fitted pipeline, in this process."""
    more = {name: value for name, value in (chosen or {}).items() if name != "prepare"}
    feed: Feed = ways.verb(chosen or {})(*raw_rows(pipeline, data), **more)
    return feed


def fraction_of(validation: Any) -> float | None:
    """What share of the rows is to be held out, where it is a share. UsageError for one that is none."""
    if isinstance(validation, (bool, str)) or not isinstance(validation, (int, float, np.floating)):
        return None
    if not 0 < validation < 1:
        raise UsageError(f"validation={validation!r} came; expected a fraction between 0 and 1, a feed, or (X, y).")
    return float(validation)


def _refuse_if_labels_were_seen(feed: Feed, fraction: float) -> None:
    """Rows held out of a feed share its preprocessing, which is no trouble unless a worker has seen their labels."""
    from h3lab.preparing.growing import sees_labels

    if feed.pipeline is None:
        return
    for block in feed.pipeline.preprocessors:
        for worker in block.workers:
            if sees_labels(worker):
                raise UsageError(
                    f"validation={fraction} of this feed came, but worker {worker} of block {block.name!r} has learned "
                    "from the labels of all its rows, so the score would be too good. Split the raw rows first: "
                    "train, held = source.split(test=0.2), and prepare each."
                )


def _say_what_is_shared(feed: Feed, fraction: float) -> None:
    """The warning that rows held out of a feed were there when its pipeline was fitted; Python shows it once."""
    if feed.pipeline is None:
        return
    learned = [how["worker"] for how in feed.pipeline.state.how if how["how"] not in ("applied", "frozen")]
    if learned:
        warnings.warn(
            f"validation={fraction} holds out rows of the feed, which were there when its pipeline was fitted: they "
            f"share its preprocessing ({', '.join(dict.fromkeys(learned))}). For rows that nothing has seen, split the "
            f"source: train, held = source.split(test={fraction}), prepare both, and give validation=held_feed.",
            stacklevel=2,
        )


def _prepared(
    actor: Any, data: Any, validation: Any, fraction: float | None, seed: int, chosen: Mapping[str, Any]
) -> tuple[Feed, Feed | None]:
    """Raw rows → feeds; rows to validate on are set aside before anything is fitted."""
    prepare = ways.verb(chosen)
    pipeline, rows = raw_rows(pipeline_of(actor), data, chosen)
    # The rest is in the source.
    chosen = {name: value for name, value in chosen.items() if name in ("on_null_label", "prepare")}
    own = {name: value for name, value in chosen.items() if name == "on_null_label"}
    pipeline = decided(actor, pipeline)
    if fraction is None:
        feed = as_learned(actor, prepare(pipeline, rows, **own))
        return feed, None if validation is None else held_out(validation, feed, chosen)
    rest, aside = rows.split(test=fraction, seed=seed)
    feed = as_learned(actor, prepare(pipeline, rest, **own))
    assert feed.pipeline is not None
    return feed, prepare(feed.pipeline, aside, **own)


def raw_rows(pipeline: Any, data: Any, chosen: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
    """(pipeline, source) of raw rows in any form, several sources joined as ``chosen`` says. What comes beside the
    rows, as (rows, y) or (rows, y, weight), becomes a column, which the pipeline is told of where it knows none."""
    from h3lab.pipeline import Pipeline
    from h3lab.preparing.matching import opened

    if not isinstance(pipeline, Pipeline) and not is_transformer(pipeline):
        raise UsageError(
            f"a {type(pipeline).__name__} came as the actor's pipeline; expected a Pipeline, for example "
            'h3.Pipeline(h3.Preprocessor("numbers", ["price"], StandardScaler()), label="rating").'
        )
    read = worlds.load(worlds.READ)
    if not isinstance(data, tuple):
        joining: dict[str, Any] = {"keys": None, "on_missing": "error", "on_duplicate": "error"}
        joining |= {name: value for name, value in (chosen or {}).items() if name in joining}
        return pipeline, opened(pipeline, data, **joining)
    if len(data) not in (2, 3):
        raise UsageError(f"a tuple of {len(data)} came as data; expected (rows, y) or (rows, y, weight).")
    X, y, weight = (*data, None)[:3]
    pipeline, table = as_pipeline(pipeline, X), as_table(read(X))
    for what, values in (("label", y), ("weight", weight)):
        if values is None:
            continue
        name = getattr(pipeline, what) or str(
            getattr(values, "name", None) or ("y" if what == "label" else "row_weight")
        )
        if name in table.column_names:
            raise UsageError(
                f"the rows have the column {name!r} already, and a {what} came beside them. Pass one of them."
            )
        if len(values) != table.num_rows:
            raise DataError(f"{len(values)} values came as {what} beside {table.num_rows} rows; expected one a row.")
        table = table.append_column(name, [np.asarray(values).tolist()])
        if getattr(pipeline, what) is None:
            pipeline = pipeline.replace(**{what: name})
    return pipeline, read(table)


def rows_for(pipeline: Any, data: Any) -> Any:
    """Raw rows for a fitted pipeline; paths and URLs are read. A bare array has no column names, so it is taken only by
    a pipeline that was fitted on one, whose columns are x0, x1, ...; else it passes, and the pipeline says what it
    wants."""
    several = isinstance(data, list) and bool(data) and all(isinstance(one, str | os.PathLike) for one in data)
    if isinstance(data, str | os.PathLike) or several:
        return worlds.load(worlds.READ)(data)
    if worlds.holds_examples(data):
        return worlds.load(worlds.READ)(data)
    unnamed = all(re.fullmatch(r"x\d+", column) for column in pipeline.columns)
    return (
        worlds.load(worlds.READ)(np.asarray(data))
        if unnamed and hasattr(data, "__array__") and not named(data)
        else data
    )


def named(data: Any) -> bool:
    """Whether rows bring their column names."""
    return hasattr(data, "columns") or hasattr(data, "column_names") or hasattr(data, "schema")
