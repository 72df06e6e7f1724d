"""Cells: some columns of raw rows on their way to a worker, Arrow outside, pandas or NumPy where a worker asks.

It knows types and their conversions; it does not know workers, blocks or labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab.errors import DataError, UnknownName, UsageError
from h3lab.source import Source

if TYPE_CHECKING:
    import pyarrow as pa


def as_table(rows: Any, needed: Sequence[str] | None = None, optional: Sequence[str] = ()) -> pa.Table:
    """Raw rows as a table: a DataFrame, an Arrow table or batch, a Source, a list of dicts, a dict of columns; for
    anything else UsageError says what to pass. ``needed``: the columns to take, UnknownName where one is missing;
    ``optional``: those to take where they are there. None takes all."""
    import pyarrow as pa

    if isinstance(rows, Source):
        wanted = _wanted(rows.schema.names, needed, optional)
        tables = [rows.read(part, wanted) for part in rows.parts()]
        return pa.concat_tables(tables) if tables else rows.schema.empty_table()
    if isinstance(rows, pa.RecordBatch):
        rows = pa.Table.from_batches([rows])
    if isinstance(rows, pa.Table):
        wanted = _wanted(rows.column_names, needed, optional)
        return rows if wanted is None else rows.select(wanted)
    if hasattr(rows, "iloc") and hasattr(rows, "columns"):
        frame = rows.rename(columns=str)
        wanted = _wanted(list(frame.columns), needed, optional)
        return _from_pandas(frame if wanted is None else frame[wanted])
    if isinstance(rows, Sequence) and rows and all(isinstance(row, Mapping) for row in rows):
        names = dict.fromkeys(str(name) for row in rows for name in row)
        rows = {name: [row.get(name) for row in rows] for name in names}
    if isinstance(rows, Mapping):
        wanted = _wanted(list(rows), needed, optional)
        return _from_lists({str(name): rows[name] for name in (rows if wanted is None else wanted)})
    if hasattr(rows, "__arrow_c_stream__") and hasattr(rows, "columns"):  # polars, DuckDB and others; not a Series
        return as_table(pa.table(rows), needed, optional)
    raise UsageError(
        f"raw rows were expected, {_described(rows)} came. Pass a DataFrame, an Arrow table, a Source or a list of "
        "dicts with the pipeline's columns. A bare array has no names, and serves only a pipeline that was fitted "
        "on arrays (columns x0, x1, ...)."
    )


def _wanted(known: Sequence[str], needed: Sequence[str] | None, optional: Sequence[str]) -> list[str] | None:
    if needed is None:
        return None
    for name in needed:
        if name not in known:
            raise UnknownName("column", name, known, "these rows")
    return list(dict.fromkeys([*needed, *(name for name in optional if name in known)]))


def _described(rows: Any) -> str:
    shape = getattr(rows, "shape", None)
    return f"a {type(rows).__name__}" + (f" of shape {tuple(shape)}" if shape is not None else "")


def _from_pandas(frame: Any) -> pa.Table:
    import pyarrow as pa

    try:
        return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise DataError(f"a column of the DataFrame mixes types that no table can hold: {error}") from error


def _from_lists(columns: Mapping[str, Any]) -> pa.Table:
    import pyarrow as pa

    try:
        return pa.table(dict(columns))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise DataError(f"a column mixes types that no table can hold, or columns differ in length: {error}") from error


def kind(type_: Any) -> str:
    """What an Arrow type means to a worker: number, bool, text, time, list, null or other."""
    import pyarrow as pa
    import pyarrow.types as t

    if isinstance(type_, pa.FixedShapeTensorType):
        return "list"
    if t.is_dictionary(type_):
        return kind(type_.value_type)
    if t.is_boolean(type_):
        return "bool"
    if t.is_integer(type_) or t.is_floating(type_) or t.is_decimal(type_):
        return "number"
    if t.is_string(type_) or t.is_large_string(type_) or t.is_string_view(type_):
        return "text"
    if t.is_temporal(type_):
        return "time"
    if t.is_list(type_) or t.is_large_list(type_) or t.is_fixed_size_list(type_):
        return "list"
    return "null" if t.is_null(type_) else "other"


def number_type(dtype: Any) -> str:
    """The name of a type of numbers; UsageError for any other."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = np.dtype(object)
    if found.kind not in "fiub":
        raise UsageError(f"dtype={dtype!r} came; expected a type of numbers, for example dtype='float32'.")
    return str(found.name)


def check_columns(table: pa.Table, schema: pa.Schema, context: str) -> pa.Table:
    """The table with just the columns of ``schema``, or the error that names what is missing, misspelt or of another
    kind. A column of nulls alone fits any type."""
    import pyarrow as pa

    for name in schema.names:
        if name not in table.column_names:
            raise UnknownName("column", name, table.column_names, context)
    table = table.select(schema.names)
    for position, field in enumerate(schema):
        came = table.schema.field(position).type
        if kind(came) == "null":
            table = table.set_column(position, field.name, pa.nulls(len(table), field.type))
        elif pa.types.is_integer(came) and pa.types.is_floating(field.type):
            table = table.set_column(position, field.name, table.column(position).cast(field.type))
        elif kind(came) != kind(field.type):
            raise DataError(
                f"column {field.name!r} is {came} in {context}; the pipeline was fitted on {field.type}. "
                f"Convert it, or fit the pipeline on rows of this type."
            )
    return table


