"""Projections in parts: PCA and TruncatedSVD from merged second moments, where the columns are few.

The eigenvectors of the covariance are the exact solution, which scikit-learn's randomized solvers approach. Squaring
costs digits of small singular values; with many columns the matrix of moments would be larger than the rows, so those
get the whole column instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from h3lab.preparing.bound import Bound
from h3lab.preparing.cells import matrix
from h3lab.preparing.mergeable import Plain
from h3lab.workers import standins
from h3lab.workers.scalers import State

#: Columns up to which the moments of a part (two megabytes) cost less than its rows.
MOST_COLUMNS = 512


class Moments(Plain):
    """Rows, mean and scatter: the sum of products of deviations from the mean, (columns, columns)."""

    def takes(self, worker: Any, x: Any) -> bool:
        """Numbers in few columns."""
        return standins.is_numeric(x) and x.shape[1] <= MOST_COLUMNS

    def partial(self, worker: Any, x: Any) -> State:
        """The moments of one part."""
        x = matrix(x)
        data = np.asarray(x.data if hasattr(x, "indptr") else x, dtype=np.float64)
        if not np.isfinite(data).all():
            standins.refuse(worker, x)
        rows = x.shape[0]
        if hasattr(x, "indptr"):
            mean = np.asarray(x.sum(axis=0), np.float64).ravel() / rows
            return {"rows": rows, "mean": mean, "scatter": (x.T @ x).toarray() - rows * np.outer(mean, mean)}
        mean = data.mean(axis=0)
        rest = data - mean
        mean, rest = mean + rest.mean(axis=0), rest - rest.mean(axis=0)
        return {"rows": rows, "mean": mean, "scatter": rest.T @ rest}

    def merge(self, states: Sequence[State]) -> State:
        """The scatter of both, and that of their means."""
        total = states[0]
        for state in states[1:]:
            rows = total["rows"] + state["rows"]
            apart = state["mean"] - total["mean"]
            between = np.outer(apart, apart) * (total["rows"] * state["rows"] / rows)
            mean = total["mean"] + apart * (state["rows"] / rows)
            total = {"rows": rows, "mean": mean, "scatter": total["scatter"] + state["scatter"] + between}
        return total


class Pca(Moments):
    """PCA by the solvers that are exact."""

    def bound(self, worker: Any) -> Bound:
        """Squaring halves the digits."""
        return Bound(1e-7, "singular", (("svd_solver", "full"),))

    def takes(self, worker: Any, x: Any) -> bool:
        """Dense numbers in few columns; ``mle`` and the randomized solver are left to scikit-learn."""
        exact = worker.svd_solver in ("auto", "full", "covariance_eigh") and worker.n_components != "mle"
        return exact and super().takes(worker, x) and not hasattr(x, "indptr")

    def finish(self, worker: Any, state: State, x: Any) -> None:
        """As PCA.fit leaves it."""
        rows, columns, asked = state["rows"], x.shape[1], worker.n_components
        most = min(rows, columns)
        if asked is not None and asked >= 1 and asked > most:
            raise ValueError(f"n_components={asked} must be between 0 and min(n_samples, n_features)={most}")
        worker.fit(standins.numbers(x, np.eye(columns + 1, columns)))
        values, vectors = _eigen(state["scatter"])
        variance = values[:most] / max(rows - 1, 1)
        ratio = variance / variance.sum()
        count = most if asked is None else asked
        if isinstance(asked, float) and asked < 1:
            count = int(np.searchsorted(np.cumsum(ratio), asked, side="right")) + 1
        dtype = matrix(x).dtype if matrix(x).dtype == np.float32 else np.float64
        worker.n_samples_, worker.n_components_, worker.mean_ = rows, int(count), state["mean"].astype(dtype)
        worker.components_ = vectors[:count].astype(dtype)
        worker.explained_variance_ = variance[:count].astype(dtype)
        worker.explained_variance_ratio_ = ratio[:count].astype(dtype)
        worker.singular_values_ = np.sqrt(values[:count]).astype(dtype)
        worker.noise_variance_ = variance[count:].astype(dtype).mean() if count < most else 0.0


class TruncatedSvd(Moments):
    """TruncatedSVD, exact whatever its algorithm."""

    def bound(self, worker: Any) -> Bound:
        """Squaring halves the digits."""
        return Bound(1e-7, "singular", (("algorithm", "arpack"),))

    def takes(self, worker: Any, x: Any) -> bool:
        """Numbers, dense or sparse, in few columns that are more than the components."""
        return super().takes(worker, x) and x.shape[1] >= max(2, worker.n_components)

    def finish(self, worker: Any, state: State, x: Any) -> None:
        """As TruncatedSVD.fit leaves it, with as many right singular vectors."""
        count, rows = worker.n_components, state["rows"]
        if worker.algorithm == "arpack" and count >= min(rows, x.shape[1]):
            raise ValueError(f"n_components={count} must be below {min(rows, x.shape[1])}, as arpack wants it.")
        worker.fit(standins.numbers(x, np.eye(x.shape[1] + 1, x.shape[1])))
        values, vectors = _eigen(state["scatter"] + rows * np.outer(state["mean"], state["mean"]))
        dtype = matrix(x).dtype if matrix(x).dtype == np.float32 else np.float64
        worker.components_ = vectors[:count].astype(dtype)
        along = np.einsum("ij,jk,ik->i", vectors[:count], state["scatter"] / rows, vectors[:count])
        worker.explained_variance_ = along.astype(dtype)
        worker.explained_variance_ratio_ = (along / (np.trace(state["scatter"]) / rows)).astype(dtype)
        worker.singular_values_ = np.sqrt(values[:count]).astype(dtype)


def _eigen(symmetric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(columns,) eigenvalues, greatest first, and the vectors as rows, with the signs that scikit-learn chooses."""
    from scipy import linalg
    from sklearn.utils.extmath import svd_flip

    values, vectors = linalg.eigh(symmetric)
    rows = np.ascontiguousarray(vectors.T[::-1])
    return np.maximum(values[::-1], 0.0), svd_flip(None, rows, u_based_decision=False)[1]
