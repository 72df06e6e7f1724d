"""Arrays as a user gives them: X and y → inputs, class codes and a Spec.

It knows scikit-learn's conventions of shapes and labels; it does not know pipelines, models or files.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from h3lab.batch import Batch, Inputs, rows_of
from h3lab.errors import DataError, UnknownName
from h3lab.feeds.rows import is_sparse
from h3lab.source import row_keys
from h3lab.spec import Block, Spec, Task

#: More integer classes than this are more likely a quantity than a class.
MANY_CLASSES = 100


def given(
    X: Any, y: Any, weight: Any, task: Task | None, keys: Any, labels: Sequence[Any] | None
) -> tuple[Batch, Spec]:
    """What ``Feed.of`` is given → one batch, y as codes, and its Spec."""
    x = inputs(X)
    codes, known = None, None
    if y is not None:
        codes, task, known = targets(y, task, labels)
    elif labels is not None:
        task, known = "classification", np.unique(np.asarray(labels))
    keys = row_keys("memory", 0, rows_of(x)) if keys is None else _row_keys(keys)
    batch = Batch(x, codes, weights(weight), None, keys)
    same_rows(x, y=codes, weight=batch.weight, keys=keys)
    outputs = 0 if codes is None else (1 if codes.ndim == 1 else codes.shape[1])
    return batch, describe(x, task or "regression", known, outputs)


def _row_keys(keys: Any) -> np.ndarray:
    found = np.asarray(keys)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise DataError(f"keys of type {found.dtype} and shape {found.shape} came; expected (rows,) whole numbers.")
    return found.astype(np.uint64)


def inputs(X: Any) -> Inputs:
    """X → C-ordered arrays of numbers (rows, ...), CSR, or a dict of such; DataError for text, 1-D and empty ones."""
    if isinstance(X, Mapping) and not hasattr(X, "tocsr"):  # SciPy's dictionaries of keys are mappings too
        if not X:
            raise DataError("an empty dict came as X; expected at least one block.")
        blocks = {str(name): _input(block, f"block {str(name)!r} of X") for name, block in X.items()}
        counts = {name: block.shape[0] for name, block in blocks.items()}
        if len(set(counts.values())) > 1:
            raise DataError(f"the blocks of X have different numbers of rows: {counts}.")
        return blocks
    return _input(X, "X")


def unmasked(values: Any, what: str) -> np.ndarray:
    """Whatever came as an array; DataError for one with masked values, which NumPy would give as if they were not."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise DataError(
            f"{what} is a masked array with {int(np.ma.getmaskarray(values).sum())} masked values. Say what these are: "
            ".astype(float).filled(numpy.nan) makes them missing ones."
        )
    return np.asarray(values)


def _input(X: Any, what: str) -> Any:
    if hasattr(X, "tocsr"):
        return X.tocsr()
    x = unmasked(X, what)
    if x.dtype.kind not in "biuf":
        try:
            x = x.astype(np.float64) if x.dtype.kind == "O" else x
        except (TypeError, ValueError) as error:
            raise DataError(_no_numbers(what, x)) from error
        if x.dtype.kind not in "biuf":
            raise DataError(_no_numbers(what, x))
    if x.ndim < 2:
        raise DataError(
            f"Expected 2D array, got {'scalar' if x.ndim == 0 else '1D'} array instead as {what} (shape {x.shape}). "
            "Reshape your data with .reshape(-1, 1) if it is one feature, .reshape(1, -1) if it is one row."
        )
    # Gathering rows of any other order would copy the whole array every time.
    return np.ascontiguousarray(x.astype(x.dtype.newbyteorder("="), copy=False))


def _no_numbers(what: str, x: np.ndarray) -> str:
    return (
        f"{what} has type {x.dtype}; a feed holds numbers. Text and categories go through a Pipeline: "
        "lab.prepare(pipeline, rows)."
    )


def targets(y: Any, task: Task | None, labels: Sequence[Any] | None) -> tuple[np.ndarray, Task, np.ndarray | None]:
    """y → (codes or floats, task, sorted labels or None).

    Strings, booleans, categories and integers are classes, floats are quantities; ``task`` wins. A column (rows, 1)
    counts as (rows,), with scikit-learn's warning. DataError for missing and infinite values.
    """
    if task not in (None, "classification", "regression"):
        raise UnknownName("task", task, ["classification", "regression"])
    categories = hasattr(getattr(y, "dtype", None), "categories")
    # NumPy makes text of all of a list where one value is text, without a word.
    texts = isinstance(y, list | tuple) and any(isinstance(value, str) for value in y)
    y = np.array(y, dtype=object) if texts else unmasked(y, "y")
    if y.dtype.kind == "O":
        y = _plain(y)
    if y.ndim == 2 and y.shape[1] == 1:
        from sklearn.utils.validation import column_or_1d

        y = column_or_1d(y, warn=True)  # predictions will be (rows,) too, and nobody should find out by broadcasting
    if y.ndim not in (1, 2):
        raise DataError(f"y has shape {y.shape}; expected (rows,), or (rows, targets) in a regression.")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        row = np.argwhere(~np.isfinite(y))[0][0]
        bad = int((~np.isfinite(y)).sum())
        raise DataError(f"Input y contains NaN or infinity: {bad} values, the first in row {row}. Fill or drop them.")
    if y.dtype.kind not in "biufUS":
        raise DataError(f"y has type {y.dtype}; expected labels (text, booleans, integers) or floats.")
    if task is None and labels is not None:
        task = "classification"
    chosen: Task = task or ("regression" if y.dtype.kind == "f" and not categories else "classification")
    if chosen == "regression":
        return _quantities(y), chosen, None
    if not categories and labels is None:
        _no_quantities(y)
    return _classified(y, task, labels)


