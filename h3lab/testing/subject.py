"""The subject of a conformance suite: a model's factory and easy data whose answers can be derived.

It knows what a training gives a model; it does not know what is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from h3lab.batch import Batch
from h3lab.errors import UnknownName
from h3lab.feeds.feed import Feed
from h3lab.model import Model
from h3lab.settings import Setting, Settings
from h3lab.spec import Task

Factory = Callable[[], Model]


@dataclass(frozen=True)
class Subject:
    """``factory`` makes the model, unbuilt and always the same; ``feed`` is what it learns from, in batches of
    ``batch_size`` for at most ``epochs``. ``noisy``: its outputs while it learns differ from its logits (dropout, batch
    normalisation). ``random``: another seed gives another model."""

    factory: Factory
    feed: Feed
    batch_size: int = 30
    epochs: int = 25
    noisy: bool = False
    random: bool = False

    def built(self, seed: int = 7) -> Model:
        model = self.factory()
        model.build(self.feed.spec, seed)
        return model

    def settings(self, model: Model, **values: Any) -> Settings:
        """The model's own, with those of a transfer beside them."""
        transfer = [Setting(name, float, 1.0, low=0.0) for name in ("temperature", "soft", "hard")]
        return Settings([*model.settings, *transfer], **values)

    def batches(self, model: Model, count: int | None = None, start: int = 0) -> Iterator[Batch]:
        """What a training gives the model, from step ``start`` on."""
        has = model.capabilities
        if has.learns == "batches":
            epochs = min(self.epochs, has.epochs or self.epochs)
            found = (
                batch
                for epoch in range(1, epochs + 1)
                for batch in self.feed.epoch(epoch, batch_size=self.batch_size, seed=1)
            )
        else:
            steps = 1 if has.learns == "whole" else min(has.steps or self.epochs, self.epochs)
            found = (self.feed.batch(slice(None)) for _ in range(steps))
        for number, batch in enumerate(found):
            if number >= start and (count is None or number < start + count):
                yield batch

    def trained(self, model: Model, count: int | None = None, start: int = 0, **values: Any) -> list[dict[str, float]]:
        """The metrics of each step."""
        settings = self.settings(model, **values)
        return [floats(model.step(batch, settings)) for batch in self.batches(model, count, start)]

    @property
    def x(self) -> Any:
        return self.feed.batch(slice(None)).x

    @property
    def y(self) -> np.ndarray:
        y = self.feed.batch(slice(None)).y
        assert y is not None
        return y


def easy_feed(task: Task = "classification", rows: int = 120, sparse: bool = False) -> Feed:
    """Four columns that tell three classes (``"a"``, ``"b"``, ``"c"``) apart, or one target, nearly without noise."""
    if task not in ("classification", "regression"):
        raise UnknownName("task", task, ["classification", "regression"])
    random = np.random.default_rng(5)
    codes = np.arange(rows) % 3
    x = random.normal(size=(rows, 4)) * 0.4
    if task == "classification":
        x[np.arange(rows), codes] += 2.0
        y: Any = np.array(["a", "b", "c"])[codes]
    else:
        y = x @ np.array([2.0, -1.0, 0.5, 0.0]) + 0.3
    x = x.astype(np.float32)
    if sparse:
        from scipy.sparse import csr_matrix

        return Feed.of(csr_matrix(np.maximum(x, 0)), y)
    return Feed.of(x, y)


def teacher_of(x: Any, classifies: bool) -> np.ndarray:
    """A linear teacher, whose answers any linear student can give."""
    x = np.asarray(x.toarray() if hasattr(x, "toarray") else x, np.float64)
    if classifies:
        return np.asarray(1.5 * x[:, :3])
    return np.asarray(x @ np.array([1.0, 1.0, 0.0, 0.0]))[:, None]


def floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
