"""Labels: what a label column holds, counted part by part, and the task that follows from it.

It knows values and their counts; it does not know pipelines or models.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab.errors import DataError
from h3lab.preparing.cells import kind
from h3lab.spec import Spec, Task

if TYPE_CHECKING:
    import pyarrow as pa

#: More integer classes than this are more likely a quantity than a class.
MANY_CLASSES = 100


def is_float(type_: Any) -> bool:
    """Whether a label of this Arrow type is a quantity by itself."""
    import pyarrow.types as t

    return bool(t.is_floating(type_) or t.is_decimal(type_))


@dataclass(frozen=True)
class Labels:
    """The values of a label column: ``type`` (Arrow, as text), ``counts`` of each value (empty for quantities),
    ``rows`` and how many of them are ``nulls`` (or NaN)."""

    type: str
    rows: int
    nulls: int
    counts: Mapping[Any, int] = field(default_factory=dict)

    @classmethod
    def of(cls, column: pa.ChunkedArray, task: Task | None = None) -> Labels:
        """Counted in one part; values are not counted where the task makes them quantities."""
        counts: dict[Any, int] = {}
        if task == "classification" or (task is None and not is_float(column.type)):
            found = dense(column).filter(present(column)).value_counts()
            counts = dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True))
        nulls = len(column) - int(present(column).to_numpy().sum())
        return cls(str(column.type), len(column), nulls, counts)

    def __add__(self, other: Labels) -> Labels:
        counts = dict(self.counts)
        for value, count in other.counts.items():
            counts[value] = counts.get(value, 0) + count
        return Labels(self.type, self.rows + other.rows, self.nulls + other.nulls, counts)

    def decide(self, name: str, task: Task | None) -> tuple[Task, tuple[Any, ...] | None]:
        """Task and classes (sorted, as they stand in the source; None in regression)."""
        if task == "regression" or (task is None and self.type in ("double", "float", "halffloat")):
            return "regression", None
        if task is None and self.type.startswith("decimal"):
            return "regression", None
        if not all(isinstance(value, str | bool | int | float) for value in self.counts):
            raise _no_label(name, self.type)
        labels = tuple(sorted(self.counts))
        if not labels:
            raise DataError(f"the label column {name!r} has no value in {self.rows} rows.")
        if task is None and len(labels) > MANY_CLASSES and all(type(label) is int for label in labels):
            warnings.warn(
                f"the label {name!r} has {len(labels)} different whole numbers, so this is a classification with as "
                f'many classes. If it is a quantity, write Pipeline(..., label="{name}", task="regression"); if it is '
                f'a class, task="classification" ends this warning.',
                stacklevel=3,
            )
        return "classification", labels


def check_label(name: str, type_: Any) -> None:
    """DataError for a type that no label has and Arrow cannot count."""
    if kind(type_) in ("list", "other"):
        raise _no_label(name, type_)


def _no_label(name: str, type_: object) -> DataError:
    return DataError(f"the label {name!r} is {type_}; classes are text, booleans or numbers.")


def present(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A mask of the rows whose value is neither null nor NaN."""
    import pyarrow.compute as pc

    return pc.is_valid(column) if not is_float(column.type) else pc.invert(pc.is_null(column, nan_is_null=True))


def dense(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A dictionary-encoded column (a pandas category) as plain values."""
    import pyarrow.types as t

    return column.cast(column.type.value_type) if t.is_dictionary(column.type) else column


def encode(column: pa.ChunkedArray, spec: Spec, name: str) -> np.ndarray:
    """Class codes (int64), or floats in regression. DataError names labels that the spec does not know, and a label
    that is no number."""
    if spec.task == "regression":
        if kind(column.type) not in ("number", "bool"):
            raise DataError(
                f"the label {name!r} is {column.type}, and a regression needs numbers. Make numbers of it in the "
                "source, or take task='classification'."
            )
        values = np.asarray(column.cast("float64").to_numpy(), dtype=np.float64)
        if np.isinf(values).any():
            raise DataError(f"the label {name!r} is infinite in {int(np.isinf(values).sum())} rows; leave them out.")
        return values
    # Only the distinct values go through Spec.encode: comparing a million Python strings takes seconds.
    coded = dense(column).combine_chunks().dictionary_encode()
    values = np.asarray(coded.dictionary.to_pylist())
    if not len(values):
        return np.zeros(len(column), np.int64)
    try:
        codes = spec.encode(values)
    except DataError as error:
        raise DataError(f"label {name!r}: {error}") from error
    return np.asarray(codes[coded.indices.to_numpy()], dtype=np.int64)


def null_labels(name: str, nulls: int, rows: int) -> DataError:
    """The error for rows without a label."""
    return DataError(
        f"the label {name!r} is missing in {nulls} of {rows} rows. Leave these rows out with "
        f'on_null_label="drop" (in lab.train, h3.train or prepare), or fill the column in the source.'
    )
