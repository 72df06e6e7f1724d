"""Schedule: which rows come at which step of a training.

It knows how a model learns (by batches, by increments, whole), epochs and shares; it does not know what is learned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from h3lab.batch import Batch
from h3lab.feeds.feed import Feed
from h3lab.model import Capabilities
from h3lab.options import Options


@dataclass(frozen=True, eq=False)
class Schedule:
    """The epochs of a feed for a model of these capabilities. ``class_weight``: (classes,) or None. ``rank`` of
    ``ranks`` gets its share of each batch."""

    feed: Feed
    can: Capabilities
    options: Options
    class_weight: np.ndarray | None = None
    rank: int = 0
    ranks: int = 1

    @property
    def epochs(self) -> int:
        """Epochs in all. A model may have an end of its own (the number of its estimators, or one pass where a second
        would count rows twice), which holds unless epochs were given."""
        if self.can.learns == "whole":
            return 1
        own = self.can.steps if self.can.learns == "increments" else self.can.epochs
        return self.options.epochs if own is None or self.options.epochs_given else own

    @property
    def steps_per_epoch(self) -> int:
        """One where a model sees all rows at once."""
        return self.feed.steps(self.options.batch_size) if self.can.learns == "batches" else 1

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch (from 1) from number ``start`` (from 0); each holds until the next."""
        if self.can.learns != "batches":
            batches = iter([] if start else [self._whole])
        else:
            batches = self.feed.epoch(
                epoch,
                batch_size=self.options.batch_size,
                seed=self.options.seed,
                rank=self.rank,
                ranks=self.ranks,
                shuffle=self.options.shuffle,
                sampling=self.options.sampling,
                bucket=self.options.bucket,
                start=start,
                copy=False,
            )
        if self.can.places:
            # Not for every model: a copy costs a microsecond, a hundredth of a small step.
            batches = (replace(batch, place=(epoch, number)) for number, batch in enumerate(batches, start))
        return batches if self.class_weight is None else map(self._weighted, batches)

    @cached_property
    def _whole(self) -> Batch:
        # An ensemble that grows by a member a step sees the same rows each time.
        return self.feed.batch(slice(None))

    def _weighted(self, batch: Batch) -> Batch:
        assert self.class_weight is not None
        weight = self.class_weight[batch.y]
        return replace(batch, weight=weight if batch.weight is None else weight * batch.weight)