def _plain(y: np.ndarray) -> np.ndarray:
    """An array of Python objects as text, numbers or booleans; DataError for missing values and mixtures."""
    flat = y.ravel().tolist()
    missing = [row for row, value in enumerate(flat) if value is None or value != value]
    if missing:
        raise DataError(f"y misses {len(missing)} of {len(flat)} labels, the first in row {missing[0]}.")
    plain = np.asarray(flat).reshape(y.shape) if flat else y.astype(np.float64)
    text = {isinstance(value, str) for value in flat}
    if len(text) > 1:
        raise DataError("y mixes text and numbers; make it one of them, for example with .astype(str).")
    return plain


def _quantities(y: np.ndarray) -> np.ndarray:
    if y.dtype.kind in "US":
        try:
            y = y.astype(np.float64)
        except ValueError as error:
            raise DataError(
                f"y is text ({str(y.ravel()[0])!r}, ...), and a regression needs numbers. Make numbers of it, or take "
                "a classifier."
            ) from error
    return y.astype(np.float64) if y.dtype.kind != "f" else y


def _no_quantities(y: np.ndarray) -> None:
    if y.dtype.kind == "f" and (y != np.floor(y)).any():
        raise DataError(
            f"Unknown label type: continuous. y holds quantities ({y[y != np.floor(y)][0]}, ...), a classification "
            "needs classes. Use a regression, or cut them into classes."
        )


def _classified(
    y: np.ndarray, task: Task | None, labels: Sequence[Any] | None
) -> tuple[np.ndarray, Task, np.ndarray | None]:
    if y.ndim == 2:
        raise DataError(f"y has shape {y.shape}; several labels a row are not supported. Use one column a feed.")
    if labels is None:
        known, codes = np.unique(y, return_inverse=True)
        if task is None and y.dtype.kind in "iu" and len(known) > MANY_CLASSES:
            warnings.warn(
                f"y has {len(known)} different integers, so as many classes; pass task='regression' if they are "
                "quantities, task='classification' if they are classes.",
                stacklevel=4,
            )
        return codes.astype(np.int64), "classification", known
    known = np.unique(np.asarray(labels))
    return describe(np.empty((len(y), 1)), "classification", known, 0).encode(y), "classification", known


def describe(x: Inputs, task: Task, labels: np.ndarray | None, outputs: int) -> Spec:
    """The Spec of inputs; ``outputs`` counts in a regression, ``labels`` do in a classification."""
    blocks = {
        name: Block(name, tuple(int(n) for n in block.shape[1:]), str(block.dtype), is_sparse(block))
        for name, block in (x.items() if isinstance(x, Mapping) else [("x", x)])
    }
    features = sum(math.prod(block.shape) for block in blocks.values())
    shape = (features,) if isinstance(x, Mapping) else next(iter(blocks.values())).shape
    if labels is None:
        return Spec(task, features, shape, outputs, None, None, blocks)
    return Spec(task, features, shape, len(labels), len(labels), _values(labels), blocks)


def _values(labels: np.ndarray) -> tuple[Any, ...]:
    # Plain Python values print well; another width (int8, float32) is kept, so that answers have the type of y.
    usual = labels.dtype.kind in "bU" or labels.dtype in (np.int64, np.float64)
    return tuple(labels.tolist() if usual else labels)


def same_rows(x: Inputs, **others: np.ndarray | None) -> None:
    """DataError unless all have as many rows as ``x``, and at least one."""
    rows = rows_of(x)
    for name, value in others.items():
        if value is not None and len(value) != rows:
            raise DataError(f"X has {rows} rows, {name} has {len(value)}: inconsistent numbers of samples.")
    if rows == 0:
        raise DataError("Found array with 0 sample(s): X has no rows, and a feed needs at least one.")


def weights(weight: Any, rows: int | None = None) -> np.ndarray | None:
    """Row weights as floats (rows,); DataError for missing, infinite or negative ones, or another number of them."""
    if weight is None:
        return None
    try:
        values = np.asarray(weight, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"weights came as {type(weight).__name__} that are no numbers; expected (rows,).") from error
    if values.ndim != 1:
        raise DataError(f"weights have shape {values.shape}; expected (rows,).")
    if rows is not None and len(values) != rows:
        raise DataError(f"{len(values)} weights came for {rows} rows; expected one a row.")
    if not np.isfinite(values).all() or (values < 0).any():
        raise DataError("weights are missing, infinite or negative in some rows; give each a number from 0 on.")
    return values
