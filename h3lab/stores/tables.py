"""A batch as an Arrow table and back, every type and shape kept, as Parquet files hold it and others read it.

``x`` is a column of lists of one length, a sparse block one of ``(column, value)`` pairs; what Arrow's types do not
tell (the shape of an image, the type of an index) stands in the schema's metadata.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from h3lab.batch import Batch
from h3lab.feeds import rows

_KEY = b"h3lab"


def table_of(batch: Batch) -> pa.Table:
    """A column an array."""
    told, columns = {}, {}
    for name, array in rows.columns(batch).items():
        if rows.is_sparse(array):
            told[name] = {"shape": list(array.shape), "dtype": array.data.dtype.str, "index": array.indices.dtype.str}
            told[name]["pointer"] = array.indptr.dtype.str
            columns[name] = sparse_lists(array)
        else:
            told[name] = {"shape": list(array.shape), "dtype": array.dtype.str}
            columns[name] = _dense(array)
    table = pa.table(columns)
    return table.replace_schema_metadata({_KEY: json.dumps(told).encode()})


def packed(batch: Batch) -> bytes:
    """The bytes of a Parquet file; equal rows give equal ones."""
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table_of(batch), sink, compression="zstd")
    return bytes(sink.getvalue())


def batch_of(table: pa.Table) -> Batch:
    """The inverse of :func:`table_of`. KeyError or ValueError where it is not one."""
    told = json.loads(table.schema.metadata[_KEY])
    return rows.batch_of({name: _array(table.column(name), how) for name, how in told.items()})


def sparse_lists(column: Any) -> pa.Array:
    """A CSR matrix as lists of ``(column, value)``."""
    entries = pa.StructArray.from_arrays([pa.array(column.indices), pa.array(column.data)], ["column", "value"])
    return pa.LargeListArray.from_arrays(pa.array(column.indptr.astype(np.int64)), entries)


def fixed_lists(column: np.ndarray) -> pa.Array:
    """An array of two dimensions or more as lists of one length."""
    size = int(np.prod(column.shape[1:], dtype=np.int64))
    return pa.FixedSizeListArray.from_arrays(pa.array(column.reshape(-1)), size)


def _dense(array: np.ndarray) -> pa.Array:
    if array.ndim == 1:
        return pa.array(array)
    if not array[:1].size:
        return pa.nulls(len(array))  # lists of no length have no rows
    return fixed_lists(np.ascontiguousarray(array))


def _array(column: pa.ChunkedArray, how: dict[str, Any]) -> Any:
    shape, dtype = tuple(how["shape"]), np.dtype(how["dtype"])
    one = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if "index" in how:
        return _csr(one, shape, dtype, how)
    if pa.types.is_null(one.type):
        return np.zeros(shape, dtype)
    flat = one.flatten() if len(shape) > 1 else one
    return np.ascontiguousarray(flat.to_numpy(zero_copy_only=False), dtype).reshape(shape)


def _csr(lists: Any, shape: tuple[int, ...], dtype: np.dtype[Any], how: dict[str, Any]) -> Any:
    from scipy import sparse

    entries = lists.flatten()
    offsets = lists.offsets.to_numpy()
    indices = entries.field("column").to_numpy(zero_copy_only=False).astype(how["index"], copy=False)
    data = entries.field("value").to_numpy(zero_copy_only=False).astype(dtype, copy=False)
    made = sparse.csr_matrix(shape, dtype=dtype)
    # Set one by one: the constructor would choose an index type of its own.
    made.data, made.indices, made.indptr = data, indices, (offsets - offsets[:1]).astype(how["pointer"], copy=False)
    return made
