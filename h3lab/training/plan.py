"""A plan: what memory a training will need, found out by a trial of a few rows before it is spent.

It knows what lives at which time of a training; how a framework's tensors are counted is the backend's.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import numpy as np

from h3lab import worlds
from h3lab.errors import UsageError, guided
from h3lab.feeds import epochs
from h3lab.feeds.feed import Feed
from h3lab.feeds.report import size
from h3lab.memory import free_memory
from h3lab.pictures import card, table_html
from h3lab.training.foresight import KEPT, Foresight, Held, foresee
from h3lab.training.loop import Training, train
from h3lab.training.validation import ROWS_AT_A_TIME

#: Rows of the two trials; what grows with the rows is the difference.
FEW, MORE = 16, 64
_MOMENTS = ("preparing", "step", "validation", "snapshot")


@dataclass(frozen=True)
class Item:
    """Bytes of one thing. ``when``: ``"always"``, or the time at which it is there beside those: ``"preparing"``,
    ``"step"``, ``"validation"``, ``"snapshot"``. ``a_row``: bytes of them that each row of a batch costs. ``place``:
    ``"memory"``, or a device."""

    name: str
    nbytes: int
    when: str = "always"
    a_row: float = 0.0
    place: str = "memory"
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """What memory a training will need, in each process beside what is imported. ``batch_size``: 0 where the model
    learns from all rows at once.

    ``items``: what takes it. ``free``: bytes that are free, by place. ``peak``: bytes at most at one time, by place.
    ``fits``: whether all do. ``largest_batch_size``: that would fit, no more than there are rows; 0 where none does.
    ``lacking``: what does not fit, in words. Parameters, gradients and the optimizer's state are counted; what a step
    takes beside is measured with a few rows and counted up, as it grows with the rows in most models.
    """

    title: str
    batch_size: int
    rows: int
    items: Sequence[Item]
    free: Mapping[str, float]
    note: str = ""

    @property
    def peak(self) -> dict[str, int]:
        """Bytes at most at one time, by place."""
        return {place: sum(i.nbytes for i in self._at(place)) for place in self.free}

    @property
    def fits(self) -> bool:
        """Whether it fits everywhere."""
        return all(need <= self.free[place] for place, need in self.peak.items())

    @property
    def largest_batch_size(self) -> int:
        """The largest batch, over all ranks, that fits."""
        found = float(self.rows)
        for place, free in self.free.items():
            for moment in _MOMENTS:
                there = [i for i in self.items if i.place == place and i.when in ("always", moment)]
                a_row = sum(item.a_row for item in there)
                fixed = sum(item.nbytes - item.a_row * self.batch_size for item in there)
                if fixed > free:
                    return 0
                found = min(found, (free - fixed) / a_row) if a_row else found
        return int(found)

    @property
    def lacking(self) -> str:
        """What does not fit, and what would; empty where all does."""
        over = {place: need for place, need in self.peak.items() if need > self.free[place]}
        if not over:
            return ""
        words = [f"{size(need)} of {at} are needed, {size(self.free[at])} are free" for at, need in over.items()]
        largest = self.largest_batch_size
        if largest:
            hint = f"A batch of {largest:,} rows fits: batch_size={largest}."
        else:
            most = max(self._at(next(iter(over))), key=lambda item: item.nbytes)
            hint = f"No batch fits; {most.name} alone: {size(most.nbytes)}."
        return f"{'; '.join(words)}. {hint}"

    def _at(self, place: str) -> list[Item]:
        """What lives at the moment when most does."""
        here = [item for item in self.items if item.place == place]
        moments = [[i for i in here if i.when in ("always", when)] for when in _MOMENTS]
        return max(moments, key=lambda items: sum(item.nbytes for item in items))

    def __repr__(self) -> str:
        rows = [_HEADS, *self._cells()]
        widths = [max(len(row[n]) for row in rows) for n in range(len(_HEADS))]
        lines = [f"Plan: {self._head()}"]
        lines += ["  ".join(w.ljust(n) for w, n in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *filter(None, [self.lacking, self.note])])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        foot = "".join(f"<br><small>{escape(line)}</small>" for line in (self.lacking, self.note) if line)
        html = card(f"<b>Plan</b> {escape(self._head())}", table_html(_HEADS, self._cells()) + foot)
        return {"text/plain": repr(self), "text/html": html}

    def _head(self) -> str:
        needs = [f"{size(need)} of {size(self.free[place])} free in {place}" for place, need in self.peak.items()]
        verdict = "fits" if self.fits else "does not fit"
        if not self.batch_size:
            return f"{self.title}, all at once: {verdict} · {' · '.join(needs)}"
        verdict += f", up to batch_size={self.largest_batch_size:,}" if self.fits else ""
        return f"{self.title}, batch_size={self.batch_size:,}: {verdict} · {' · '.join(needs)}"

    def _cells(self) -> list[list[str]]:
        told = [[f"{size(i.a_row)} a row of a batch" if i.a_row else "", i.note] for i in self.items]
        notes = ["; ".join(filter(None, words)) for words in told]
        return [[i.name, size(i.nbytes), i.when, i.place, note] for i, note in zip(self.items, notes, strict=True)]


_HEADS = ["what", "bytes", "when", "where", ""]


@guided
def plan(actor: Any, data: Any, *, memory_bytes: float | None = None, ranks: int = 1, **settings: Any) -> Plan:
    """What memory ``train(actor, data, **settings)`` will need: checks the same, builds the model, and makes two steps
    of a few rows with it. Of rows that are not prepared yet the first 20,000 are, and stand for all.
    ``memory_bytes``: what may be used, where that is not all that is free (and what rows take that are in memory
    already). ``ranks``: of which each has its share of a batch. UsageError where even the model would not fit, before
    it is built."""
    seen = foresee(actor, data, settings)
    training = train(actor, seen.data, ranks=ranks, **seen.settings)
    model, feed = training.model, training.feed
    rows, aside = _rows_of(training, seen)
    backend = worlds.MEMORY.get(worlds.backend_of(model) or "")
    tried: Any = worlds.load(backend) if backend else Python
    place, free = tried.place(model)
    there = rows.there + (0.0 if aside is None else aside.there)  # which is not free, and of the training's
    limits = {"memory": free_memory() + there if memory_bytes is None else float(memory_bytes)}
    limits |= {} if free is None else {place: free}
    least = tried.ahead(model, feed.spec)
    if least is not None and 2 * least > limits[place]:
        raise UsageError(
            f"the parameters of this model have {size(least)}, and gradients have as much; {size(limits[place])} are "
            f"free in {place}. Take a smaller model, or another machine."
        )
    batch_size = min(training.options.batch_size, rows.rows) if model.capabilities.learns == "batches" else 0
    share = -(-batch_size // ranks) or rows.rows
    model.build(feed.spec, training.options.seed)
    items, note = _of_trial(training, tried, place, share / batch_size if batch_size else 0.0, share)
    items += _of_rows(rows, aside, seen.part, share, share / batch_size if batch_size else 0.0)
    if aside is not None:
        answered = _answers(model, tried, feed) * min(aside.rows, ROWS_AT_A_TIME)
        items.append(Item("answers", int(answered + 4 * feed.spec.outputs * aside.rows), "validation", place=place))
    title = f"{training.actor.name!r} on {'about ' * bool(seen.estimated)}{rows.rows:,} rows"
    return Plan(title, batch_size, rows.rows, items, limits, "; ".join(filter(None, [note, *seen.estimated])))


def _rows_of(training: Training, seen: Foresight) -> tuple[Held, Held | None]:
    """(rows to learn from, rows to validate on or None); two views of one feed hold its rows once."""
    feed, held_out = training.feed, training._held_out
    rows = seen.train or Held.of(feed)
    if held_out is None or seen.held_out is not None:
        return rows, seen.held_out
    aside = Held.of(held_out)
    return rows, replace(aside, nbytes=0.0, there=0.0) if held_out._whole is feed._whole else aside


def _of_rows(rows: Held, aside: Held | None, raw: float, share: int, part: float) -> list[Item]:
    """What rows take: those held in memory, and those on their way to the model. ``share``: rows of a batch in this
    process; ``part``: of each row of the whole batch; ``raw``: bytes of a part while it is prepared."""
    at_once = epochs.gathered_at_once(rows.each, rows.parts, share) if part else 1
    gathered, all_rows = rows.each * share * at_once, rows.each * rows.rows
    grows = rows.each * part if rows.each * share * 2 > epochs.CHUNK_BYTES else 0.0
    items = [Item("rows", int(rows.nbytes), note=rows.note)]
    if aside is not None:
        items.append(Item("rows held out", int(aside.nbytes), note=aside.note))
    if raw:
        when = "always" if rows.note == KEPT else "preparing"
        items.append(Item("a part", int(raw), when, note="while it is prepared"))
    items.append(Item("batches", int(min(gathered, all_rows)), "always", grows, note="rows gathered at a time"))
    return [*items, Item("order", 16 * rows.rows, note="of the rows of an epoch")]


def _of_trial(training: Training, tried: Any, place: str, part: float, share: int) -> tuple[list[Item], str]:
    """What the model takes, by place. ``share``: rows of a batch in this process; ``part``: of each row of the whole
    batch."""
    model, options = training.model, training.options
    step, fixed, note = _steps(training, tried)
    known = tried.of_model(model)
    items = [Item(name, known[name], "step" if name == "gradients" else "always", place=place) for name in known]
    taken = int(fixed + step * share)
    name = "activations" if "gradients" in known else "working memory"
    items.append(Item(name, taken, "step", step * part, place, "not known" if note else f"from {FEW} and {MORE} rows"))
    if not part:
        note = note or f"what was learned was counted after {MORE} rows, and grows with them in some models"
    state = sum(known.values()) - known.get("gradients", 0)
    items.append(Item("snapshot", 2 * state, "snapshot", note="copied, and as one piece of bytes"))
    if options.patience is not None:
        items.append(Item("best epoch", known.get("parameters", 0), note="kept by patience"))
    return items, note


def _steps(training: Training, tried: Any) -> tuple[float, float, str]:
    """(bytes a row, bytes in any case, what went wrong) of a step beside parameters and gradients."""
    feed, model = training.feed, training.model
    try:
        model.step(_some(feed, FEW), training.settings)  # the optimizer is made in the first
        few, more = (_some(feed, rows) for rows in (FEW, MORE))
        low, high = (tried.peak(model, lambda batch=b: model.step(batch, training.settings)) for b in (few, more))
    except Exception as error:  # a step of the user's own may want more rows, or other ones
        return 0.0, 0.0, f"a step of a few rows failed, so activations are not known: {type(error).__name__}: {error}"
    a_row = max(0.0, (high - low) / (MORE - FEW))
    return a_row, max(0.0, low - FEW * a_row), ""


def _answers(model: Any, tried: Any, feed: Feed) -> float:
    few, more = (_some(feed, rows).x for rows in (FEW, MORE))
    low, high = (int(tried.peak(model, lambda x=x: model.logits(x))) for x in (few, more))
    return max(0.0, (high - low) / (MORE - FEW))


def _some(feed: Feed, rows: int) -> Any:
    from h3lab.feeds.orders import permutation

    return feed.batch(permutation(len(feed), 0, 0)[np.arange(rows) % len(feed)])


class Python:
    """What a model takes that is none of a framework's: what Python and NumPy allocate."""

    @staticmethod
    def place(model: Any) -> tuple[str, None]:
        return "memory", None

    @staticmethod
    def ahead(model: Any, spec: Any) -> None:
        return None

    @staticmethod
    def of_model(model: Any) -> dict[str, int]:
        parameters = _bytes(model.parameters())
        return {"parameters": parameters, "optimizer": max(0, _bytes(model.state()) - parameters)}

    @staticmethod
    def peak(model: Any, run: Callable[[], Any]) -> int:
        tracing = tracemalloc.is_tracing()
        if not tracing:
            tracemalloc.start()
        try:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            run()
            return max(0, tracemalloc.get_traced_memory()[1] - before)
        finally:
            if not tracing:
                tracemalloc.stop()


def _bytes(tree: Any) -> int:
    """Bytes of the arrays and bytes in a codec tree."""
    if isinstance(tree, Mapping):
        return sum(map(_bytes, tree.values()))
    if isinstance(tree, list | tuple):
        return sum(map(_bytes, tree))
    return int(tree.nbytes) if isinstance(tree, np.ndarray) else len(tree) if isinstance(tree, bytes) else 0
