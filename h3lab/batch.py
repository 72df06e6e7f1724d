"""A Batch: some prepared rows on their way to a model.

It knows its rows; it does not know where they came from or what a model does with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

#: One prepared input: a dense array or CSR matrix of shape (rows, ...), or a dict of such by block (``join="blocks"``).
Inputs = Any


def rows_of(x: Inputs) -> int:
    """The number of rows of an input, whichever of its forms it has."""
    if isinstance(x, Mapping):
        return rows_of(next(iter(x.values())))
    return int(x.shape[0])


def take(x: Inputs, index: Any) -> Inputs:
    """Rows of an input by slice, positions or mask; a slice of a dense array is a view."""
    if isinstance(x, Mapping):
        return {name: block[index] for name, block in x.items()}
    return x[index]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of a feed.

    ``x``: (rows, ...) inputs. ``y``: (rows,) class codes (int64) or (rows,) / (rows, targets) floats; None where the
    label is absent. ``weight``: (rows,) floats. ``soft``: (rows, outputs) a teacher's logits, that is log-probabilities
    up to a constant a row (classification) or its predictions (regression). ``keys``: (rows,) uint64 row keys, stable
    when rows are added to the source.
    ``total``: rows of the whole batch over all ranks, where this is one rank's share of it.
    """

    x: Inputs
    y: np.ndarray | None = None
    weight: np.ndarray | None = None
    soft: np.ndarray | None = None
    keys: np.ndarray | None = None
    total: int | None = None

    def __len__(self) -> int:
        return rows_of(self.x)

    def take(self, index: Any) -> Batch:
        """The same columns at some rows (slice, positions or mask)."""
        rest = {
            name: None if value is None else value[index]
            for name, value in (
                ("y", self.y),
                ("weight", self.weight),
                ("soft", self.soft),
                ("keys", self.keys),
            )
        }
        return Batch(x=take(self.x, index), **rest)

    def with_soft(self, soft: np.ndarray) -> Batch:
        """The same rows with a teacher's answers beside them."""
        return replace(self, soft=soft)
