"""Validation: what a model's answers are worth, measured on a feed.

It knows logits and labels; it does not know how a model learns, nor when it is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from h3lab.batch import Inputs
from h3lab.errors import DataError, SpecMismatch
from h3lab.feeds.feed import Feed
from h3lab.model import Capabilities, Model
from h3lab.spec import Spec
from h3lab.training.answers import log_softmax
from h3lab.training.metrics import Metric, measured

#: Rows that are answered at a time.
ROWS_AT_A_TIME = 8192
ORDINARY = Capabilities()


def logits_of(model: Model, feed: Feed) -> np.ndarray:
    """(rows, outputs) logits of a whole feed, in its order."""
    batches = feed.epoch(0, batch_size=ROWS_AT_A_TIME, shuffle=False, copy=False)
    return np.concatenate([model.logits(batch.x) for batch in batches])


def labels_of(feed: Feed) -> tuple[np.ndarray, np.ndarray | None]:
    """(codes or floats, weights) of a whole feed, in its order; DataError where it has no labels."""
    batches = feed.epoch(0, batch_size=ROWS_AT_A_TIME, shuffle=False)
    pairs = [(batch.y, batch.weight) for batch in batches]
    if pairs[0][0] is None:
        raise DataError("these rows have no label, so answers cannot be compared with it. Add the label column, or y.")
    weights = None if pairs[0][1] is None else np.concatenate([w for _, w in pairs])  # type: ignore[misc]
    return np.concatenate([y for y, _ in pairs]), weights  # type: ignore[misc]


def measure(model: Model, feed: Feed, metrics: Sequence[Metric] = ()) -> dict[str, float]:
    """``loss`` (the model's own; cross entropy in nats or mean squared error where it has none), ``accuracy`` in
    classification, and each metric by its name; means over rows, weighted where the feed has weights."""
    y, weight = labels_of(feed)
    return score(logits_of(model, feed), y, weight, feed.spec, metrics, model.capabilities)


def score(
    logits: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None,
    spec: Spec,
    metrics: Sequence[Metric] = (),
    can: Capabilities = ORDINARY,
) -> dict[str, float]:
    """As :func:`measure`, from answers of a model with these capabilities."""
    values = np.asarray((can.loss or _loss_of(spec))(logits, y))
    found = {"loss": float(np.average(values, weights=weight) if values.ndim else values)}
    if spec.task == "classification":
        found["accuracy"] = float(np.average(logits.argmax(axis=1) == y, weights=weight))
    if metrics:
        found |= measured(metrics, logits, y, weight, spec, can.probabilities)
    return found


def _loss_of(spec: Spec) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    if spec.task == "classification":
        return lambda logits, y: -log_softmax(logits)[np.arange(len(y)), y]
    return lambda logits, y: np.square(logits.astype(np.float64) - y.reshape(logits.shape)).mean(axis=1)


def check_same(feed: Feed, spec: Spec, what: str) -> None:
    """SpecMismatch where a feed is not like the one that a model was built for."""
    if feed.spec.labels != spec.labels and feed.spec.outputs:
        raise SpecMismatch(
            f"{what} has the classes {feed.spec.labels}, the model {spec.labels}. Prepare both with the same fitted "
            "pipeline: lab.prepare(feed.pipeline, rows)."
        )
    if feed.spec.features != spec.features or feed.spec.shape != spec.shape:
        raise SpecMismatch(
            f"{what} has {feed.spec.features} features (rows of shape {feed.spec.shape}), the model expects "
            f"{spec.features} (rows of shape {spec.shape})."
        )


def check_shape(x: Inputs, spec: Spec) -> None:
    """SpecMismatch where prepared inputs are not of the shape that a model was built for."""
    came = {n: b.shape[1:] for n, b in x.items()} if isinstance(x, Mapping) else tuple(x.shape[1:])
    known = {n: b.shape for n, b in spec.blocks.items()} if isinstance(x, Mapping) else spec.shape
    if came != known:
        raise SpecMismatch(f"rows of shape {came} came; this model was built for rows of shape {known}.")
