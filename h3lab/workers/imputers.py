"""SimpleImputer in parts: means by stable merges, the most frequent value by counts, constants by what is missing."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from h3lab.preparing.bound import Bound
from h3lab.preparing.cells import Cells, matrix, native
from h3lab.preparing.labels import dense
from h3lab.preparing.mergeable import Plain
from h3lab.workers import standins
from h3lab.workers.encoders import KINDS, counted, together, united
from h3lab.workers.scalers import finite, merged, moments

State = dict[str, Any]


class Simple(Plain):
    """SimpleImputer with mean, most_frequent or constant. A median needs its whole column."""

    def bound(self, worker: Any) -> Bound:
        """Rounding for a mean; values are values."""
        return Bound(1e-12, "largest") if worker.strategy == "mean" else Bound()

    def takes(self, worker: Any, x: Any) -> bool:
        """NaN as the missing value; numbers for a mean, raw columns for the others."""
        if not standins.is_nan(worker.missing_values) or hasattr(x, "indptr"):
            return False
        if worker.strategy == "mean":
            return standins.is_numeric(x)
        raw = isinstance(x, Cells) and not x.one and set(x.kinds) <= KINDS
        return bool(raw and worker.strategy in ("most_frequent", "constant"))

    def partial(self, worker: Any, x: Any) -> State:
        """Rows and missing values by column, with moments or counted values."""
        if worker.strategy == "mean":
            return {"rows": x.shape[0], **finite(worker, x, moments(matrix(x)))}
        if any(_is_infinite(column) for column in x.table.columns):
            standins.refuse(worker, x)
        return together([_counted(x, n, worker.strategy == "most_frequent") for n in range(x.shape[1])], x.shape[0])

    def merge(self, states: Sequence[State]) -> State:
        """Sums of counts, merged moments."""
        rows = sum(state["rows"] for state in states)
        if "mean" in states[0]:
            return {"rows": rows, **merged([{k: v for k, v in state.items() if k != "rows"} for state in states])}
        return united(states)

    def finish(self, worker: Any, state: State, x: Any) -> None:
        """Fitted on two rows: what fills each column, and a gap where the column has one."""
        if worker.strategy == "mean":
            gaps, empty = state["count"] < state["rows"], state["count"] == 0
            first = np.where(empty, np.nan, state["mean"] + state["low"])
            dtype = matrix(x).dtype if matrix(x).dtype == np.float32 else np.float64
            rows: Any = standins.numbers(x, np.stack([first, np.where(gaps, np.nan, first)]).astype(dtype))
        else:
            fills = [_fill(v, c.tolist()) for v, c in zip(state["values"], state["counts"], strict=True)]
            gaps = [None in values for values in state["values"]]
            columns = [[fill, None if gap else fill] for fill, gap in zip(fills, gaps, strict=True)]
            rows = standins.values(x, columns)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mean of empty|Skipping features")
            worker.fit(rows)

    def transform(self, worker: Any, x: Any) -> Any:
        """As the worker's own; text stays in Arrow, where the next worker finds its few distinct values quickly."""
        fills = list(worker.statistics_)
        raw = isinstance(x, Cells) and not x.one and set(x.kinds) == {"text"} and len(fills) == x.shape[1]
        usual = standins.is_nan(worker.missing_values) and worker.strategy in ("most_frequent", "constant")
        if not raw or not usual or worker.add_indicator or not all(isinstance(fill, str) for fill in fills):
            return super().transform(worker, x)
        import pyarrow as pa

        columns = [dense(column).fill_null(fill) for column, fill in zip(x.table.columns, fills, strict=True)]
        return Cells(pa.table(columns, names=x.names), bare=True)


def _counted(x: Cells, position: int, all_values: bool) -> tuple[list[Any], list[int]]:
    """Values, None for a missing one, and how often each stands there; one of those that are not missing is enough
    where only their type matters."""
    if all_values:
        return counted(x, position)
    import pyarrow.compute as pc

    column = dense(x.table.column(position))
    there = column.filter(pc.invert(pc.is_null(column, nan_is_null=True)))
    found = {value: len(there) for value in there.slice(0, 1).to_pylist()}
    if len(there) < len(column):
        found[None] = len(column) - len(there)
    return list(found), list(found.values())


def _is_infinite(column: Any) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    return bool(pa.types.is_floating(column.type) and pc.any(pc.is_inf(column)).as_py())


def _fill(values: list[Any], counts: list[int]) -> Any:
    """The most frequent value, the smallest of equals, as scikit-learn breaks the tie; None for no value."""
    found = {value: count for value, count in zip(values, counts, strict=True) if value is not None}
    most = max(found.values(), default=0)
    return min((value for value, count in found.items() if count == most), default=None)


class Indicator(Plain):
    """MissingIndicator: each part tells which of its columns have gaps, as the worker itself finds them."""

    def partial(self, worker: Any, x: Any) -> State:
        """(gaps,) the columns that miss some."""
        from sklearn.base import clone

        return {"gaps": clone(worker).set_params(features="missing-only").fit(native(x)).features_}

    def merge(self, states: Sequence[State]) -> State:
        """Those that miss some in any part."""
        return {"gaps": np.unique(np.concatenate([state["gaps"] for state in states]))}

    def finish(self, worker: Any, state: State, x: Any) -> None:
        """Fitted on a few rows, and told of the gaps of all."""
        worker.fit(native(x))
        if worker.features == "missing-only":
            worker.features_ = state["gaps"]
