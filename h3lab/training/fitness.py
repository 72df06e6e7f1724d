"""Fitness: whether a model, its data and what was asked of them go together, said before the first step.

It knows capabilities and specs; it does not know how anything is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from h3lab.errors import DataError, UnknownName, UsageError
from h3lab.feeds.feed import Feed
from h3lab.model import Capabilities
from h3lab.options import Options
from h3lab.settings import Setting
from h3lab.training.metrics import check_metrics
from h3lab.training.validation import ROWS_AT_A_TIME
from h3lab.transfer import Distill


def settings_of(transfer: Distill | None) -> tuple[Setting, ...]:
    """What a transfer lets a caller set; none without one."""
    if transfer is None:
        return ()
    if not isinstance(transfer, Distill):
        raise UsageError(f"transfer={transfer!r} came; expected h3.Distill(teacher).")
    return transfer.settings


def check(
    can: Capabilities, feed: Feed, held_out: Feed | None, options: Options, transfer: Distill | None, ranks: int
) -> None:
    """UsageError for what this model cannot do with this data."""
    if ranks > 1 and not can.ranks:
        raise UsageError(f"ranks={ranks} came, and this model trains in one process alone. Leave ranks out.")
    if not feed.spec.outputs:
        raise DataError("these rows have no label, so there is nothing to learn. Name it: Pipeline(..., label=...).")
    if transfer is not None and transfer.loss not in can.soft_targets:
        known = ", ".join(can.soft_targets) or "none"
        raise UsageError(
            f"Distill(loss={transfer.loss!r}) came, and this model learns from a teacher by: {known}. A TorchModel "
            "does, unless it has a step of its own."
        )
    if not can.weights and feed.batch(slice(0, 1)).weight is not None:
        raise UsageError(
            "the rows have weights, and this model takes none. Leave the weights out, or take another model."
        )
    if options.patience is not None and held_out is None and options.monitor.startswith("val_"):
        raise UsageError(
            f"patience={options.patience} waits for {options.monitor!r}, and there are no rows to validate on. Add "
            "validation=0.1, or monitor='loss'."
        )
    check_metrics(options.metrics, feed.spec)


def class_weights(asked: str | Mapping[Any, float] | None, feed: Feed, can: Capabilities) -> np.ndarray | None:
    """(classes,) weight of each class code: ``"balanced"`` is rows / (classes · rows of the class), as in scikit-learn;
    a dict by label counts a missing one as 1."""
    if asked is None:
        return None
    spec = feed.spec
    if spec.labels is None or not can.weights:
        what = "this model takes no weights" if spec.labels is not None else "a regression has no classes"
        raise UsageError(f"class_weight={asked!r} came, and {what}.")
    if isinstance(asked, Mapping):
        known = list(spec.labels)
        found = np.ones(len(known))
        for label, weight in asked.items():
            if label not in known:
                raise UnknownName("class", label, known)
            found[known.index(label)] = weight
        return found
    if asked != "balanced":
        raise UsageError(f"class_weight={asked!r} came; expected 'balanced', or a dict from label to weight.")
    counts = np.zeros(len(spec.labels), np.int64)
    for batch in feed.epoch(0, batch_size=ROWS_AT_A_TIME, shuffle=False, copy=False):
        counts += np.bincount(np.asarray(batch.y), minlength=len(counts))
    return len(feed) / (len(counts) * np.maximum(counts, 1))
