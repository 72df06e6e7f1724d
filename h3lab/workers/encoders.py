"""Encoders in parts: unions of distinct values; a part is encoded by its distinct values, not value by value.

scikit-learn spends most of an encoder's time on comparing a million Python strings; Arrow finds the few distinct ones
a hundred times faster, scikit-learn encodes those, and the rows take their codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import numpy as np

from h3lab.errors import DataError, UnseenValue
from h3lab.preparing.cells import Cells
from h3lab.preparing.labels import dense
from h3lab.preparing.mergeable import Plain
from h3lab.workers import standins

State = dict[str, Any]

#: Kinds of columns whose values a state can carry and an encoder can sort.
KINDS = {"text", "number", "bool"}


class Categories(Plain):
    """What both encoders share. A state has for each column its distinct ``values``, None for a missing one, in the
    order of first sight, and ``counts``, how often each stands there."""

    def takes(self, worker: Any, x: Any) -> bool:
        """Raw columns of text, numbers or booleans."""
        return isinstance(x, Cells) and not x.one and set(x.kinds) <= KINDS

    def partial(self, worker: Any, x: Cells) -> State:
        """The distinct values of each column, counted."""
        return together([counted(x, position) for position in range(x.shape[1])], x.shape[0])

    def merge(self, states: Sequence[State]) -> State:
        """See :func:`united`."""
        return united(states)

    def finish(self, worker: Any, state: State, x: Cells) -> None:
        """Fitted on the distinct values: the categories of all rows are the categories of these; which of them are
        rare is told by the counts of all rows."""
        with _counting(worker, state):
            worker.fit(standins.values(x, padded(state["values"])))

    def table(self, worker: Any, x: Cells) -> tuple[list[np.ndarray], Any]:
        """For each column the rows' positions among its distinct values; and those values, encoded side by side."""
        codes, columns = coded(x)
        try:
            return codes, worker.transform(standins.values(x, padded(columns)))
        except ValueError as error:
            if "unknown categories" not in str(error):
                raise
            raise unseen(worker, x, codes, columns) from error


class OneHot(Categories):
    """OneHotEncoder."""

    def transform(self, worker: Any, x: Any) -> Any:
        """CSR, or dense with ``sparse_output=False``, as the worker's own."""
        if not self.takes(worker, x):
            return super().transform(worker, x)
        codes, table = self.table(worker, x)
        starts = np.concatenate([[0], np.cumsum(_widths(worker))])
        if not hasattr(table, "indptr"):
            out = np.empty((x.shape[0], starts[-1]), table.dtype)
            for position, code in enumerate(codes):
                columns = slice(starts[position], starts[position + 1])
                out[:, columns] = np.asarray(table)[:, columns][code]
            return out
        return _gathered(table.tocsr(), starts, codes)


class Ordinal(Categories):
    """OrdinalEncoder."""

    def transform(self, worker: Any, x: Any) -> Any:
        """(rows, columns) codes, as the worker's own."""
        if not self.takes(worker, x):
            return super().transform(worker, x)
        codes, encoded = self.table(worker, x)
        table = np.asarray(encoded)
        out = np.empty((x.shape[0], len(codes)), table.dtype)
        for position, code in enumerate(codes):
            out[:, position] = table[code, position]
        return out


def counted(x: Cells, position: int) -> tuple[list[Any], list[int]]:
    """The distinct values of a column and how often each stands there; NaN counts as missing, as in a DataFrame."""
    values, codes = _encoded(x, position)
    total: dict[Any, int] = {}
    for value, count in zip(values, np.bincount(codes, minlength=len(values)).tolist(), strict=True):
        value = None if standins.is_nan(value) else value
        total[value] = total.get(value, 0) + count
    return list(total), list(total.values())


def together(found: Sequence[tuple[list[Any], list[int]]], rows: int) -> State:
    """The state of so many rows from the counted values of each column."""
    counts = [np.asarray(counts, np.int64) for _, counts in found]
    return {"rows": rows, "values": [values for values, _ in found], "counts": counts}


def united(states: Sequence[State]) -> State:
    """Unions of the values, in the order of first sight, with the sums of their counts."""
    found = []
    for position in range(len(states[0]["values"])):
        total: dict[Any, int] = {}
        for state in states:
            for value, count in zip(state["values"][position], state["counts"][position].tolist(), strict=True):
                total[value] = total.get(value, 0) + count
        found.append((list(total), list(total.values())))
    return together(found, sum(state["rows"] for state in states))


