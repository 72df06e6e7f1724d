"""SimpleImputer in parts: means by stable merges, the most frequent value by counts, constants by what is missing."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from h3lab.preparing.cells import Cells, matrix
from h3lab.preparing.labels import dense
from h3lab.preparing.mergeable import Plain
from h3lab.workers import standins
from h3lab.workers.encoders import KINDS
from h3lab.workers.scalers import merged, moments

State = dict[str, Any]


class Simple(Plain):
    """SimpleImputer with mean, most_frequent or constant. A median needs its whole column."""

    bound = "mean: 1e-12·(1+|mean|/sd) a column; most_frequent, constant: identical"

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
            x = matrix(x)
            state = moments(x)
            return {"rows": len(x), **state}
        found = [_counted(x, position, worker.strategy == "most_frequent") for position in range(x.shape[1])]
        return {
            "rows": x.shape[0],
            "count": np.array([count for count, _, _ in found], np.int64),
            "values": [values for _, values, _ in found],
            "counts": [counts for _, _, counts in found],
        }

    def merge(self, states: Sequence[State]) -> State:
        """Sums of counts, merged moments."""
        rows = sum(state["rows"] for state in states)
        if "mean" in states[0]:
            return {"rows": rows, **merged([{k: v for k, v in state.items() if k != "rows"} for state in states])}
        values, counts = [], []
        for position in range(len(states[0]["values"])):
            total: dict[Any, int] = {}
            for state in states:
                for value, count in zip(state["values"][position], state["counts"][position], strict=True):
                    total[value] = total.get(value, 0) + count
            values.append(list(total))
            counts.append(list(total.values()))
        count = np.sum([state["count"] for state in states], axis=0)
        return {"rows": rows, "count": count, "values": values, "counts": counts}

    def finish(self, worker: Any, state: State, x: Any) -> None:
        """Fitted on two rows: what fills each column, and a gap where the column has one."""
        gaps, empty = state["count"] < state["rows"], state["count"] == 0
        if worker.strategy == "mean":
            first = np.where(empty, np.nan, state["mean"] + state["low"])
            dtype = matrix(x).dtype if matrix(x).dtype == np.float32 else np.float64
            rows: Any = standins.numbers(x, np.stack([first, np.where(gaps, np.nan, first)]).astype(dtype))
        else:
            fills = [_fill(v, c) for v, c in zip(state["values"], state["counts"], strict=True)]
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


def _counted(x: Cells, position: int, all_values: bool) -> tuple[int, list[Any], list[int]]:
    """Values that are not missing, and how often each stands there (one of them, where only their type matters)."""
    import pyarrow.compute as pc

    column = dense(x.table.column(position))
    there = column.filter(pc.invert(pc.is_null(column, nan_is_null=True)))
    if not all_values:
        return len(there), there.slice(0, 1).to_pylist(), [1] * min(1, len(there))
    found = there.value_counts()
    return len(there), found.field("values").to_pylist(), found.field("counts").to_pylist()


def _fill(values: list[Any], counts: list[int]) -> Any:
    """The most frequent value, the smallest of equals, as scikit-learn breaks the tie; None for no value."""
    most = max(counts, default=0)
    return min((value for value, count in zip(values, counts, strict=True) if count == most), default=None)
