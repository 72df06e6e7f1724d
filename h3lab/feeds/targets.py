"""Targets: the labels of a prepared feed read as a model wants them, whole numbers as quantities or as classes.

It knows codes, labels and quantities; it does not know models, nor where the feed came from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from h3lab.batch import Batch
from h3lab.feeds.feed import Feed
from h3lab.feeds.rows import Rows, digest
from h3lab.spec import Spec, Task


def for_task(feed: Feed, task: Task | None) -> Feed:
    """The feed for a model of this task, where its pipeline left the task to the label: numbers that are classes
    become quantities, whole quantities become classes. Any other feed stays as it is."""
    if task is None or task == feed.spec.task or not feed.spec.outputs:
        return feed
    if feed.pipeline is None or feed.pipeline.task is not None:
        return feed
    if task == "regression":
        quantities = replace(feed.spec, task=task, outputs=1, classes=None, labels=None)
        return like(feed, quantities)
    values = feed.targets()
    if values is None or values.ndim > 1 or (values != np.floor(values)).any():
        return feed  # quantities, which no classifier learns; it says so itself
    labels = tuple(np.unique(values).tolist())
    return like(feed, replace(feed.spec, task=task, outputs=len(labels), classes=len(labels), labels=labels))


def like(feed: Feed, spec: Spec) -> Feed:
    """The feed with its labels as ``spec`` has them, where only the task differs and both are numbers; else itself."""
    if feed.spec.task == spec.task or not feed.spec.outputs:
        return feed
    classes, quantities = (feed.spec, spec) if spec.task == "regression" else (spec, feed.spec)
    known = np.asarray(classes.labels)
    if known.dtype.kind not in "biuf" or quantities.outputs > 1:
        return feed
    if feed.parent is not None:
        return like(feed._whole, spec).select(feed._picked)
    told = replace(spec, features=feed.spec.features, shape=feed.spec.shape, blocks=feed.spec.blocks)
    change = known.astype(np.float64).__getitem__ if spec.task == "regression" else spec.encode
    pipeline = feed.pipeline
    if pipeline is not None:
        pipeline = pipeline.with_fitted(replace(pipeline.state, spec=told))
    rows = feed._rows

    def one(number: int, name: str) -> Any:
        column = rows._one(number, name)
        return change(column) if name == "y" and column is not None else column

    lengths = np.diff(rows.starts).tolist()
    changed = Feed(Rows(_Parts(rows.parts, change), lengths, rows.nbytes, one, rows.window), told, pipeline=pipeline)
    changed._fingerprint = digest("targets", told.to_json(), feed.fingerprint)
    return changed


class _Parts(Sequence[Batch]):
    """The parts of a feed, which may be read when they are asked for, with other targets."""

    def __init__(self, parts: Sequence[Batch], change: Callable[[Any], Any]) -> None:
        self._parts, self._change = parts, change
        self._changed: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(len(self)))]
        part = self._parts[number]
        if number not in self._changed:  # a part is asked for with every few batches
            self._changed[number] = self._change(part.y)
        return replace(part, y=self._changed[number])
