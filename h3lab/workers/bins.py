"""Bins in parts: KBinsDiscretizer of equal widths, from minima and maxima."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from h3lab.preparing.bound import Bound
from h3lab.preparing.cells import matrix
from h3lab.workers import standins
from h3lab.workers.scalers import MinMax, State


class UniformBins(MinMax):
    """KBinsDiscretizer with ``strategy="uniform"``. scikit-learn looks at ``subsample`` of the rows; this at all."""

    def bound(self, worker: Any) -> Bound:
        """Of all rows."""
        return Bound(against=(("subsample", None),))

    def takes(self, worker: Any, x: Any) -> bool:
        """Dense numbers and equal widths; quantiles and k-means need the whole column."""
        return bool(worker.strategy == "uniform") and super().takes(worker, x)

    def partial(self, worker: Any, x: Any) -> State:
        """Minima and maxima; NaN is refused, as by the worker itself."""
        if not np.isfinite(np.asarray(matrix(x), dtype=np.float64)).all():
            standins.refuse(worker, x)
        return super().partial(worker, x)

    def finish(self, worker: Any, state: State, x: Any) -> None:
        """Fitted on two rows, the minima and the maxima."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Feature .* is constant")
            worker.fit(standins.numbers(x, np.stack([state["low"], state["high"]])))
