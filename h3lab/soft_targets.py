"""Soft targets: a teacher's answers to the rows of a feed, asked once and kept.

It knows teachers and feeds; it does not know losses or students.
"""

from __future__ import annotations

import io
import types
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import PicklingError
from typing import Any

import numpy as np

from h3lab import estimator, worlds
from h3lab.batch import Batch
from h3lab.errors import DataError, ModelError, NotFittedError, SpecMismatch, UsageError
from h3lab.feeds.feed import Feed
from h3lab.feeds.rows import Rows
from h3lab.home import replace_file, room
from h3lab.model import Model
from h3lab.serial.fingerprints import fingerprint
from h3lab.source import Source
from h3lab.spec import Spec
from h3lab.training.answers import log_softmax
from h3lab.training.questions import Questions
from h3lab.training.validation import ROWS_AT_A_TIME, check_same, logits_of

#: Answers in memory, newest last: a session that tries many students asks for the same ones again and again.
_KEPT: OrderedDict[str, np.ndarray] = OrderedDict()
_KEPT_BYTES = 1 << 29


def answers(teacher: Any, feed: Feed, clip: float, source: Any = None) -> np.ndarray:
    """(rows, outputs) float32 logits or predictions, in the feed's order. The teacher is asked once: answers are kept
    in memory, and beside a stored feed in ``$H3LAB_HOME/soft``, under what teacher and feed are."""
    if not feed.spec.outputs:
        raise DataError("this feed has no label, so it cannot be told which classes a teacher's answers are about.")
    asked = _Asked(teacher, feed, clip, source)
    key = asked.key
    kept = None if key is None else _KEPT.get(key)
    file = room("soft") / f"{key}.npy" if key is not None and feed.url is not None else None
    if kept is None and file is not None and file.exists():
        kept = np.load(file, allow_pickle=False)
    if kept is None:
        pieces = None if file is None else file.with_suffix(".pieces")
        kept = np.ascontiguousarray(asked.logits(pieces), dtype=np.float32)
        bad = int((~np.isfinite(kept)).any(axis=1).sum())
        if bad:
            raise DataError(f"the teacher's answers to {bad} of {len(kept)} rows are not finite.")
        if file is not None:
            buffer = io.BytesIO()
            np.save(buffer, kept, allow_pickle=False)
            replace_file(file, buffer.getvalue())
        asked.settle()
    if key is not None:
        _keep(key, kept)
    return kept


def _keep(key: str, values: np.ndarray) -> None:
    _KEPT[key] = values
    _KEPT.move_to_end(key)
    while len(_KEPT) > 1 and sum(kept.nbytes for kept in _KEPT.values()) > _KEPT_BYTES:
        _KEPT.popitem(last=False)


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
    joined = Rows(parts, np.diff(rows.starts).tolist(), rows.nbytes + soft.nbytes, window=rows.window)
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