def unseen(worker: Any, x: Cells, codes: Sequence[np.ndarray], columns: Sequence[list[Any]]) -> UnseenValue:
    """The error of the first column with values that are no category; ``columns`` has the distinct values of each, and
    ``codes`` the rows' positions among them."""
    found = []
    for known, values in zip(worker.categories_, columns, strict=True):
        names = set(_plain(known.tolist()))
        found.append([position for position, value in enumerate(_plain(values)) if value not in names])
    at = next(position for position, new in enumerate(found) if new)
    new = found[at]
    shown = ", ".join(repr(columns[at][position]) for position in new[:5]) + (", ..." if len(new) > 5 else "")
    many = f"{len(new)} values that were" if len(new) > 1 else "a value that was"
    return UnseenValue(
        f"column {x.names[at]!r} has {many} not there when it was fitted: {shown}",
        int(np.argmax(np.isin(codes[at], new))),
        f"Write {_HINTS[type(worker).__name__]}, or fit it on rows that have all categories.",
    )


_HINTS = {
    "OneHotEncoder": 'OneHotEncoder(handle_unknown="ignore"), which gives such a row a 1 nowhere',
    "OrdinalEncoder": 'OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)',
}


def _plain(values: Sequence[Any]) -> list[Any]:
    return [None if standins.is_nan(value) else value for value in values]


@contextmanager
def _counting(worker: Any, state: State) -> Iterator[None]:
    """Within, a fit on distinct values takes the categories for as frequent as they are among all rows. scikit-learn
    has no other door for counts than this method of its own, whose rules (ties too) are then those that decide."""
    own = getattr(worker, "_fit_infrequent_category_mapping", None)
    seen = []

    def mapping(rows: int, counts: Any, missing: Any) -> Any:
        seen.append(rows)
        return own(state["rows"], _counts_of(worker.categories_, state), missing)  # type: ignore[misc]

    worker._fit_infrequent_category_mapping = mapping
    try:
        yield
    finally:
        del worker._fit_infrequent_category_mapping
    rare = (getattr(worker, name, None) is not None for name in ("min_frequency", "max_categories"))
    if any(rare) and not seen:
        raise DataError(f"scikit-learn {sklearn_version()} does not group rare categories as 1.6 to 1.9 do.")


def _counts_of(categories: Sequence[Any], state: State) -> list[np.ndarray]:
    """How often each category stands in its column; 0 for one that the user named and no row has."""
    found = []
    for names, values, counts in zip(categories, state["values"], state["counts"], strict=True):
        known = dict(zip(values, counts.tolist(), strict=True))
        found.append(np.asarray([known.get(name, 0) for name in _plain(names.tolist())], np.int64))
    return found


def sklearn_version() -> str:
    """For messages."""
    import sklearn

    return str(sklearn.__version__)


def coded(x: Cells) -> tuple[list[np.ndarray], list[list[Any]]]:
    """For each column the rows' positions among its distinct values; and those values."""
    columns, codes = [], []
    for position in range(x.shape[1]):
        values, code = _encoded(x, position)
        columns.append(values)
        codes.append(code)
    return codes, columns


def padded(columns: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Columns of one length, filled up with the first value of each."""
    length = max(len(column) for column in columns)
    return [[*column, *[column[0]] * (length - len(column))] for column in columns]


def _encoded(x: Cells, position: int) -> tuple[list[Any], np.ndarray]:
    encoded = dense(x.table.column(position)).combine_chunks().dictionary_encode(null_encoding="encode")
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()


def _widths(worker: Any) -> list[int]:
    """Output columns of each input column."""
    widths = []
    rare = worker.infrequent_categories_ if hasattr(worker, "infrequent_categories_") else repeat(None)
    drops = worker.drop_idx_ if worker.drop_idx_ is not None else [None] * len(worker.categories_)
    for categories, infrequent, drop in zip(worker.categories_, rare, drops, strict=False):
        merged = len(infrequent) - 1 if infrequent is not None else 0
        widths.append(len(categories) - merged - (drop is not None))
    return widths


def _gathered(table: Any, starts: np.ndarray, codes: Sequence[np.ndarray]) -> Any:
    """CSR of the rows from the CSR of distinct values: at most one number a row and input column."""
    from scipy import sparse

    rows, columns = len(codes[0]), len(codes)
    where = np.full((rows, columns), -1, np.int32)
    data = np.zeros((rows, columns), table.dtype)
    entries = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    owners = np.searchsorted(starts, table.indices, side="right") - 1
    for position, code in enumerate(codes):
        mine = owners == position
        at, value = np.full(table.shape[0], -1, np.int32), np.zeros(table.shape[0], table.dtype)
        at[entries[mine]], value[entries[mine]] = table.indices[mine], table.data[mine]
        where[:, position], data[:, position] = at[code], value[code]
    there = where >= 0
    indptr = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    if there.all():
        indices, kept = where.ravel(), data.ravel()
    else:
        indices, kept = where[there], data[there]
    out = sparse.csr_matrix((kept, indices, indptr), shape=(rows, int(starts[-1])))
    if out.shape[1] != table.shape[1]:
        raise DataError(f"one-hot columns were counted as {out.shape[1]}; scikit-learn made {table.shape[1]}.")
    return out
