"""Selectors in parts: variances, and scores of columns against the labels, from moments that merge.

Means and squares are merged as deviations from means (see ``scalers``): sums of squares, which scikit-learn's own score
functions add up, lose every digit at a mean of 1e8.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from h3lab.errors import DataError
from h3lab.preparing.bound import Bound
from h3lab.preparing.cells import matrix, native
from h3lab.preparing.mergeable import Plain
from h3lab.workers import standins
from h3lab.workers.scalers import State, finite, merged, moments


class Variance(Plain):
    """VarianceThreshold."""

    def bound(self, worker: Any) -> Bound:
        """Rounding of variances; what is chosen is the same."""
        return Bound(1e-12)

    def takes(self, worker: Any, x: Any) -> bool:
        """Numbers, dense or sparse."""
        return standins.is_numeric(x)

    def partial(self, worker: Any, x: Any) -> State:
        """Moments, minima and maxima; infinity is refused, as by the worker itself."""
        low, high = _extremes(matrix(x))
        return {**finite(worker, x, moments(matrix(x))), "low_end": low, "high_end": high}

    def merge(self, states: Sequence[State]) -> State:
        """Each by its own rule."""
        low = np.fmin.reduce([state["low_end"] for state in states])
        high = np.fmax.reduce([state["high_end"] for state in states])
        return {**merged(states), "low_end": low, "high_end": high}

    def finish(self, worker: Any, state: State, x: Any) -> None:
        """variances_, or the error that VarianceThreshold itself would raise."""
        width = x.shape[1]
        # Any two rows set the attributes; their spread must only be above the threshold.
        spread = np.stack([np.zeros(width), np.full(width, 4.0 * np.sqrt(worker.threshold) + 1.0)])
        worker.fit(standins.numbers(x, spread))
        with np.errstate(invalid="ignore", divide="ignore"):
            variances = np.where(state["count"] > 0, state["m2"] / state["count"], np.nan)
        if worker.threshold == 0:
            # As scikit-learn does: rounding gives a constant column a variance, and no range.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "All-NaN")
                variances = np.nanmin([variances, state["high_end"] - state["low_end"]], axis=0)
        worker.variances_ = variances
        if not (variances > worker.threshold).any():
            raise ValueError(f"No feature in X meets the variance threshold {worker.threshold:.5f}")


def _extremes(x: Any) -> tuple[np.ndarray, np.ndarray]:
    if not hasattr(x, "indptr"):
        x = np.asarray(x, dtype=np.float64)
        return np.fmin.reduce(x, axis=0), np.fmax.reduce(x, axis=0)
    return (np.asarray(x.nanmin(axis=0).toarray(), np.float64).ravel(), np.asarray(x.nanmax(axis=0).toarray()).ravel())


class Scored(Plain):
    """SelectKBest and its kin, where the score is f_classif, chi2 or f_regression."""

    labelled = True

    def bound(self, worker: Any) -> Bound:
        """What scikit-learn's own sums of squares lose."""
        return Bound(1e-12, "score")

    def takes(self, worker: Any, x: Any) -> bool:
        """Numbers, and a score that merges."""
        return standins.is_numeric(x) and _score_name(worker) in _SCORES

    def partial(self, worker: Any, x: Any, y: Any = None) -> Any:
        """What the score needs of one part."""
        from sklearn.base import clone

        if y is None:
            raise DataError(f"{type(worker).__name__} learns from labels; give the pipeline its label column.")
        values = np.asarray(y)
        known = np.asarray([value is not None and value == value for value in values.tolist()], bool)
        x = matrix(x)
        data = x.data if hasattr(x, "indptr") else x
        if not np.isfinite(np.asarray(data, dtype=np.float64)).all() or (
            _score_name(worker) == "chi2" and (data < 0).any()
        ):
            clone(worker).fit(native(x), np.arange(x.shape[0]) % 2)  # raises what scikit-learn says of such values
        return _SCORES[_score_name(worker)][0](x[known], values[known])

    def merge(self, states: Sequence[Any]) -> Any:
        """By class, or with the target."""
        return _by_class(states) if "classes" in states[0] else _with_target(states)

    def finish(self, worker: Any, state: Any, x: Any) -> None:
        """The worker's own fit, with the scores at hand."""
        found = _SCORES[_score_name(worker)][1](state)
        score = worker.score_func
        worker.score_func = lambda X, y: found
        try:
            worker.fit(standins.numbers(x, np.zeros((2, x.shape[1]))), np.array([0, 1]))
        finally:
            worker.score_func = score


