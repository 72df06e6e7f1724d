"""A Spec: what a model must know of its data before any training.

It knows names, shapes and labels; it does not hold rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from h3lab import brief
from h3lab.errors import DataError, OutOfRange

Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class Block:
    """One block of columns of the prepared rows: ``shape`` of one row, and whether it is stored sparse."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    sparse: bool = False


@dataclass(frozen=True)
class Spec:
    """``task``; ``features`` (columns in all); ``shape`` (of one row); ``outputs`` (classes or targets);
    ``classes`` (their number, None in regression); ``labels`` (the classes as they stand in the source, sorted;
    None in regression); ``blocks`` (by name, in order)."""

    task: Task
    features: int
    shape: tuple[int, ...]
    outputs: int
    classes: int | None = None
    labels: tuple[Any, ...] | None = None
    blocks: Mapping[str, Block] = field(default_factory=dict)

    def encode(self, y: Any) -> np.ndarray:
        """Labels of the source → int64 codes in ``range(classes)`` (regression: floats, unchanged).

        Raises DataError that names labels the spec does not know.
        """
        if self.task == "regression":
            return np.asarray(y, dtype=np.float64)
        y = np.asarray(y)
        labels = np.asarray(self.labels)
        # NumPy compares a number with a string as unequal and never says so; kinds must agree first.
        if (y.dtype.kind in "OUS") != (texts := labels.dtype.kind in "OUS"):
            raise DataError(
                f"labels of type {y.dtype} came, but the classes are of type {labels.dtype} ({self._shown()}). "
                f"Convert them first, for example with .astype({'str' if texts else labels.dtype.name!r})."
            )
        if y.dtype.kind == "O":
            y, labels = y.astype(str), labels.astype(str)
        codes = np.minimum(np.searchsorted(labels, y), len(labels) - 1)
        unknown = labels[codes] != y
        if unknown.any():
            examples = sorted({str(value) for value in np.asarray(y)[unknown][:1000]})[:5]
            raise DataError(
                f"{int(unknown.sum())} rows have labels that the model does not know: {', '.join(examples)}. "
                f"It knows {len(labels)} classes: {self._shown()}. Fit again with these rows, or leave them out."
            )
        return np.asarray(codes, dtype=np.int64)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes → labels as they stood in the source (regression: unchanged)."""
        if self.labels is None:
            return np.asarray(codes)
        try:
            return np.asarray(np.asarray(self.labels)[codes])
        except IndexError as error:
            raise OutOfRange(f"{codes!r} came; expected codes of {self.classes} classes, from 0.") from error

    def _shown(self) -> str:
        labels = [str(label) for label in self.labels or ()]
        return ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")

    def __str__(self) -> str:
        what = f"classification, {self.classes} classes" if self.task == "classification" else "regression"
        return f"{what}, {self.features} features"

    def __repr__(self) -> str:
        shape = "" if self.shape == (self.features,) else f", shape={self.shape}"
        labels = (
            "" if self.labels is None else f", labels={brief.listed(map(repr, np.asarray(self.labels).tolist()), 60)}"
        )
        room = brief.LINE - len(f"Spec({self}{shape}{labels}, blocks=)")
        blocks = f", blocks={brief.listed(self.blocks, room)}" if self.blocks else ""
        return brief.line(f"Spec({self}{shape}{labels}{blocks})")

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form; labels become plain Python values."""
        return {
            "task": self.task,
            "features": self.features,
            "shape": list(self.shape),
            "outputs": self.outputs,
            "classes": self.classes,
            "labels": None if self.labels is None else np.asarray(self.labels).tolist(),
            "labels_dtype": None if self.labels is None else np.asarray(self.labels).dtype.str,
            "blocks": [
                {"name": b.name, "shape": list(b.shape), "dtype": b.dtype, "sparse": b.sparse}
                for b in self.blocks.values()
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Spec:
        """The inverse of :meth:`to_json`."""
        labels = data["labels"]
        if labels is not None:
            kind = np.dtype(data["labels_dtype"])
            labels = tuple(labels if kind.kind == "O" else np.asarray(labels, dtype=kind))
        blocks = {b["name"]: Block(b["name"], tuple(b["shape"]), b["dtype"], b["sparse"]) for b in data["blocks"]}
        return cls(
            data["task"],
            data["features"],
            tuple(data["shape"]),
            data["outputs"],
            data["classes"],
            labels,
            blocks,
        )
