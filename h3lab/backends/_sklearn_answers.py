"""Answers: what an estimator says of rows, as logits.

It knows in which of its methods an estimator is most exact; it does not know training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import _BaseNB

from h3lab.backends._sklearn_traits import core
from h3lab.spec import Spec


def answers(estimator: Any, x: Any, spec: Spec, clip: float) -> np.ndarray:
    """(rows, outputs) floats: predictions, or log-probabilities up to a constant a row, columns in the order of
    ``spec.labels``. Probabilities below ``clip`` count as ``clip``. Of an estimator without probabilities: its margins,
    or, where it has none, log-probabilities of its bare choice."""
    if spec.task == "regression":
        return np.asarray(estimator.predict(x), np.float64).reshape(x.shape[0], -1)
    labels = np.asarray(spec.labels)
    known = np.asarray(getattr(estimator, "classes_", labels))
    columns = np.searchsorted(labels, known)
    exact = exact_of(estimator)
    if len(known) == 1:  # it saw no other, and most methods then give a column of some other meaning
        some = np.zeros((x.shape[0], 1))
    elif exact is not None:
        some = exact(_two_columns(estimator.decision_function(x)))
    elif isinstance(estimator, _BaseNB):
        # A class of which no row came yet has no probability at all, and a logit is a number.
        with np.errstate(divide="ignore"):
            some = estimator.predict_joint_log_proba(x)
        some = np.maximum(some, np.max(some, axis=1, keepdims=True) - 1e6)
    elif hasattr(estimator, "predict_proba"):
        some = _logarithm(estimator.predict_proba(x), clip)
    else:
        some = _margins(estimator, x, known, clip)
    if len(known) == len(labels):
        return np.asarray(some, np.float64)
    # A class that the training never saw is as unlikely as the clip says, seen from the likeliest one.
    out = np.repeat(some.max(axis=1, keepdims=True) + np.log(clip), len(labels), axis=1)
    out[:, columns] = some
    return out


def exact_of(estimator: Any) -> Callable[[np.ndarray], np.ndarray] | None:
    """What makes logits of ``decision_function``, where that is exact and no clip has to touch it; else None."""
    last = core(estimator)
    if isinstance(last, SGDClassifier):
        return None if last.loss != "log_loss" else unchanged if len(last.classes_) == 2 else log_sigmoid
    if isinstance(last, LogisticRegression):
        return log_sigmoid if getattr(last, "multi_class", "") == "ovr" and len(last.classes_) > 2 else unchanged
    if isinstance(last, GradientBoostingClassifier):
        return unchanged if last.loss == "log_loss" else None
    return unchanged if isinstance(last, (LinearDiscriminantAnalysis, HistGradientBoostingClassifier)) else None


def unchanged(decision: np.ndarray) -> np.ndarray:
    return decision


def log_sigmoid(decision: np.ndarray) -> np.ndarray:
    """One class against the rest: their sigmoids are scaled to sum up to one."""
    return -np.logaddexp(0.0, -decision)


def _two_columns(decision: Any) -> np.ndarray:
    decision = np.array(decision, np.float64)
    return decision if decision.ndim == 2 else np.column_stack([np.zeros(len(decision)), decision])


def _logarithm(probabilities: Any, clip: float) -> np.ndarray:
    p = np.asarray(probabilities, np.float64)
    # Half of the row's greatest, where that is less: many classes and few trees must not tie the first with the last.
    return np.log(np.maximum(p, np.minimum(clip, p.max(axis=1, keepdims=True) / 2)))


def _margins(estimator: Any, x: Any, known: np.ndarray, clip: float) -> np.ndarray:
    if hasattr(estimator, "decision_function"):
        margins = _two_columns(estimator.decision_function(x))
        if margins.shape[1] == len(known):  # one against one has a column a pair
            # Vector machines choose by votes of pairs, which may differ from the greatest margin: the choice wins.
            chosen = (np.arange(len(margins)), np.searchsorted(known, estimator.predict(x)))
            margins[chosen] = np.maximum(margins[chosen], np.nextafter(margins.max(axis=1), np.inf))
            return margins
    chosen = np.searchsorted(known, estimator.predict(x))
    out = np.full((len(chosen), len(known)), np.log(clip))
    out[np.arange(len(chosen)), chosen] = 0.0
    return out
