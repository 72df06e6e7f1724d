"""Stand-ins: a few rows that look like a part, so that scikit-learn's own ``fit`` sets its attributes from them.

It knows names and types of columns; it does not know what the rows mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from h3lab.preparing.cells import Cells, native


def numbers(x: Any, rows: np.ndarray) -> Any:
    """Rows of numbers in the form of ``x``: a DataFrame with its column names, or an array."""
    if not isinstance(x, Cells) and not hasattr(x, "columns"):
        return rows
    import pandas as pd

    return pd.DataFrame(rows, columns=x.names if isinstance(x, Cells) else x.columns)


def values(x: Cells, columns: Sequence[Sequence[Any]]) -> Any:
    """Python values by column in the form of ``x``, a DataFrame with its columns and types; whole numbers with a None
    among them become floats with a NaN, as they would in a DataFrame of all rows."""
    import pyarrow as pa

    table = pa.table(
        {
            field.name: pa.array(column, type=plain(field.type))
            for field, column in zip(x.table.schema, columns, strict=True)
        }
    )
    return Cells(table, x.one, x.bare).native()


def plain(type_: Any) -> Any:
    """The type of a column's values: that of a dictionary's for a category."""
    import pyarrow as pa

    return type_.value_type if pa.types.is_dictionary(type_) else type_


def refuse(worker: Any, x: Any) -> None:
    """Raise what the worker says of values that it does not take, such as infinity, where the part ``x`` has some."""
    from sklearn.base import clone

    clone(worker).fit(native(x))


def is_nan(value: Any) -> bool:
    """Whether a parameter such as ``missing_values`` is NaN."""
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def is_numeric(x: Any) -> bool:
    """Whether an input is numbers throughout, as rows of two dimensions."""
    if isinstance(x, Cells):
        return not x.one and set(x.kinds) <= {"number", "bool", "null"}
    dtypes = list(x.dtypes) if hasattr(x, "dtypes") else [x.dtype]
    return len(x.shape) == 2 and all(getattr(dtype, "kind", "O") in "biuf" for dtype in dtypes)