def _score_name(worker: Any) -> str:
    """The name of a score function of scikit-learn's own; a function of another module may mean anything."""
    score = worker.score_func
    known = getattr(score, "__module__", "") == "sklearn.feature_selection._univariate_selection"
    return str(score.__name__) if known else ""


def _classes(x: Any, y: np.ndarray) -> Any:
    """Moments and sums of each class's rows."""
    names = list(dict.fromkeys(y.tolist()))
    found = []
    for name in names:
        rows = x[y == name]
        sums = np.asarray(rows.sum(axis=0), np.float64).ravel()
        found.append({**moments(rows), "rows": int(rows.shape[0]), "sums": sums})
    return {"classes": names, "states": found}


def _by_class(states: Sequence[Any]) -> Any:
    parts: dict[Any, list[State]] = {}
    for state in states:
        for name, one in zip(state["classes"], state["states"], strict=True):
            parts.setdefault(name, []).append(one)
    together = []
    for found in parts.values():
        sums = np.add.reduce([one["sums"] for one in found])
        together.append({**merged(found), "rows": sum(one["rows"] for one in found), "sums": sums})
    return {"classes": list(parts), "states": together}


def _f_classif(state: Any) -> tuple[np.ndarray, np.ndarray]:
    """Analysis of variance, as scipy.stats.f_oneway defines it, from the classes' moments."""
    from scipy import special

    groups = state["states"]
    rows, classes = sum(one["rows"] for one in groups), len(groups)
    if classes < 2:
        raise DataError(f"f_classif compares classes; all labels are {state['classes'][:1]}.")
    within = np.add.reduce([one["m2"] for one in groups])
    between = np.maximum(merged(groups)["m2"] - within, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        f = (between / (classes - 1)) / (within / (rows - classes))
    return f, special.fdtrc(classes - 1, rows - classes, f)


def _chi2(state: Any) -> tuple[np.ndarray, np.ndarray]:
    """Pearson's test of each class's sums against those expected by the classes' shares."""
    from scipy import special

    observed = np.stack([one["sums"] for one in state["states"]])
    shares = np.asarray([one["rows"] for one in state["states"]], np.float64)
    expected = np.outer(shares / shares.sum(), observed.sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        chi = ((observed - expected) ** 2 / expected).sum(axis=0)
    return chi, special.chdtrc(len(observed) - 1, chi)


def _target(x: Any, y: np.ndarray) -> Any:
    """Moments of columns and target, and the sums of the products of their deviations."""
    y = y.astype(np.float64)
    own, target = moments(x), moments(y[:, None])
    rest = y - (target["mean"][0] + target["low"][0])
    if hasattr(x, "indptr"):
        joint = np.asarray(x.T @ rest).ravel()
    else:
        joint = (np.asarray(x, np.float64) - own["mean"] - own["low"]).T @ rest
    return {"x": own, "y": target, "joint": joint}


def _with_target(states: Sequence[Any]) -> Any:
    total = states[0]
    for state in states[1:]:
        n, m = total["y"]["count"][0], state["y"]["count"][0]
        apart = [(state[k]["mean"] - total[k]["mean"]) + (state[k]["low"] - total[k]["low"]) for k in ("x", "y")]
        joint = total["joint"] + state["joint"] + apart[0] * apart[1] * (n * m / max(n + m, 1))
        total = {"x": merged([total["x"], state["x"]]), "y": merged([total["y"], state["y"]]), "joint": joint}
    return total


def _f_regression(state: Any) -> tuple[np.ndarray, np.ndarray]:
    """F and p of each column's correlation with the target; finite, as f_regression makes them by default."""
    from scipy import special

    free = int(state["y"]["count"][0]) - 2
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.nan_to_num(state["joint"] / np.sqrt(state["x"]["m2"] * state["y"]["m2"]), nan=0.0)
        f = r**2 / (1 - r**2) * free
    p = special.fdtrc(1, free, f)
    perfect = np.isinf(f)
    return np.where(perfect, np.finfo(np.float64).max, f), np.where(perfect, 0.0, p)


_SCORES: dict[str, Any] = {
    "f_classif": (_classes, _f_classif),
    "chi2": (_classes, _chi2),
    "f_regression": (_target, _f_regression),
}
