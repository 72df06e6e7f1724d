"""Foresight: the rows of a training that is only planned, from the feed that it was given, or from a sample of rows
that nobody has prepared yet; and what of them will lie in memory.

It knows feeds, sources and how parts are kept; it does not know models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from h3lab.errors import DataError
from h3lab.feeds.feed import Feed
from h3lab.feeds.report import size
from h3lab.feeds.rows import bytes_of, columns
from h3lab.preparing.outlook import SAMPLE_ROWS, base_of, first, sampled
from h3lab.preparing.streaming import kept_bytes
from h3lab.training import intake, ways


@dataclass(frozen=True)
class Held:
    """Rows that a training reads: how many, ``each`` bytes of a prepared one, their parts; ``nbytes`` of them in
    memory, ``there`` of which are there already; ``note``: where they are, in words."""

    rows: int
    each: float
    parts: int
    nbytes: float
    there: float = 0.0
    note: str = ""

    @classmethod
    def of(cls, feed: Feed) -> Held:
        """Those of a feed."""
        rows = feed._rows
        each = rows.nbytes / max(1, len(rows))
        if rows.window:
            return cls(len(feed), each, len(rows.parts), rows.parts.nbytes, note=KEPT)  # type: ignore[attr-defined]
        if feed.url is not None:
            return cls(len(feed), each, len(rows.parts), 0.0, note=f"{size(rows.nbytes)} in files, mapped: {_PAGES}")
        there = sum(bytes_of(column) for part in rows.parts for column in columns(part).values())
        return cls(len(feed), each, len(rows.parts), there, there, "in memory")


#: How often a part is there while it is prepared: its file's bytes, Arrow's columns, what workers see of them, and what
#: one hands the next. Measured with files of numbers; see docs/LOG.md.
COPIES = 4
_PAGES = "the kernel keeps what is free"
KEPT = "prepared parts of windows, kept while they are due"
_PREPARED = "prepared, in memory; a stored feed takes none"


@dataclass(frozen=True)
class Foresight:
    """``data`` and ``settings`` for a trial; ``train`` and ``held_out`` rows, None where the trial's own feeds are
    those of the training; ``part``: bytes that preparing one takes beside what comes of it; ``estimated``: what is, in
    words."""

    data: Any
    settings: Mapping[str, Any]
    train: Held | None = None
    held_out: Held | None = None
    part: float = 0.0
    estimated: Sequence[str] = ()


def foresee(actor: Any, data: Any, settings: Mapping[str, Any]) -> Foresight:
    """What a training on ``data`` would read. Of rows that are not prepared yet a sample is, the first ones; a source
    that does not tell how many it has is counted, part by part."""
    actor = intake.actor_of(actor)
    chosen, rest = ways.choices(settings)
    if isinstance(data, Feed) or intake.pipeline_of(actor) is None:
        return Foresight(data, settings)
    intake.check_raw(actor, data, chosen)
    pipeline, source = intake.raw_rows(intake.pipeline_of(actor), data, chosen)
    pipeline = intake.decided(actor, pipeline)
    validation = rest.get("validation", actor.validation)
    share = intake.fraction_of(validation) or 0.0
    trial = _Trial(chosen)
    feed = trial.feed(pipeline, source)
    train = trial.held(1.0 - share)
    held_out = trial.held(share) if share else None
    if share:  # the sample stands for both sides, whose rows are alike
        rest["validation"] = feed
    elif validation is not None and not isinstance(validation, Feed | tuple):
        aside = _Trial(chosen)
        _, others = intake.raw_rows(feed.pipeline, validation, chosen)
        rest["validation"] = aside.feed(feed.pipeline, others)
        held_out = aside.held(1.0)
    return Foresight(intake.as_learned(actor, feed), rest, train, held_out, trial.part, trial.estimated)


class _Trial:
    """A sample of a source, prepared as chosen, and what it says of all rows."""

    def __init__(self, chosen: Mapping[str, Any]) -> None:
        self._null = chosen.get("on_null_label", "error")
        self._streamed = ways.streamed(chosen)
        self._verb = ways.verb(chosen)
        self.estimated: Sequence[str] = ()
        self.part = 0.0

    def feed(self, pipeline: Any, source: Any) -> Feed:
        """The sample. DataError for a source without rows."""
        few = first(source, SAMPLE_ROWS)
        table = few.first(SAMPLE_ROWS)
        used = [*pipeline.columns, *filter(None, (pipeline.label, pipeline.weight))]
        table = table.select([name for name in dict.fromkeys(used) if name in table.column_names])
        if not table.num_rows:
            raise DataError("the source has no rows, so there is nothing to learn from or to prepare.")
        feed, told = sampled(pipeline, source, few, SAMPLE_ROWS, self._null)
        self._each, self._kept, self.estimated = told.bytes_a_row or 0.0, told.kept, told.estimated
        known = [part.rows for part in base_of(source).parts()]
        counted = None in known
        total = len(base_of(source)) if counted else 0
        self._counts = [-(-total // len(known)) if counted else rows or 0 for rows in known]
        self.part = COPIES * max(self._counts) * table.nbytes / table.num_rows
        return self._verb(pipeline, few, on_null_label=self._null) if self._streamed else feed

    def held(self, share: float) -> Held:
        """A share of all rows of its source."""
        parts = [count * self._kept * share for count in self._counts if count]
        rows = max(1, round(sum(parts)))
        if self._streamed:
            return Held(rows, self._each, len(parts), kept_bytes([n * self._each for n in parts]), note=KEPT)
        return Held(rows, self._each, len(parts), rows * self._each, note=_PREPARED)
