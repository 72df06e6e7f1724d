"""Scalers in parts: means and variances by the stable merge of Chan, Golub and LeVeque (1983), minima and maxima.

Adding sums, or scikit-learn's own ``partial_fit``, loses six digits of the transform at a mean of 1e6 and a standard
deviation of 0.01.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from h3lab.preparing.bound import Bound
from h3lab.preparing.cells import matrix
from h3lab.preparing.mergeable import Plain
from h3lab.workers import standins

State = dict[str, Any]


@np.errstate(invalid="ignore")
def moments(x: Any) -> State:
    """(columns,) ``count`` of values that are not NaN, their mean in two pieces, ``mean`` + ``low``, and ``m2``, the
    sum of squared differences from it. Infinite values give a ``mean`` that is not finite, see :func:`finite`."""
    if hasattr(x, "indptr"):
        return _sparse_moments(x)
    x = np.asarray(x, dtype=np.float64)
    missing = np.isnan(x)
    if not missing.any():
        count = np.full(x.shape[1], x.shape[0], np.int64)
        mean = x.mean(axis=0)
        rest = x - mean
    else:
        count = np.asarray((~missing).sum(axis=0), dtype=np.int64)
        mean = np.where(missing, 0.0, x).sum(axis=0) / np.maximum(count, 1)
        rest = np.where(missing, 0.0, x - mean)
    # One float cannot hold a mean of 1e6 to the precision of a deviation of 1e-3, and differences of means are what is
    # merged. The differences to the rounded mean are exact, so what is left of their sum is its missing digits.
    low = rest.sum(axis=0) / np.maximum(count, 1)
    m2 = np.einsum("ij,ij->j", rest, rest) - count * low**2
    return {"count": count, "mean": mean, "low": low, "m2": np.maximum(m2, 0.0)}


def _sparse_moments(x: Any) -> State:
    columns, rows = x.shape[1], x.shape[0]
    indices, data = x.tocsr().indices, x.tocsr().data.astype(np.float64)
    missing = np.isnan(data)
    indices_there, there = indices[~missing], data[~missing]
    count = rows - np.bincount(indices[missing], minlength=columns)
    mean = np.bincount(indices_there, there, minlength=columns) / np.maximum(count, 1)
    stored = np.bincount(indices_there, minlength=columns)
    m2 = np.bincount(indices_there, (there - mean[indices_there]) ** 2, minlength=columns)
    m2 += (count - stored) * mean**2
    return {"count": count.astype(np.int64), "mean": mean, "low": np.zeros(columns), "m2": m2}


def merged(states: Sequence[State]) -> State:
    """Moments of all parts, merged pairwise in their order."""
    total = states[0]
    for state in states[1:]:
        count = total["count"] + state["count"]
        share = state["count"] / np.maximum(count, 1)
        mean = np.where(total["count"] > 0, total["mean"], state["mean"])
        low = np.where(total["count"] > 0, total["low"], state["low"])
        delta = (state["mean"] - mean) + (state["low"] - low)
        m2 = total["m2"] + state["m2"] + delta**2 * total["count"] * share
        total = {"count": count, "mean": mean, "low": low + delta * share, "m2": m2}
    return total


def finite(worker: Any, x: Any, state: State) -> State:
    """The moments of a part, which shows in them whether it has infinite values: those the worker refuses."""
    if not np.isfinite(state["mean"]).all():
        standins.refuse(worker, x)
    return state


class Standard(Plain):
    """StandardScaler."""

    def bound(self, worker: Any) -> Bound:
        """Rounding, where differences from a mean are taken."""
        return Bound(1e-12)

    def takes(self, worker: Any, x: Any) -> bool:
        """Numbers; centring a sparse matrix is left to scikit-learn, which refuses it."""
        return standins.is_numeric(x) and not (hasattr(x, "indptr") and worker.with_mean)

    def partial(self, worker: Any, x: Any) -> State:
        """Moments; infinity is refused, as by the worker itself."""
        return finite(worker, x, moments(matrix(x)))

    def merge(self, states: Sequence[State]) -> State:
        """See :func:`merged`."""
        return merged(states)

    def finish(self, worker: Any, state: State, x: Any) -> None:
        """mean_, var_, scale_ and n_samples_seen_ as StandardScaler.fit leaves them."""
        worker.fit(standins.numbers(x, np.zeros((2, x.shape[1]), _float_type(x))) if not hasattr(x, "indptr") else x)
        count, mean = state["count"], np.where(state["count"] > 0, state["mean"] + state["low"], np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            var = state["m2"] / count
        worker.n_samples_seen_ = count[0] if (count == count[0]).all() else count
        if not worker.with_std and (not worker.with_mean or hasattr(x, "indptr")):
            worker.mean_ = None
        else:
            worker.mean_ = mean
        if worker.with_std:
            # scikit-learn's own test for a constant column: a variance within the error of computing it.
            eps = np.finfo(np.float64).eps
            constant = var <= count * eps * var + (count * mean * eps) ** 2
            worker.var_, worker.scale_ = var, np.where(constant, 1.0, np.sqrt(var))


class MinMax(Plain):
    """MinMaxScaler."""

    def takes(self, worker: Any, x: Any) -> bool:
        """Dense numbers."""
        return standins.is_numeric(x) and not hasattr(x, "indptr")

    def partial(self, worker: Any, x: Any) -> State:
        """Minima, maxima and rows; NaN where a column has no value."""
        x = matrix(x)
        return {"rows": len(x), "low": np.fmin.reduce(x, axis=0), "high": np.fmax.reduce(x, axis=0)}

    def merge(self, states: Sequence[State]) -> State:
        """The minima of minima, the maxima of maxima."""
        return {
            "rows": sum(state["rows"] for state in states),
            "low": np.fmin.reduce([state["low"] for state in states]),
            "high": np.fmax.reduce([state["high"] for state in states]),
        }

    def finish(self, worker: Any, state: State, x: Any) -> None:
        """Fitted on two rows, the minima and the maxima."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN")
            worker.fit(standins.numbers(x, np.stack([state["low"], state["high"]])))
        worker.n_samples_seen_ = state["rows"]


class MaxAbs(Plain):
    """MaxAbsScaler."""

    def takes(self, worker: Any, x: Any) -> bool:
        """Numbers, dense or sparse."""
        return standins.is_numeric(x)

    def partial(self, worker: Any, x: Any) -> State:
        """Largest absolute values and rows."""
        x = matrix(x)
        if not hasattr(x, "indptr"):
            return {"rows": len(x), "high": np.fmax.reduce(np.abs(x), axis=0)}
        high = np.zeros(x.shape[1], x.dtype)
        np.fmax.at(high, x.tocsr().indices, np.abs(x.tocsr().data))
        return {"rows": x.shape[0], "high": high}

    def merge(self, states: Sequence[State]) -> State:
        """The largest of the largest."""
        high = np.fmax.reduce([state["high"] for state in states])
        return {"rows": sum(state["rows"] for state in states), "high": high}

    def finish(self, worker: Any, state: State, x: Any) -> None:
        """Fitted on one row, the largest values."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN")
            worker.fit(standins.numbers(x, state["high"][None, :]))
        worker.n_samples_seen_ = state["rows"]


def _float_type(x: Any) -> Any:
    dtype = matrix(x).dtype
    return dtype if dtype in (np.float32, np.float64) else np.float64
