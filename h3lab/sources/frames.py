"""Frames: a source of rows in memory: DataFrames, Arrow tables, arrays, lists of dicts.

It knows how such things become an Arrow table; it does not know where they came from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from h3lab.errors import DataError, UsageError
from h3lab.feeds.arrays import unmasked
from h3lab.serial.contents import table_digest
from h3lab.source import PART_ROWS, Part, Source
from h3lab.sources.schemas import without_views
from h3lab.sources.tables import table_of

#: The name that row keys of rows in memory derive from.
NAME = "memory"


class Frame(Source):
    """Rows of an Arrow table in memory. ``what``: what they were, in words."""

    def __init__(self, table: pa.Table, what: str) -> None:
        for column in table.column_names:
            if table.column_names.count(column) > 1:
                raise DataError(f"two columns are named {column!r}; rename one of them.")
        if not table.column_names:
            raise DataError(f"{what} without columns came; expected rows with at least one column.")
        self.table, self.what = without_views(table.replace_schema_metadata(None)), what

    @property
    def schema(self) -> pa.Schema:
        return self.table.schema

    def parts(self) -> Sequence[Part]:
        return list(self._once("parts", self._cut))

    def _cut(self) -> list[Part]:
        starts = range(0, max(1, self.table.num_rows), PART_ROWS)
        runs = [(start, self.table.slice(start, PART_ROWS)) for start in starts]
        # The version is the content: nothing else tells that a DataFrame of the same name has other rows today.
        return [
            Part(n, len(rows), NAME, start, {"rows": [start, start + len(rows)]}, table_digest([rows]))
            for n, (start, rows) in enumerate(runs)
        ]

    def read(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        low, high = part.position["rows"]
        return self.table.select(self.check(columns)).slice(low, high - low)

    def first(self, rows: int) -> pa.Table:
        return self.table.slice(0, rows)

    def describe(self) -> dict[str, Any]:
        return {"kind": "memory", "what": self.what}

    @property
    def title(self) -> str:
        return self.what

    def size(self) -> str:
        return f"{self.table.num_rows:,} rows"


def reopen(description: Mapping[str, Any]) -> NoReturn:
    """Rows in memory are gone with their process."""
    raise DataError(
        f"the rows were {description['what']} in memory, which cannot be opened again. Pass them once more (source=), "
        "or prepare from files."
    )


def frame(what: Any) -> Frame | None:
    """The source of whatever holds rows in memory, or None where it does not."""
    if isinstance(what, pa.Table):
        return Frame(what, "an Arrow table")
    if isinstance(what, pa.RecordBatch):
        return Frame(pa.Table.from_batches([what]), "an Arrow record batch")
    if _is_pandas(what):
        return Frame(_of_pandas(what), "a DataFrame")
    if isinstance(what, tuple) and len(what) == 2:
        return Frame(_of_pair(*what), "arrays (X, y)")
    if isinstance(what, np.ndarray):
        return Frame(table_of({"x": _rows(what, "the array")}), "an array")
    if isinstance(what, list) and what and all(isinstance(row, Mapping) for row in what):
        return Frame(_converted(lambda: pa.Table.from_pylist(_named(what))), "a list of dicts")
    if isinstance(what, Mapping) and what:
        names = _names(what)
        return Frame(_converted(lambda: pa.table({names[k]: v for k, v in what.items()})), "a dict of columns")
    if hasattr(what, "__arrow_c_stream__") and hasattr(what, "columns"):  # polars, DuckDB and others
        return Frame(_converted(lambda: pa.table(what)), f"a {type(what).__name__}")
    return None


def _named(rows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    # Arrow takes the columns of the first row for all.
    names = _names(name for row in rows for name in row)
    return [{told: row.get(name) for name, told in names.items()} for row in rows]


def _names(given: Iterable[Any]) -> dict[Any, str]:
    """The names of columns as text, by what they were; DataError for two that have the same, such as 1 and "1"."""
    names = {name: str(name) for name in given}
    told = Counter(names.values())
    if twice := [name for name, count in told.items() if count > 1]:
        raise DataError(f"two columns are named {twice[0]!r}; rename one of them.")
    return names


def _is_pandas(what: Any) -> bool:
    return type(what).__module__.partition(".")[0] == "pandas" and hasattr(what, "columns")


def _of_pandas(what: Any) -> pa.Table:
    frame = what.rename(columns=str)
    if not frame.columns.is_unique:
        raise DataError(f"two columns are named {frame.columns[frame.columns.duplicated()][0]!r}; rename one of them.")
    return _converted(lambda: pa.Table.from_pandas(frame, preserve_index=False))


def _of_pair(X: Any, y: Any) -> pa.Table:
    label = str(getattr(y, "name", None) or "y")
    if hasattr(X, "tocsr"):
        raise UsageError(
            "a sparse matrix came as raw rows, which are a table. It is prepared already: train on it as (X, y), or "
            "make a feed of it with Feed.of(X, y)."
        )
    target = unmasked(y, "y")
    if target.ndim == 2 and target.shape[1] == 1:
        target = target.ravel()
    table = _of_pandas(X) if _is_pandas(X) else table_of({"x": _rows(X, "X")})
    if len(target) != table.num_rows:
        raise DataError(f"X has {table.num_rows} rows, y has {len(target)}.")
    if label in table.column_names:
        raise DataError(f"X already has a column {label!r}; pass X alone, or rename y.")
    for field, column in zip((labels := table_of({label: target})).schema, labels.columns):
        table = table.append_column(field, column)
    return table


def _rows(values: Any, what: str) -> np.ndarray:
    array = unmasked(values, what)
    if array.ndim == 0:
        raise DataError(f"{what} is a single value; rows were expected.")
    # A 1-D array is one feature, x0, as the first column of a wider one would be.
    return array.reshape(-1, 1) if array.ndim == 1 else array


def _converted(make: Any) -> pa.Table:
    try:
        return make()
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"these rows cannot be a table; a column mixes types, or lengths differ: {error}. Give each column one "
            "type, for example with .astype(str), and all of them the same length."
        ) from error
