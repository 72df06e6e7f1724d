"""Metrics: scikit-learn's scorers by name, and functions of one's own, measured on answers that are there already.

It knows their names, their direction and what they ask for; it does not know models or feeds.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from h3lab.batch import Inputs
from h3lab.errors import UnknownName, UsageError
from h3lab.spec import Spec
from h3lab.training.answers import decisions, predictions, probabilities

Metric = str | Callable[..., Any]

#: Words in the names of metrics of which less is better; the short ones only as words of their own.
_FALLING, _FALLING_WORDS = ("loss", "error", "deviance", "perplexity"), {"mae", "mse", "rmse", "mape", "cost"}
#: Columns of every validation, which a metric may not take.
_TAKEN = ("loss",)
#: Above so many classes a rehearsal would cost more than it saves.
_REHEARSED_CLASSES = 200


def name_of(metric: Metric) -> str:
    """The column of a metric: a scorer's name, or a function's. A scorer that turns a function's sign has ``neg_``
    before it, as scikit-learn's own."""
    if isinstance(metric, str):
        return metric
    if hasattr(metric, "_score_func"):
        turned = "neg_" if getattr(metric, "_sign", 1) < 0 else ""
        return turned + name_of(metric._score_func)
    if isinstance(metric, functools.partial):
        return name_of(metric.func)
    return str(getattr(metric, "__name__", type(metric).__name__)).strip("<>")


def rises(metric: str) -> bool:
    """Whether more of a metric is better. scikit-learn's scorers are all so; of other names, those that speak of loss,
    error, deviance, perplexity, cost, mae, mse, rmse or mape are not."""
    from sklearn.metrics import get_scorer_names

    name = metric.removeprefix("val_")
    if name.startswith("neg_") or name in get_scorer_names():
        return True
    return not (any(word in name for word in _FALLING) or _FALLING_WORDS & set(name.lower().split("_")))


def check_metrics(metrics: Sequence[Metric], spec: Spec, probable: bool) -> None:
    """UnknownName for a scorer that scikit-learn does not have; UsageError for two of one name, and for a scorer that
    cannot be measured on such answers: said now, and not at the end of the first epoch. ``probable``: whether the
    model has probabilities."""
    from sklearn.metrics import get_scorer_names

    names = [name_of(metric) for metric in metrics]
    for name in names:
        if names.count(name) > 1 or name in _TAKEN:
            raise UsageError(
                f"metrics={names} came, and the column {name!r} would have two. Give your function a name of its own "
                "with def."
            )
    for metric in metrics:
        if isinstance(metric, str) and metric not in get_scorer_names():
            raise UnknownName("metric", metric, get_scorer_names())
    named = [metric for metric in metrics if isinstance(metric, str)]
    if named and spec.outputs and (spec.classes or 0) <= _REHEARSED_CLASSES:
        _rehearse(named, spec, probable)


def _rehearse(metrics: Sequence[str], spec: Spec, probable: bool) -> None:
    """Scorers on made-up answers, every class among them."""
    rows = 4 * (spec.classes or 4)
    random = np.random.default_rng(0)
    logits = random.uniform(0.5, 1.5, (rows, spec.outputs))
    y = random.uniform(0.5, 1.5, (rows, spec.outputs)) if spec.classes is None else np.arange(rows) % spec.classes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        measured(metrics, logits, y[:, 0] if y.ndim == 2 and spec.outputs == 1 else y, None, spec, probable)


def measured(
    metrics: Sequence[Metric],
    logits: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None,
    spec: Spec,
    probable: bool = True,
) -> dict[str, float]:
    """Each metric by its name. A scorer is weighted where the rows are; a function ``f(y, predicted)`` is given labels
    as they stood in the source."""
    answers, truth = _answers(logits, spec, probable), spec.decode(y)
    return {name_of(metric): _one(metric, answers, truth, weight, spec) for metric in metrics}


def _one(metric: Metric, answers: Any, truth: np.ndarray, weight: np.ndarray | None, spec: Spec) -> float:
    from sklearn.metrics import get_scorer

    scorer = get_scorer(metric) if isinstance(metric, str) else metric
    try:
        # A scorer asks an estimator; a plain metric compares two arrays.
        if hasattr(scorer, "_score_func"):
            options = {} if weight is None else {"sample_weight": weight}
            return float(scorer(answers, answers.rows, truth, **options))
        return float(scorer(truth, answers.predict(answers.rows)))
    except Exception as error:  # a metric of one's own raises whatever it raises
        other = "'r2' for quantities" if spec.task == "regression" else "'f1_macro' for classes"
        asked = f" A function is called as {name_of(metric)}(y, predicted)."
        asked = f" Take one that suits them, such as {other}." if isinstance(metric, str) else asked
        raise UsageError(f"the metric {name_of(metric)!r} cannot be measured on {spec}: {error}.{asked}") from error


def _answers(logits: np.ndarray, spec: Spec, probable: bool) -> Any:
    """An estimator that has answered already, for scikit-learn's scorers; of margins it makes no probabilities."""
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils.metaestimators import available_if

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

        @available_if(lambda self: probable)  # type: ignore[untyped-decorator]
        def predict_proba(self, X: Inputs) -> np.ndarray:
            return probabilities(logits)

        def decision_function(self, X: Inputs) -> np.ndarray:
            return decisions(logits)

    return Regressor() if spec.task == "regression" else Classifier()
