"""A Batch: some prepared rows on their way to a model.

It knows its rows; it does not know where they came from or what a model does with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from h3lab import brief
from h3lab.errors import DataError
from h3lab.memory import free_memory

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


def dense(x: Inputs, limit_bytes: float | None = None) -> Inputs:
    """CSR as an array, in a dict of blocks too; whatever is dense stays as it is.

    Raises DataError, before it takes any memory, where the array would be larger than ``limit_bytes`` (None: half of
    the memory that is free).
    """
    if isinstance(x, Mapping):
        return {name: dense(block, limit_bytes) for name, block in x.items()}
    if not hasattr(x, "toarray"):
        return x
    size = x.dtype.itemsize * float(np.prod(x.shape, dtype=np.float64))
    limit = free_memory() / 2 if limit_bytes is None else limit_bytes
    if size > limit:
        raise DataError(
            f"{x.shape[0]:,} rows of {x.shape[1]:,} sparse columns came for a model that takes dense ones; made dense, "
            f"they need {size / 2**30:.2f} GiB, and {limit / 2**30:.2f} GiB may be used. Put a TruncatedSVD behind the "
            "sparse worker, take fewer columns (max_features=), or a model that takes sparse rows."
        )
    return x.toarray()


@dataclass(frozen=True, slots=True, repr=False)
class Batch:
    """Rows of a feed.

    ``x``: (rows, ...) inputs. ``y``: (rows,) class codes (int64) or (rows,) / (rows, targets) floats; None where the
    label is absent. ``weight``: (rows,) floats. ``soft``: (rows, outputs) a teacher's logits, that is log-probabilities
    up to a constant a row (classification) or its predictions (regression). ``keys``: (rows,) uint64 row keys, stable
    when rows are added to the source.
    ``total``: rows of the whole batch over all ranks, where this is one rank's share of it. ``place``: its epoch (from
    1) and its number in it (from 0), told where a model asks for it (``Capabilities.places``).
    """

    x: Inputs
    y: np.ndarray | None = None
    weight: np.ndarray | None = None
    soft: np.ndarray | None = None
    keys: np.ndarray | None = None
    total: int | None = None
    place: tuple[int, int] | None = None

    def __len__(self) -> int:
        return rows_of(self.x)

    def __repr__(self) -> str:
        inputs = self.x if isinstance(self.x, Mapping) else {"x": self.x}
        names = ("y", "weight", "soft", "keys")
        parts = {**inputs, **{name: getattr(self, name) for name in names if getattr(self, name) is not None}}
        told = [f"{name} {tuple(np.shape(part))} {part.dtype}" for name, part in parts.items()]
        return f"Batch({brief.listed(told, brief.LINE - 7)})"

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
