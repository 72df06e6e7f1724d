"""Patience: which epoch was the best so far, and when to stop waiting for a better one.

It knows one metric's values and keeps the parameters of its best; it does not know how they were measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from h3lab.errors import UnknownName
from h3lab.options import Options
from h3lab.records import metrics
from h3lab.training.metrics import rises


class Patience:
    """Waits ``epochs`` epochs for ``monitor`` to get better (greater where more is better, else smaller)."""

    def __init__(self, epochs: int, monitor: str) -> None:
        self._epochs, self._monitor = epochs, monitor
        self._best = math.nan
        self._waited = 0
        self.parameters: dict[str, np.ndarray] | None = None

    @classmethod
    def of(cls, options: Options) -> Patience | None:
        """None where a training has none."""
        return None if options.patience is None else cls(options.patience, options.monitor)

    @property
    def exhausted(self) -> bool:
        """Whether it has waited long enough."""
        return self._waited >= self._epochs

    def look(self, record: Mapping[str, Any], parameters: Callable[[], dict[str, np.ndarray]]) -> None:
        """See an epoch's last record. UnknownName where the monitored metric is not in it."""
        if self._monitor not in record:
            raise UnknownName("metric to monitor", self._monitor, metrics(record))
        value = float(record[self._monitor])
        better = value > self._best if rises(self._monitor) else value < self._best
        if math.isfinite(value) and (better or math.isnan(self._best)):
            self._best, self._waited, self.parameters = value, 0, parameters()
        else:
            self._waited += 1

    def state(self) -> dict[str, Any]:
        """A codec tree."""
        return {"best": self._best, "waited": self._waited, "parameters": self.parameters}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse."""
        self._best, self._waited, self.parameters = state["best"], state["waited"], state["parameters"]