class _Asked:
    """One teacher before one feed: who it is, and what it answers."""

    def __init__(self, teacher: Any, feed: Feed, clip: float, source: Any) -> None:
        self._feed, self._clip, self._source = feed, clip, source
        teacher = getattr(teacher, "actor", teacher)  # a run
        if estimator.reads_raw(teacher):
            teacher = worlds.load("h3lab.actor:Actor")(type(teacher).__name__, teacher)
        self._teacher = teacher
        self._actor: Any = None
        self._model: Model | None = None
        self._questions: Questions | None = None
        if hasattr(teacher, "learned"):
            if not teacher.learned:
                raise NotFittedError(f"the teacher {teacher.name!r} has not learned anything yet. Train it first.")
            self._actor, self._model = teacher, teacher.model_
        elif worlds.wraps(teacher):
            model = worlds.wrap(teacher)
            model.build(feed.spec, 0)
            self._model = model
        elif not callable(teacher):
            raise UsageError(
                f"a {type(teacher).__name__} came as teacher; expected a fitted actor, a run, a fitted model, a "
                "function of raw rows, or a list of them."
            )
        if self._model is not None and not self._model.capabilities.probabilities:
            raise ModelError(
                f"the teacher {getattr(teacher, 'name', teacher)!r} has margins and no probabilities, so it has "
                "nothing to teach but its choices. Train one that has them, such as CalibratedClassifierCV around it."
            )

    @property
    def key(self) -> str | None:
        """The same for the same teacher and rows; None where a function holds what cannot be told apart."""
        if self._model is not None:
            pipeline = None if self._actor is None else self._actor.pipeline_
            who: Any = [self._model.parameters(), None if pipeline is None else pipeline.fingerprint]
        else:
            who = [self._teacher, _mentioned(self._teacher, set()), self._clip]
        try:
            return fingerprint(who, self._feed.fingerprint)
        except (PicklingError, TypeError, AttributeError):
            return None

    def logits(self, pieces: Path | None) -> np.ndarray:
        """(rows, outputs) in the feed's order. ``pieces``: where a function's answers are kept until all are there."""
        feed = self._feed
        if self._model is None:
            self._questions = Questions(self._teacher, feed.spec, self._clip, len(feed), self.key, pieces)
            return self._over_raw_rows(self._questions)
        if self._actor is None:
            return logits_of(self._model, feed)
        name, spec = self._actor.name, self._actor.spec_
        if (spec.task, spec.labels, spec.outputs) != (feed.spec.task, feed.spec.labels, feed.spec.outputs):
            raise SpecMismatch(
                f"the teacher {name!r} knows {spec} {spec.labels or ''}, the feed has {feed.spec} "
                f"{feed.spec.labels or ''}. A teacher teaches the classes that it knows itself."
            )
        mine, theirs = self._actor.pipeline_, feed.pipeline
        raw = estimator.reads_raw(self._model)
        if (mine is None and not raw) or (
            mine is not None and theirs is not None and mine.fingerprint == theirs.fingerprint
        ):
            check_same(feed, spec, f"the feed, which the teacher {name!r} shall read,")
            return logits_of(self._model, feed)
        return self._over_raw_rows(self._actor.logits)

    def settle(self) -> None:
        """The answers are kept as a whole."""
        if self._questions is not None:
            self._questions.settle()

    def _over_raw_rows(self, ask: Callable[[Any], np.ndarray]) -> np.ndarray:
        """Answers to the rows before they were prepared, joined to the feed's by key, never by their place."""
        feed = self._feed
        batches = feed.epoch(0, batch_size=ROWS_AT_A_TIME, shuffle=False)
        if self._source is None and feed.pipeline is None:
            return np.concatenate([ask(batch.x) for batch in batches])
        wanted = np.concatenate([np.asarray(batch.keys) for batch in batches])
        source = self._raw()
        told = (feed.pipeline.label, feed.pipeline.weight) if feed.pipeline is not None else ()
        columns = [name for name in source.schema.names if name not in told]
        keys, found = [], []
        for part in source.parts():
            table = source.read(part, columns)
            own = source.keys(part, table)
            here = np.isin(own, wanted)  # a service is not asked for rows that nobody learns from
            if here.any():
                keys.append(own[here])
                found.append(ask(table.filter(here).to_pandas()))
        if not keys:
            raise DataError(f"none of the {len(wanted)} rows of the feed is in source.")
        return _joined(np.concatenate(keys), np.concatenate(found), wanted)

    def _raw(self) -> Source:
        if self._source is not None:
            return self._source if isinstance(self._source, Source) else worlds.load(worlds.READ)(self._source)  # type: ignore[no-any-return]
        try:
            described = None if self._feed.manifest is None else self._feed.manifest["source"]
            if described is not None:
                return worlds.reopen(described)  # type: ignore[no-any-return]
        except DataError as error:
            raise UsageError(f"{_ASK} ({error})") from error
        raise UsageError(_ASK)


_ASK = (
    "this teacher answers raw rows, and the feed holds prepared ones. Tell where the raw rows are: "
    "Distill(teacher, source=rows), the same that the feed was prepared from."
)


def _joined(keys: np.ndarray, answers: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    order = np.argsort(keys, kind="stable")
    at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    missing = int((keys[at] != wanted).sum())
    if missing:
        raise DataError(f"{missing} of {len(wanted)} rows of the feed are not in source, which has {len(keys)} rows.")
    return answers[at]


def _mentioned(function: Any, seen: set[int]) -> dict[str, Any]:
    """The global values that a function's code names, and theirs: a model that was trained again answers otherwise."""
    if not isinstance(function, types.FunctionType) or id(function) in seen:
        return {}
    seen.add(id(function))
    found: dict[str, Any] = {}
    for name in _names(function.__code__):
        value = function.__globals__.get(name)
        if value is not None and not isinstance(value, types.ModuleType):
            found[name] = [value, _mentioned(value, seen)]
    return found


def _names(code: types.CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))
