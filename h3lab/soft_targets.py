"""Soft targets: a teacher's answers to the rows of a feed, asked once and kept.

It knows teachers and feeds; it does not know losses or students.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from h3lab import worlds
from h3lab.batch import Batch
from h3lab.errors import DataError, ModelError, NotFittedError, SpecMismatch, UsageError
from h3lab.feed import Feed
from h3lab.fingerprints import fingerprint
from h3lab.home import replace_file, room
from h3lab.model import Model
from h3lab.rows import Rows
from h3lab.source import Source
from h3lab.spec import Spec
from h3lab.validation import ROWS_AT_A_TIME, check_same, log_softmax, logits_of

#: Answers in memory, newest last; a session that tries many students asks for the same ones again and again.
_KEPT: OrderedDict[str, np.ndarray] = OrderedDict()
_KEPT_AT_MOST = 8


def answers(teacher: Any, feed: Feed, clip: float, source: Any = None) -> np.ndarray:
    """(rows, outputs) float32 logits or predictions, in the feed's order; the teacher is asked once."""
    teacher = getattr(teacher, "actor", teacher)
    if not feed.spec.outputs:
        raise DataError("this feed has no label, so it cannot be told which classes a teacher's answers are about.")
    key = fingerprint(_identity(teacher), feed.fingerprint, clip)
    kept = _KEPT.get(key)
    file = room("soft") / f"{key}.npy" if feed.url is not None else None
    if kept is None and file is not None and file.exists():
        kept = np.load(file, allow_pickle=False)
    if kept is None:
        kept = np.ascontiguousarray(_ask(teacher, feed, clip, source), dtype=np.float32)
        if not np.isfinite(kept).all():
            raise DataError(
                f"the teacher's answers to {int((~np.isfinite(kept)).any(axis=1).sum())} rows are not finite."
            )
        if file is not None:
            buffer = io.BytesIO()
            np.save(buffer, kept, allow_pickle=False)
            replace_file(file, buffer.getvalue())
    _KEPT[key] = kept
    _KEPT.move_to_end(key)
    while len(_KEPT) > _KEPT_AT_MOST:
        _KEPT.popitem(last=False)
    return kept


def mixture(answers: Sequence[tuple[np.ndarray, float]], spec: Spec) -> np.ndarray:
    """Several teachers' logits → those of the mixture of their probabilities (regression: the mean)."""
    if len(answers) == 1:
        return answers[0][0]
    if spec.task == "regression":
        return np.asarray(sum(values * share for values, share in answers), dtype=np.float32)
    weighted = np.stack([log_softmax(logits) + np.log(share) for logits, share in answers])
    return np.asarray(np.logaddexp.reduce(weighted, axis=0), dtype=np.float32)


def beside(feed: Feed, soft: np.ndarray) -> Feed:
    """A feed with the same rows, and these answers beside them."""
    rows, picked = feed._rows, feed._picked
    if picked is not None:
        whole = np.zeros((len(rows), soft.shape[1]), soft.dtype)
        whole[picked] = soft
        soft = whole
    parts = _Parts(rows.parts, rows.starts, soft)
    joined = Rows(parts, np.diff(rows.starts).tolist(), rows.nbytes + soft.nbytes)
    return Feed(joined, feed.spec, pipeline=feed._pipeline, picked=picked, parent=feed.parent)


class _Parts(Sequence[Batch]):
    """The parts of a feed, which may be read when they are asked for, each with its answers."""

    def __init__(self, parts: Sequence[Batch], starts: np.ndarray, soft: np.ndarray) -> None:
        self._parts, self._starts, self._soft = parts, starts, soft

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        return self._parts[number].with_soft(self._soft[self._starts[number] : self._starts[number + 1]])


def _identity(teacher: Any) -> Any:
    if getattr(teacher, "learned", False):
        pipeline = teacher.pipeline_
        return ["actor", teacher.model_.parameters(), None if pipeline is None else pipeline.fingerprint]
    return ["native", teacher]


