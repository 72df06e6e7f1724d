"""Tables: arrays as columns. A 1-D array is one column, a 2-D one is as many as it is wide (x0, x1, ...), one of more
dimensions a column of tensors of one shape (images)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from h3lab.errors import DataError


def table_of(arrays: Mapping[str, np.ndarray]) -> pa.Table:
    """All columns of arrays of equal length; DataError for types that no table holds."""
    return columns_of(arrays, None)


def columns_of(arrays: Mapping[str, np.ndarray], wanted: Sequence[str] | None) -> pa.Table:
    """Some columns, in the order that is asked for, or all."""
    found: dict[str, pa.Array] = {}
    chosen = None if wanted is None else set(wanted)
    for name, array in arrays.items():
        names = [f"{name}{i}" for i in range(array.shape[1])] if array.ndim == 2 else [name]
        for position, column in enumerate(names):
            if column in found:
                raise DataError(f"two arrays both make a column {column!r}; rename one of them.")
            if chosen is None or column in chosen:
                found[column] = _column(array[:, position] if array.ndim == 2 else array, column)
    return pa.table(found if wanted is None else {name: found[name] for name in wanted})


def _column(array: np.ndarray, name: str) -> pa.Array:
    try:
        if array.ndim > 1:
            shape = array.shape[1:]
            flat = _column(array.reshape(-1), name)
            lists = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(shape, dtype=np.int64)))
            return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(flat.type, shape), lists)
        if array.dtype.kind == "O":
            return pa.array(array.tolist(), from_pandas=True)
        if array.dtype.kind == "S":
            return pa.array(np.char.decode(array, "utf-8").tolist(), pa.string())
        if array.dtype.kind == "U":
            return pa.array(array.tolist(), pa.string())
        return pa.array(array.astype(array.dtype.newbyteorder("="), copy=False))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"column {name!r} has {array.dtype} values that no table can hold: {error}") from error
