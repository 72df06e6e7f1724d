"""Training: a model's way through the epochs of a feed, as an iterator of records that the caller drives.

It knows steps, epochs, validation and snapshots; it does not know frameworks, processes or screens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any

from h3lab import brief, estimator, worlds
from h3lab.batch import Batch
from h3lab.errors import UsageError, guided
from h3lab.feeds.feed import Feed
from h3lab.feeds.orders import Order, settled
from h3lab.model import Model
from h3lab.options import Options
from h3lab.records import Record
from h3lab.settings import Settings
from h3lab.training import fitness, intake, resuming, validation, ways
from h3lab.training.nonfinite import lost
from h3lab.training.patience import Patience
from h3lab.training.pending import Pending
from h3lab.training.schedule import Schedule
from h3lab.training.threads import Threads
from h3lab.transfer import Distill


@guided
def train(
    actor: Any,
    data: Any,
    *,
    transfer: Distill | None = None,
    start: Any = None,
    class_weight: str | Mapping[Any, float] | None = None,
    rank: int = 0,
    ranks: int = 1,
    **settings: Any,
) -> Training:
    """Train an actor in this process: ``for record in h3.train(actor, (X, y), epochs=3): ...``

    ``data``: a Feed, (X, y), (X, y, weight), or raw rows where the actor has a pipeline. ``transfer``: a Distill.
    ``start``: an actor or run of the same model and classes, whose parameters to begin with. ``class_weight``:
    ``"balanced"`` or a dict by label.
    ``settings`` override the actor's for this training: ``epochs``, ``batch_size``, ``validation`` (a fraction, a feed,
    (X, y) or raw rows), ``patience``, ``monitor``, ``metrics``, ``seed``, ``threads``; how rows are drawn:
    ``sampling`` (``"balanced"``, ``"weighted"``), ``bucket`` (True or a block's name), ``shuffle`` (``"rows"``,
    ``"blocks"``, False), as in :meth:`Feed.epoch`; and the model's and the transfer's own (``lr``, ``temperature``,
    ...); where data is raw, ``on_null_label="drop"`` leaves out rows without a label, prepare's other choices hold
    too, and ``prepare="stream"`` prepares each row when it is due: nothing is stored, and memory does not grow with
    the rows. ``rank`` of ``ranks``: this process's share of each batch.

    Records have ``step`` and ``epoch`` (both from 1), ``seconds``, ``loss`` and what else the model tells; the last one
    of an epoch also ``val_loss``, ``val_accuracy``, ``val_<metric>``. Raises UnknownName, SpecMismatch, NonFiniteLoss.
    """
    from sklearn.base import clone

    actor = intake.actor_of(actor)
    fitness.check_actor(actor)
    given, _ = estimator.apart(actor.model, actor.pipeline)
    model: Model = clone(worlds.wrap(given), safe=False)
    steerable = [*model.settings, *fitness.settings_of(transfer)]
    chosen, settings = ways.choices(settings)
    options, values = Options.of(actor, settings, steerable)
    feed, held_out = intake.feeds(actor, data, options, chosen)
    options = replace(options, shuffle=settled(feed, Order(options.shuffle)).shuffle)
    fitness.check(model.capabilities, feed, held_out, options, transfer, (rank, ranks))
    weights = fitness.class_weights(class_weight, feed, model.capabilities, options)
    schedule = Schedule(feed, model.capabilities, options, weights, rank, ranks)
    if start is not None:
        fitness.begin_with(model, feed.spec, options.seed, intake.actor_of(start))
    return Training(actor, model, schedule, held_out, Settings(steerable, **values), transfer, fresh=start is None)


@guided
class Training:
    """One training, to be iterated; each record comes after its step. See :func:`train`.

    ``actor`` answers with what was learned so far from the first record on. ``settings`` may be replaced at any time,
    and are read once a step. ``step`` and ``epoch`` count what is done; ``stopped_at`` is the step at which the
    training was stopped before its end. ``before_step``, where it is set, is called with the training before each step.
    """

    def __init__(
        self,
        actor: Any,
        model: Model,
        schedule: Schedule,
        held_out: Feed | None,
        settings: Settings,
        transfer: Distill | None = None,
        fresh: bool = True,
    ) -> None:
        self.actor, self.model, self.feed, self.options = actor, model, schedule.feed, schedule.options
        self.before_step: Callable[[Training], None] | None = None
        self.step, self.epoch = 0, 0
        self.stopped_at: int | None = None
        self._settings = settings
        self._held_out, self._transfer, self._fresh = held_out, transfer, fresh
        self._patience = Patience.of(self.options)
        self._schedule = schedule
        self._position = 0  # batches of this epoch that are done
        self._before = 0.0  # seconds before the snapshot that this continues
        self._pending = Pending()
        self._state = "new"
        self._last: Record = {}
        self._records = self._run()

    @property
    def settings(self) -> Settings:
        """What steers this training: ``training.settings = training.settings.replace(lr=1e-4)``."""
        return self._settings

    @settings.setter
    def settings(self, new: Settings) -> None:
        if not isinstance(new, Settings):
            raise UsageError(f"settings={new!r} came; expected training.settings.replace(lr=...).")
        self._settings = new if self._transfer is None else self._transfer.settle(self._settings, new)

    @property
    def epochs(self) -> int:
        """Epochs in all; the model's own number of them where it has one and none was given."""
        return self._schedule.epochs

    @property
    def total_steps(self) -> int:
        """Steps until the end, without regard to patience."""
        return self.epochs * self._schedule.steps_per_epoch

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        return next(self._records)

    def stop(self) -> None:
        """End now; the actor keeps what was learned (with patience, the best epoch). Twice is fine."""
        if self._state == "new":
            self._state, self.stopped_at = "stopped", 0
        self._records.close()

    close = stop

    def snapshot(self) -> dict[str, Any]:
        """All that :meth:`restore` needs to go on bit-equal, as a codec tree; between two records."""
        self._begin()
        return {
            "step": self.step,
            "epoch": self.epoch,
            "position": self._position,
            "seconds": self._clock() if self._state == "training" else self._before,
            "order": resuming.standing(self._schedule),
            "settings": dict(self._settings),
            "model": self.model.state(),
            "patience": None if self._patience is None else self._patience.state(),
            "pending": [dict(record) for record in self._pending.records],
        }

    def restore(self, tree: Mapping[str, Any]) -> None:
        """Go on where a snapshot of the same actor and data was taken; before the first record. UsageError where the
        rows are others, or would come in another order in the midst of an epoch (other ``batch_size``, ``seed``,
        ``shuffle``, ``sampling`` or ``bucket``)."""
        if self._state not in ("new", "ready"):
            raise UsageError("this training has begun; restore a snapshot into a new one: h3.train(...).restore(tree).")
        if not isinstance(tree, Mapping) or "order" not in tree:
            raise UsageError(f"a {type(tree).__name__} came; expected what training.snapshot() gave.")
        schedule, position = resuming.resumed(self._schedule, tree)
        self._schedule, self.options = schedule, schedule.options
        self._begin()
        self.model.load_state(tree["model"])
        self.step, self.epoch, self._position = tree["step"], tree["epoch"], position
        self._before = tree["seconds"]
        self._settings = Settings(self._settings.declared, **tree["settings"])
        self._pending.records = list(tree["pending"])
        if self._patience is not None and tree["patience"] is not None:
            self._patience.load_state(tree["patience"])

    def result(self) -> dict[str, Any] | None:
        """What an actor needs to answer like the trained one, as a codec tree; None before the first step."""
        return {"step": self.step, "model": dict(self.model.parameters())} if self.step else None

    def _run(self) -> Generator[Record, None, None]:
        try:
            self._begin()
            self._threads = Threads(self.options.threads)
            self._began = time.perf_counter()
            self._state = "training"
            yield from self.fetch()
            yield from self._epochs()
            self._state = "finished"
        except GeneratorExit:
            ended = self.step >= self.total_steps and not self._pending.records
            self._state, self.stopped_at = ("finished", None) if ended else ("stopped", self.step)
            raise
        except BaseException:
            self._state = "failed"
            raise
        finally:
            if self._patience is not None and self._patience.parameters is not None:
                self.model.load_parameters(self._patience.parameters)

    def _epochs(self) -> Iterator[Record]:
        self.epoch = max(self.epoch, 1)
        while True:
            for batch in self._schedule.batches(self.epoch, self._position):
                record = self._advance(batch)
                if not self._schedule.can.asynchronous:
                    self._check_finite(record, batch)
                    yield record
                    continue
                self._pending.append(record)
                if self._position == self._schedule.steps_per_epoch or self._pending.due():
                    yield from self.fetch()
            patient = self._patience is None or not self._patience.exhausted
            if self.epoch >= self.epochs or not patient:
                return
            self.epoch, self._position = self.epoch + 1, 0

    def _advance(self, batch: Batch) -> Record:
        if self.before_step is not None:
            self.before_step(self)
        with self._threads():
            metrics = self.model.step(batch, self._settings)
            self.step += 1
            self._position += 1
            record = {"step": self.step, "epoch": self.epoch, "seconds": self._clock(), **metrics}
            if self._position == self._schedule.steps_per_epoch:
                self._end_epoch(record)
        return record

    def _end_epoch(self, record: Record) -> None:
        if self._held_out is not None:
            scores = validation.measure(self.model, self._held_out, self.options.metrics)
            record.update({f"val_{name}": value for name, value in scores.items()})
        if self._patience is not None:
            self._patience.look(record, self.model.parameters)

    def _check_finite(self, record: Record, batch: Batch | None = None) -> None:
        self._last = record
        if not math.isfinite(record.get("loss", 0.0)):
            raise lost(self.actor.name, record, batch, self.model)

    def fetch(self) -> Iterator[Record]:
        """Records of steps that are done and whose metrics were still on a device; iterating gives them next."""
        for record in self._pending.fetched():
            self._check_finite(record)
            yield record

    def _clock(self) -> float:
        return self._before + time.perf_counter() - self._began

    def _begin(self) -> None:
        if self._state != "new":
            return
        if self._transfer is not None:
            self._schedule = replace(self._schedule, feed=self._transfer.taught(self.feed))
        if self._fresh:
            self.model.build(self.feed.spec, self.options.seed)
        self.actor.adopt(self.model, self.feed.spec, self.feed.pipeline)
        self._state = "ready"

    def __repr__(self) -> str:
        name = brief.word(self.actor.name)
        size = f"{self.epochs} epochs of {self._schedule.steps_per_epoch} steps"
        if self._state in ("new", "ready"):
            return f"Training of {name}: {size}. Iterate it: for record in training: ..."
        loss = f", loss {self._last['loss']:.4g}" if "loss" in self._last else ""
        return f"Training of {name}: {self._state} at epoch {self.epoch} of {size}, step {self.step}{loss}"