def _ask(teacher: Any, feed: Feed, clip: float, source: Any) -> np.ndarray:
    if getattr(teacher, "learned", False):
        return _ask_actor(teacher, feed, source)
    if hasattr(teacher, "get_params") and hasattr(teacher, "pipeline"):
        raise NotFittedError(f"the teacher {teacher.name!r} has not learned anything yet. Train it first, then distil.")
    if worlds.wraps(teacher):
        model = worlds.wrap(teacher)
        model.build(feed.spec, 0)
        _check_probabilities(model, f"the teacher {model!r}")
        return logits_of(model, feed)
    if callable(teacher):
        return _over_raw_rows(lambda rows: _asked(teacher, rows, feed.spec, clip), feed, source)
    raise UsageError(
        f"a {type(teacher).__name__} came as teacher; expected a fitted actor, a run, a fitted model, a function of "
        "raw rows, or a list of them."
    )


def _ask_actor(teacher: Any, feed: Feed, source: Any) -> np.ndarray:
    spec = teacher.spec_
    if (spec.task, spec.labels, spec.outputs) != (feed.spec.task, feed.spec.labels, feed.spec.outputs):
        raise SpecMismatch(
            f"the teacher {teacher.name!r} knows {spec} {spec.labels or ''}, the feed has {feed.spec} "
            f"{feed.spec.labels or ''}. A teacher teaches the classes that it knows itself."
        )
    _check_probabilities(teacher.model_, f"the teacher {teacher.name!r}")
    mine, theirs = teacher.pipeline_, feed.pipeline
    if mine is None or (theirs is not None and mine.fingerprint == theirs.fingerprint):
        check_same(feed, spec, "the feed")
        return logits_of(teacher.model_, feed)
    return _over_raw_rows(teacher.logits, feed, source)


def _check_probabilities(model: Model, what: str) -> None:
    if not model.capabilities.probabilities:
        raise ModelError(
            f"{what} has margins and no probabilities, so it has nothing to teach but its choices. Train one that has "
            "them, for example CalibratedClassifierCV around the estimator."
        )


def _over_raw_rows(ask: Callable[[Any], np.ndarray], feed: Feed, source: Any) -> np.ndarray:
    """Answers to the rows before they were prepared, joined to the feed's by key, never by their place."""
    if source is None and feed.pipeline is None:
        batches = feed.epoch(0, batch_size=ROWS_AT_A_TIME, shuffle=False)
        return np.concatenate([ask(batch.x) for batch in batches])
    if source is None:
        raise UsageError(
            "this teacher answers raw rows, and the feed holds prepared ones. Tell where the raw rows are: "
            "Distill(teacher, source=rows), the same that the feed was prepared from."
        )
    if not isinstance(source, Source):
        source = worlds.load(worlds.READ)(source)
    keys, answers = [], []
    for part in source.parts():
        table = source.read(part)
        keys.append(source.keys(part, table))
        answers.append(ask(table.to_pandas()))
    return _joined(np.concatenate(keys), np.concatenate(answers), feed)


def _joined(keys: np.ndarray, answers: np.ndarray, feed: Feed) -> np.ndarray:
    wanted = np.concatenate(
        [batch.keys for batch in feed.epoch(0, batch_size=ROWS_AT_A_TIME, shuffle=False)]  # type: ignore[misc]
    )
    order = np.argsort(keys, kind="stable")
    at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    missing = int((keys[at] != wanted).sum())
    if missing:
        raise DataError(f"{missing} of {len(wanted)} rows of the feed are not in source, which has {len(keys)} rows.")
    return answers[at]


def _asked(function: Any, rows: Any, spec: Spec, clip: float) -> np.ndarray:
    values = np.asarray(function(rows), dtype=np.float64)
    if spec.task == "regression":
        return values.reshape(len(values), -1)
    if values.ndim != 2 or values.shape[1] != spec.classes:
        raise SpecMismatch(
            f"the teacher's function returned shape {values.shape}; expected (rows, {spec.classes}): a "
            f"probability for each of {spec.labels}."
        )
    if (values < 0).any() or np.abs(values.sum(axis=1) - 1).max() > 1e-3:
        raise DataError(
            "the teacher's function returned rows that do not sum to one, so they are no probabilities. If they are "
            "logits, return scipy.special.softmax(logits, axis=1)."
        )
    return np.log(np.clip(values, clip, None))
