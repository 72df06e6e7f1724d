"""The curves of one run in memory: for each metric its steps and values, in arrays that grow.

Lists of dicts, as a journal is read, cost 400 bytes a record; a kernel that watches a run for a day needs 16 a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy

import numpy as np

from h3lab.records import AXES, Record

#: A tuple: a union is made anew at every use, and a long journal has millions.
NUMBERS = (int, float)


class Series:
    """One metric: ``steps`` ascend, ``values`` are as they were recorded, NaN included."""

    def __init__(self) -> None:
        self.size = 0
        self._data = np.empty((2, 256))

    def extend(self, steps: list[float], values: list[float]) -> None:
        """Append points; their steps are above those already here."""
        end = self.size + len(steps)
        if end > self._data.shape[1]:
            grown = np.empty((2, max(end, 2 * self._data.shape[1])))
            grown[:, : self.size] = self._data[:, : self.size]
            self._data = grown
        self._data[0, self.size : end] = steps
        self._data[1, self.size : end] = values
        self.size = end

    @property
    def steps(self) -> np.ndarray:
        """A view, not a copy; it stays as it is when points are added."""
        return self._data[0, : self.size]

    @property
    def values(self) -> np.ndarray:
        """As ``steps``."""
        return self._data[1, : self.size]

    def drop_from(self, step: float) -> None:
        """Forget the points from a step on."""
        self.size = int(np.searchsorted(self.steps, step))

    def tail(self, start: int) -> bytes:
        """The points from index ``start`` on: all their steps, then all their values, as little-endian doubles."""
        return self._data[:, start : self.size].astype("<f8").tobytes()


class Columns:
    """All series of a run by the metric's name, in the order in which they first appeared."""

    def __init__(self) -> None:
        self._series: dict[str, Series] = {}

    def extend(self, records: Iterable[Record]) -> None:
        """Append records. What is no number (text of a loop of one's own) has no curve and is left out."""
        points: dict[str, tuple[list[float], list[float]]] = {}
        for record in records:
            step = record["step"]
            for name, value in record.items():
                if name not in AXES and isinstance(value, NUMBERS):
                    if name not in points:
                        points[name] = ([], [])
                    steps, values = points[name]
                    steps.append(step)
                    values.append(value)
        for name, (steps, values) in points.items():
            self._series.setdefault(name, Series()).extend(steps, values)

    def drop_from(self, step: float) -> None:
        """Forget every point from a step on: an attempt begins there."""
        for series in self._series.values():
            series.drop_from(step)

    def still(self) -> Columns:
        """These curves as they are now, while the originals go on growing. The arrays are shared: points are added
        behind those that a Series counts, or to a larger copy."""
        still = Columns()
        still._series = {name: copy(series) for name, series in self._series.items()}
        return still

    def sizes(self) -> dict[str, int]:
        """Name → number of points."""
        return {name: series.size for name, series in self._series.items()}

    def last(self, name: str) -> float | None:
        """The newest value of a metric, None where there is none."""
        series = self._series.get(name)
        return float(series.values[-1]) if series and series.size else None

    def __getitem__(self, name: str) -> Series:
        return self._series[name]

    def __contains__(self, name: str) -> bool:
        return name in self._series and self._series[name].size > 0

    def __iter__(self) -> Iterator[str]:
        return iter(self._series)


def binned(series: Series, bins: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """(steps, means) of at most ``bins`` runs of points: what a picture or a dashed line needs of a long curve."""
    width = -(-series.size // bins) or 1
    starts = np.arange(0, series.size, width)
    if width == 1:
        return series.steps.copy(), series.values.copy()
    counts = np.diff(np.append(starts, series.size))
    return np.add.reduceat(series.steps, starts) / counts, np.add.reduceat(series.values, starts) / counts


def extremes(series: Series, bins: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) with the smallest and the largest value of each of at most ``bins`` runs of points."""
    width = -(-series.size // bins) or 1
    if width <= 2:
        return series.steps.copy(), series.values.copy()
    starts = np.arange(0, series.size, width)
    steps = np.repeat(series.steps[starts], 2)
    values = np.empty(2 * len(starts))
    values[0::2] = np.minimum.reduceat(series.values, starts)
    values[1::2] = np.maximum.reduceat(series.values, starts)
    return steps, values


def smoothed(values: np.ndarray, weight: float = 0.9) -> np.ndarray:
    """Exponential mean, unbiased at the start; NaN keeps its place and spoils nothing after it."""
    result, mean, norm = np.empty_like(values), 0.0, 0.0
    for index, value in enumerate(values):
        if np.isfinite(value):
            mean, norm = weight * mean + (1 - weight) * value, weight * norm + (1 - weight)
        result[index] = mean / norm if norm and np.isfinite(value) else np.nan
    return result
