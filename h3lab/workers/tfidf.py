"""TfidfTransformer in parts: document frequencies are sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from h3lab.preparing.cells import matrix
from h3lab.preparing.mergeable import Plain
from h3lab.workers import standins


class Tfidf(Plain):
    """TfidfTransformer."""

    def takes(self, worker: Any, x: Any) -> bool:
        """Counts, sparse or dense."""
        return standins.is_numeric(x)

    def partial(self, worker: Any, x: Any) -> dict[str, Any]:
        """Rows, and in how many of them each column is stored."""
        x = matrix(x)
        if not hasattr(x, "indptr"):
            return {"rows": len(x), "df": np.count_nonzero(x, axis=0)}
        x = x.tocsr()
        return {"rows": x.shape[0], "df": np.bincount(x.indices, minlength=x.shape[1])}

    def merge(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Sums."""
        df = np.sum([state["df"] for state in states], axis=0)
        return {"rows": sum(state["rows"] for state in states), "df": df}

    def finish(self, worker: Any, state: dict[str, Any], x: Any) -> None:
        """The weights, computed as TfidfTransformer.fit does, in its order of operations."""
        worker.fit(x.native() if hasattr(x, "native") else x)
        if worker.use_idf:
            worker.idf_ = weights(state["df"], state["rows"], worker.smooth_idf, worker.idf_.dtype)


def weights(df: np.ndarray, rows: int, smooth: bool, dtype: Any) -> np.ndarray:
    """Inverse document frequencies, bit for bit as scikit-learn computes them."""
    df = df.astype(dtype)
    df += float(smooth)
    idf = np.full_like(df, rows + int(smooth))
    with np.errstate(divide="ignore"):
        idf /= df
    np.log(idf, out=idf)
    idf += 1.0
    return idf
