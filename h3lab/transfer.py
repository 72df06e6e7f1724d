"""Distill: how a teacher's answers enter a student's training.

It is a value that says who teaches and how much that counts; the answers themselves are in ``soft_targets``, and the
loss is the student's backend's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from h3lab import brief
from h3lab.errors import UnknownName, UsageError, guided
from h3lab.feeds.feed import Feed
from h3lab.settings import Setting, Settings

_SETTINGS = (
    Setting("temperature", float, 4.0, low=0.05, high=1000.0, log=True, help="softens teacher and student alike"),
    Setting("soft", float, 0.9, low=0.0, high=1.0, help="weight of the distance to the teacher"),
    Setting("hard", float, 0.1, low=0.0, high=1.0, help="weight of the loss against the labels"),
)
LOSSES = ("kl",)


@guided
@dataclass(frozen=True, eq=False)
class Distill:
    """Learn from a teacher beside the labels: loss = soft · T² · KL(teacher at T ‖ student at T) + hard · loss against
    the labels, means over rows (Hinton et al. 2015). In regression: soft · squared error to the teacher's predictions.

    ``teacher``: a fitted actor, a run, a fitted native model, a function from raw rows (a DataFrame) to
    probabilities: (rows, classes) in the order of ``feed.spec.labels``, or a DataFrame or dicts by class; or a
    list of them, or of ``(teacher, weight)``: then their mixture teaches. ``temperature``, ``soft`` and ``hard`` can be
    steered; ``hard=None`` is ``1 - soft`` and follows it. ``clip``: what a probability of zero counts as, where the
    teacher is a function. ``source``: the raw rows that the feed was prepared from, for a teacher that answers raw
    rows.

    >>> Distill(lambda rows: rows, soft=0.8).settings[2].default
    0.2
    """

    teacher: Any
    temperature: float = 4.0
    soft: float = 0.9
    hard: float | None = None
    loss: str = "kl"
    clip: float = 1e-6
    source: Any = None

    def __init__(
        self,
        teacher: Any,
        *,
        temperature: float = 4.0,
        soft: float = 0.9,
        hard: float | None = None,
        loss: str = "kl",
        clip: float = 1e-6,
        source: Any = None,
    ) -> None:
        if loss not in LOSSES:
            raise UnknownName("loss of Distill", loss, LOSSES)
        Setting("clip", float, 1e-6, low=1e-30, high=0.5).check(clip)
        for setting, value in zip(_SETTINGS, (temperature, soft, 0.0 if hard is None else hard), strict=True):
            setting.check(value)
        given = (teacher, temperature, soft, hard, loss, clip, source)
        for field, value in zip(fields(self), given, strict=True):
            object.__setattr__(self, field.name, value)
        for each, _ in self.teachers():
            if each is None or isinstance(each, str | bytes | int | float):
                hint = f" A run is found by h3.attach({each!r})." if isinstance(each, str) else ""
                raise UsageError(f"teacher={each!r} came; expected an actor, a run, a model or a function.{hint}")

    @property
    def settings(self) -> tuple[Setting, ...]:
        """``temperature``, ``soft`` and ``hard``, steerable."""
        hard = round(1.0 - self.soft, 12) if self.hard is None else self.hard
        values = (self.temperature, self.soft, hard)
        return tuple(replace(s, default=s.check(value)) for s, value in zip(_SETTINGS, values, strict=True))

    def settle(self, before: Settings, after: Settings) -> Settings:
        """The settings that hold after a change: where ``hard`` was left to ``soft``, it follows."""
        if self.hard is None and after.soft != before.soft and after.hard == before.hard:
            return after.replace(hard=round(1.0 - after.soft, 12))
        return after

    def teachers(self) -> list[tuple[Any, float]]:
        """Each teacher with its share; shares sum to one."""
        given: Sequence[Any] = self.teacher if isinstance(self.teacher, (list, tuple)) else [self.teacher]
        pairs = [each if isinstance(each, tuple) else (each, 1.0) for each in given]
        if not pairs or not all(len(pair) == 2 and isinstance(pair[1], (int, float)) and pair[1] > 0 for pair in pairs):
            raise UsageError(
                f"teacher={self.teacher!r} came; expected teachers, or (teacher, weight) with weights above 0."
            )
        total = sum(weight for _, weight in pairs)
        return [(teacher, weight / total) for teacher, weight in pairs]

    def taught(self, feed: Feed) -> Feed:
        """The feed with the teachers' answers beside its rows, as ``Batch.soft``; computed once a teacher and feed."""
        from h3lab.soft_targets import answers, beside, mixture

        logits = [(answers(teacher, feed, self.clip, self.source), share) for teacher, share in self.teachers()]
        return beside(feed, mixture(logits, feed.spec))

    def __repr__(self) -> str:
        hard = "1 - soft" if self.hard is None else self.hard
        rest = f"temperature={self.temperature}, soft={self.soft}, hard={hard}, loss={self.loss!r}"
        names = brief.listed(
            [brief.word(t, brief.NAME) if not hasattr(t, "name") else t.name for t, _ in self.teachers()],
            brief.LINE - len(rest) - 11,
        )
        return f"Distill({names}, {rest})"
