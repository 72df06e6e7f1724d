"""Fitness: whether a model, its data and what was asked of them go together, said before the first step.

It knows capabilities and specs; it does not know how anything is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from h3lab.errors import DataError, H3labError, ModelError, SpecMismatch, UnknownName, UsageError
from h3lab.feeds.feed import Feed
from h3lab.feeds.orders import Order
from h3lab.model import Capabilities, Model
from h3lab.options import Options
from h3lab.settings import Setting, whole
from h3lab.spec import Spec
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


def check_actor(actor: Any) -> None:
    """UsageError for what is no actor, or has no name."""
    if not all(hasattr(actor, name) for name in ("name", "model", "pipeline", "adopt")):
        hint = 'h3.Actor("digits", model)'
        raise UsageError(f"a {type(actor).__name__} came as actor; expected for example {hint}, before the data.")
    if not isinstance(actor.name, str) or not actor.name:
        raise UsageError(f"name={actor.name!r} came; expected text, for example Actor('digits', model).")


def check(
    can: Capabilities,
    feed: Feed,
    held_out: Feed | None,
    options: Options,
    transfer: Distill | None,
    share: tuple[int, int],
) -> None:
    """UsageError for what this model cannot do with this data. ``share``: rank and ranks."""
    ranks = whole("ranks", share[1], 1)
    if not 0 <= whole("rank", share[0], 0) < ranks:
        raise UsageError(f"rank={share[0]} of ranks={ranks} came; ranks count from 0.")
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
    if not can.weights and options.sampling != "weighted" and feed.batch(slice(0, 1)).weight is not None:
        raise UsageError(
            "the rows have weights, and this model takes none. Leave the weights out, or take another model."
        )
    if options.patience is not None and held_out is None and options.monitor.startswith("val_"):
        raise UsageError(
            f"patience={options.patience} waits for {options.monitor!r}, and there are no rows to validate on. Add "
            "validation=0.1, or monitor='loss'."
        )
    _check_draws(can, feed, options)
    check_metrics(options.metrics, feed.spec, can.probabilities)


def _check_draws(can: Capabilities, feed: Feed, options: Options) -> None:
    asked = {name: getattr(options, name) for name in ("sampling", "bucket")}
    for name, value in asked.items():
        if value and can.learns != "batches":
            hint = " class_weight='balanced' weighs them." if name == "sampling" else ""
            raise UsageError(
                f"{name}={value!r} came, and this model learns from all rows at once, not in batches.{hint}"
            )
    # What is wrong with these rows is said before the first step, and by whoever starts a run.
    Order(options.shuffle, **asked).check(feed)


def begin_with(model: Model, spec: Spec, seed: int, start: Any) -> None:
    """Build a model that begins with the parameters of an actor that has learned. UsageError for anything else, and
    where a fit would forget them; SpecMismatch for other classes; ModelError where they do not fit."""
    if not getattr(start, "learned", False):
        raise UsageError(f"start={start!r} came; expected an actor that has learned, or a run.")
    known, keeps = start.spec_, any(v is True for n, v in model.get_params().items() if n.endswith("warm_start"))  # type: ignore[attr-defined]
    if model.capabilities.learns == "whole" and not keeps:
        raise UsageError(
            f"start={start.name!r} came, and {model!r} learns in one fit, which forgets what was there. Leave start "
            "out, or take an estimator with partial_fit or warm_start=True."
        )
    if (known.task, known.labels) != (spec.task, spec.labels):
        raise SpecMismatch(
            f"start={start.name!r} has learned {known} {known.labels or ''}, and these rows are {spec} "
            f"{spec.labels or ''}. A training continues with the classes that it began with; leave start out."
        )
    model.build(spec, seed)
    try:
        model.load_parameters(start.model_.parameters())
    except H3labError as error:
        raise ModelError(
            f"start={start.name!r} does not fit this model: {error} Take an actor of the same architecture, or leave "
            "start out."
        ) from error


def class_weights(
    asked: str | Mapping[Any, float] | None, feed: Feed, can: Capabilities, options: Options
) -> np.ndarray | None:
    """(classes,) weight of each class code: ``"balanced"`` is rows / (classes · rows of the class), as in scikit-learn;
    a dict by label counts a missing one as 1."""
    if asked is None:
        return None
    if options.sampling == "balanced":
        raise UsageError(
            f"class_weight={asked!r} came with sampling='balanced': rare classes would count twice. Take one of them."
        )
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
            Setting(f"class_weight[{label!r}]", float, 1.0, low=0.0).check(weight)
            found[known.index(label)] = weight
        return found
    if asked != "balanced":
        raise UsageError(
            f"class_weight={asked!r} came; expected 'balanced', or a dict from label to weight, {{label: 2.0}}."
        )
    counts = np.zeros(len(spec.labels), np.int64)
    for batch in feed.epoch(0, batch_size=ROWS_AT_A_TIME, shuffle=False, copy=False):
        counts += np.bincount(np.asarray(batch.y), minlength=len(counts))
    return len(feed) / (len(counts) * np.maximum(counts, 1))
