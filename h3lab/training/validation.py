"""Validation: what a model's answers are worth, measured on a feed.

It knows logits and labels; it does not know how a model learns, nor when it is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from h3lab.batch import Inputs
from h3lab.errors import DataError, SpecMismatch, UnknownName
from h3lab.feeds.feed import Feed
from h3lab.model import Model
from h3lab.spec import Spec

#: Rows that are answered at a time.
ROWS_AT_A_TIME = 8192

Metric = str | Callable[..., Any]


def logits_of(model: Model, feed: Feed) -> np.ndarray:
    """(rows, outputs) logits of a whole feed, in its order."""
    batches = feed.epoch(0, batch_size=ROWS_AT_A_TIME, shuffle=False, copy=False)
    return np.concatenate([model.logits(batch.x) for batch in batches])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities in float64, (rows, classes)."""
    shifted = logits - logits.max(axis=1, keepdims=True).astype(np.float64)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


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
    return score(logits_of(model, feed), y, weight, feed.spec, metrics, model.capabilities.loss)


def score(
    logits: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None,
    spec: Spec,
    metrics: Sequence[Metric] = (),
    loss: Callable[[np.ndarray, np.ndarray], Any] | None = None,
) -> dict[str, float]:
    """As :func:`measure`, from answers."""
    values = np.asarray((loss or _loss_of(spec))(logits, y))
    found = {"loss": float(np.average(values, weights=weight) if values.ndim else values)}
    if spec.task == "classification":
        found["accuracy"] = float(np.average(logits.argmax(axis=1) == y, weights=weight))
    if metrics:
        answers = _answers(logits, spec)
        truth = spec.decode(y)
        for metric in metrics:
            found[name_of(metric)] = _one(metric, answers, truth, weight)
    return found


def _loss_of(spec: Spec) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    if spec.task == "classification":
        return lambda logits, y: -log_softmax(logits)[np.arange(len(y)), y]
    return lambda logits, y: np.square(logits.astype(np.float64) - y.reshape(logits.shape)).mean(axis=1)


def name_of(metric: Metric) -> str:
    """The column of a metric."""
    return metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)


def check_metrics(metrics: Sequence[Metric]) -> None:
    """UnknownName for a scorer that scikit-learn does not have."""
    if any(isinstance(metric, str) for metric in metrics):
        from sklearn.metrics import get_scorer_names

        for metric in metrics:
            if isinstance(metric, str) and metric not in get_scorer_names():
                raise UnknownName("metric", metric, get_scorer_names())


def rises(metric: str) -> bool:
    """Whether more of a metric is better. scikit-learn's scorers are all so; losses and errors are not."""
    name = metric.removeprefix("val_")
    return name.startswith("neg_") or not ("loss" in name or "error" in name)


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


def _one(metric: Metric, answers: Any, truth: np.ndarray, weight: np.ndarray | None) -> float:
    from sklearn.metrics import get_scorer

    scorer = get_scorer(metric) if isinstance(metric, str) else metric
    # A scorer asks an estimator; a plain metric compares two arrays.
    if hasattr(scorer, "_score_func"):
        options = {} if weight is None else {"sample_weight": weight}
        return float(scorer(answers, answers.rows, truth, **options))
    return float(scorer(truth, answers.predict(answers.rows)))


def _answers(logits: np.ndarray, spec: Spec) -> Any:
    """An estimator that has answered already, for scikit-learn's scorers."""
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    class Regressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
        rows = np.empty((len(logits), 0))

        def fit(self, X: Inputs, y: Any = None) -> Any:
            return self

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def predict(self, X: Inputs) -> np.ndarray:
            return predictions(logits, spec)

    class Classifier(ClassifierMixin, Regressor):  # type: ignore[misc]
        classes_ = np.asarray(spec.labels)

        def predict_proba(self, X: Inputs) -> np.ndarray:
            return probabilities(logits)

        def decision_function(self, X: Inputs) -> np.ndarray:
            return decisions(logits)

    return Regressor() if spec.task == "regression" else Classifier()


def predictions(logits: np.ndarray, spec: Spec) -> np.ndarray:
    """Labels as they stood in the source; in regression (rows,), or (rows, targets) where there are several."""
    if spec.task == "classification":
        return spec.decode(logits.argmax(axis=1))
    values = logits.astype(np.float64)
    return values[:, 0] if spec.outputs == 1 else values


def probabilities(logits: np.ndarray) -> np.ndarray:
    """(rows, classes), each row summing to one."""
    return np.asarray(np.exp(log_softmax(logits)))


def decisions(logits: np.ndarray) -> np.ndarray:
    """(rows, classes), or with two classes (rows,): how far the second is ahead."""
    return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits
