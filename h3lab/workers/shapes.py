"""Shapes: workers whose fit reads no value, only how many columns there are and what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from h3lab.preparing.cells import native
from h3lab.preparing.mergeable import Plain


class ShapeOnly(Plain):
    """Fitted on a few rows, as on all."""

    def partial(self, worker: Any, x: Any) -> Any:
        """Nothing."""
        return None

    def merge(self, states: Sequence[Any]) -> Any:
        """Nothing."""
        return None

    def finish(self, worker: Any, state: Any, x: Any) -> None:
        """The worker's own fit."""
        worker.fit(native(x))
