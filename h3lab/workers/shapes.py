"""Shapes: workers whose fit learns no value, only how many columns there are and what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from h3lab.preparing.cells import matrix, native
from h3lab.preparing.mergeable import Plain
from h3lab.workers import standins


class ShapeOnly(Plain):
    """Fitted on a few rows, as on all."""

    def partial(self, worker: Any, x: Any) -> Any:
        """Nothing; values that the worker does not take are refused, as by its own fit."""
        if not np.isfinite(rows.data if hasattr(rows := matrix(x), "indptr") else rows).all():
            standins.refuse(worker, x)
        return None

    def merge(self, states: Sequence[Any]) -> Any:
        """Nothing."""
        return None

    def finish(self, worker: Any, state: Any, x: Any) -> None:
        """The worker's own fit."""
        worker.fit(native(x))
