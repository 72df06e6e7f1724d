"""A Bound: how far a fit in parts may be from the worker's own fit on all rows; a value, so that what a table promises
is what a test allows.

It knows rows and numbers; it does not know workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from h3lab.errors import UnknownName

#: What is promised at least where numbers are of single precision.
SINGLE = 1e-6


class Unit(NamedTuple):
    """What a bound is a share of. ``words``: as the table says it. ``of(x)``: (columns,) or a number, of the rows
    (rows, columns) that a worker was fitted on, for the columns of ``transform``. ``size(x, value)``: the same for a
    fitted attribute."""

    words: str
    of: Callable[[np.ndarray], Any]
    size: Callable[[np.ndarray, Any], Any]


def _conditioning(x: np.ndarray) -> np.ndarray:
    """(columns,) |mean|/sd: by how much a difference from the mean is less exact than the numbers. A constant column
    has no spread, and is not divided by any."""
    mean, sd = abs(np.nanmean(x, axis=0)), np.nanstd(x, axis=0)
    return np.asarray(mean / np.where(np.nanmax(x, axis=0) > np.nanmin(x, axis=0), sd, np.inf))


def _largest(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.nanmax(abs(x), axis=0))


def _score(x: np.ndarray, value: Any) -> Any:
    # A score is large where little is left to explain, so its digits are those of the share that it explains.
    return _aligned(1 + _conditioning(x) ** 2, value) * (len(x) + abs(value)) ** 2 / len(x)


UNITS = {
    "largest": Unit("the largest value of a column", _largest, lambda x, value: _aligned(_largest(x), value)),
    "spread": Unit(
        "(1+|mean|/sd) a column",
        lambda x: 1 + _conditioning(x),
        lambda x, value: _aligned(1 + _conditioning(x), value) * abs(value),
    ),
    "score": Unit("(1+mean²/variance) of score/(score+rows), and the same choice", lambda x: 0.0, _score),
    "singular": Unit(
        "the largest singular value, where their squares are apart, signs too",
        lambda x: np.linalg.norm(x, 2),
        lambda x, value: np.max(abs(value), initial=0.0),
    ),
}


@dataclass(frozen=True)
class Bound:
    """``relative``: 0.0 is the same bits; else a share of the ``unit``, a name in :data:`UNITS`. ``against``: the
    parameters of the fit that is meant where the worker's own would look at some of the rows, or approximate."""

    relative: float = 0.0
    unit: str = "spread"
    against: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise UnknownName("unit of a bound", self.unit, UNITS)

    def __str__(self) -> str:
        told = f"{self.relative:g} × {UNITS[self.unit].words}" if self.relative else "identical"
        given = ", ".join(f"{name}={value!r}" for name, value in self.against)
        return told + (f" (to the fit with {given})" if given else "")

    def of_output(self, x: np.ndarray, out: np.ndarray) -> Any:
        """How far each column of ``transform`` may be off, for dense rows ``x`` that the worker was fitted on."""
        with np.errstate(all="ignore"):
            return self._share(x, out) * _aligned(UNITS[self.unit].of(_double(x)), out)

    def of_attribute(self, x: np.ndarray, value: np.ndarray) -> Any:
        """How far a fitted attribute may be off; the rounding of the rows themselves beside it."""
        if not self.relative:
            return 0.0
        with np.errstate(all="ignore"):
            size = np.nan_to_num(UNITS[self.unit].size(_double(x), np.nan_to_num(value)))
            return self._share(x, value) * size + 16 * np.finfo(value.dtype).eps * np.max(_largest(_double(x)))

    def _share(self, *values: np.ndarray) -> float:
        single = self.relative and any(one.dtype == np.float32 for one in values)
        return max(self.relative, SINGLE) if single else self.relative


def _double(x: np.ndarray) -> np.ndarray:
    """Numbers without columns of gaps alone, of which nothing is asked."""
    x = np.asarray(x, dtype=np.float64)
    return np.where(np.isnan(x).all(axis=0), 0.0, x)


def _aligned(unit: Any, values: np.ndarray) -> Any:
    """By column where there are as many values as the rows had columns, else the largest."""
    fits = np.ndim(unit) == 1 and np.ndim(values) > 0 and values.shape[-1] == len(unit)
    return unit if fits else np.max(unit, initial=0.0)