@dataclass(frozen=True, eq=False)
class Cells:
    """Columns of raw rows, as ColumnTransformer would select them: ``one`` means a string chose them, so a worker
    gets a 1-D column; otherwise it gets a 2-D table with names. ``bare``: a worker has made them of such a table, so
    the next one gets an array of objects without names."""

    table: pa.Table
    one: bool = False
    bare: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows,) or (rows, columns)."""
        return (self.table.num_rows,) if self.one else (self.table.num_rows, self.table.num_columns)

    @property
    def names(self) -> list[str]:
        """The columns."""
        return list(self.table.column_names)

    @property
    def kinds(self) -> list[str]:
        """What each column is, as :func:`kind` says."""
        return [kind(field.type) for field in self.table.schema]

    def column(self, index: int) -> Cells:
        """One of the columns, 1-D."""
        return Cells(self.table.select([index]), True, self.bare)

    def types(self) -> str:
        """Columns with their types, for messages."""
        return ", ".join(f"{field.name!r} ({field.type})" for field in self.table.schema)

    def native(self) -> Any:
        """What ColumnTransformer would give a worker: a Series, or a DataFrame; an array of objects where bare."""
        if self.bare:
            arrays = [column.to_numpy().astype(object) for column in self.table.columns]
            return arrays[0] if self.one else np.stack(arrays, axis=1)
        if self.one:
            return self.table.column(0).to_pandas().rename(self.names[0])
        types = set(self.table.schema.types)
        if len(types) == 1 and str(types.pop()) in ("double", "float"):
            import pandas as pd

            return pd.DataFrame(self.array(), columns=self.names, copy=False)
        return self.table.to_pandas()

    def array(self) -> np.ndarray:
        """Numbers as an array (rows, columns), or (rows,) for one column; nulls become NaN, booleans 0 and 1.
        DataError names what is no number."""
        for field in self.table.schema:
            if kind(field.type) not in ("number", "bool", "null"):
                raise DataError(
                    f"column {field.name!r} is {field.type}; numbers were expected here. Put a worker in front that "
                    "makes them, such as OneHotEncoder() or TfidfVectorizer(), or leave the column out."
                )
        arrays = [_numbers(column) for column in self.table.columns]
        if self.one:
            return arrays[0]
        out = np.empty((self.table.num_rows, len(arrays)), np.result_type(*{array.dtype for array in arrays}))
        for position, array in enumerate(arrays):
            out[:, position] = array
        return out


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    import pyarrow.types as t

    plain = column.cast(column.type.value_type) if t.is_dictionary(column.type) else column
    if t.is_boolean(plain.type):
        plain = plain.cast("uint8")
    elif t.is_decimal(plain.type) or t.is_null(plain.type):
        plain = plain.cast("float64")
    return np.asarray(plain.to_numpy())


def vectors(table: pa.Table, name: str) -> np.ndarray:
    """A column of lists of one length (pixels, embeddings) as an array (rows, length); of tensors of one shape, as
    (rows, *shape)."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    column = table.column(name)
    if isinstance(column.type, pa.FixedShapeTensorType):
        flat = table.set_column(table.column_names.index(name), name, column.cast(column.type.storage_type))
        return vectors(flat, name).reshape(len(column), *column.type.shape)
    if column.null_count:
        raise DataError(f"column {name!r} has {column.null_count} rows without a list; fill them, or leave them out.")
    size = column.type.list_size if t.is_fixed_size_list(column.type) else pc.max(pc.list_value_length(column)).as_py()
    flat = pc.list_flatten(column)
    if len(flat) != len(column) * (size or 0):
        raise DataError(f"column {name!r} has lists of different lengths, up to {size}; rows of one shape are needed.")
    return _numbers(flat).reshape(len(column), size or 0)


def select(table: pa.Table, columns: str | Sequence[str]) -> Any:
    """Columns as a worker gets them: Cells, or for one column of lists its array (rows, length)."""
    if not isinstance(columns, str):
        return Cells(table.select(list(columns)))
    if kind(table.schema.field(columns).type) == "list":
        return vectors(table, columns)
    return Cells(table.select([columns]), one=True)


def native(x: Any) -> Any:
    """An input as a worker is given it: raw cells become a Series or a DataFrame."""
    return x.native() if isinstance(x, Cells) else x


def matrix(x: Any) -> Any:
    """An input as numbers (rows, columns): an array, or the sparse matrix that it is."""
    if isinstance(x, Cells):
        return x.array()
    return x if hasattr(x, "indptr") else np.asarray(x)
