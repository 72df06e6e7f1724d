"""Encoders in parts: unions of distinct values; a part is encoded by its distinct values, not value by value.

scikit-learn spends most of an encoder's time on comparing a million Python strings; Arrow finds the few distinct ones
a hundred times faster, scikit-learn encodes those, and the rows take their codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from h3lab.errors import DataError
from h3lab.preparing.cells import Cells
from h3lab.preparing.labels import dense
from h3lab.preparing.mergeable import Plain
from h3lab.workers import standins

#: Kinds of columns whose values a state can carry and an encoder can sort.
KINDS = {"text", "number", "bool"}


class Categories(Plain):
    """What both encoders share."""

    def takes(self, worker: Any, x: Any) -> bool:
        """Raw columns of text, numbers or booleans, without rare categories, whose counts only a whole column has."""
        if getattr(worker, "min_frequency", None) is not None or getattr(worker, "max_categories", None) is not None:
            return False
        return isinstance(x, Cells) and not x.one and set(x.kinds) <= KINDS

    def partial(self, worker: Any, x: Cells) -> list[list[Any]]:
        """The distinct values of each column; None for a missing one."""
        return [distinct(x, position) for position in range(x.shape[1])]

    def merge(self, states: Sequence[list[list[Any]]]) -> list[list[Any]]:
        """Unions, in the order of first sight."""
        columns = zip(*states, strict=True)
        return [list(dict.fromkeys(value for values in column for value in values)) for column in columns]

    def finish(self, worker: Any, state: list[list[Any]], x: Cells) -> None:
        """Fitted on the distinct values: the categories of all rows are the categories of these."""
        worker.fit(standins.values(x, padded(state)))


class OneHot(Categories):
    """OneHotEncoder."""

    def transform(self, worker: Any, x: Any) -> Any:
        """CSR, or dense with ``sparse_output=False``, as the worker's own."""
        if not self.takes(worker, x) and not _has_rare(worker, x):
            return super().transform(worker, x)
        codes, frame = coded(x)
        table = worker.transform(frame)
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
        if not self.takes(worker, x) and not _has_rare(worker, x):
            return super().transform(worker, x)
        codes, frame = coded(x)
        table = np.asarray(worker.transform(frame))
        out = np.empty((x.shape[0], len(codes)), table.dtype)
        for position, code in enumerate(codes):
            out[:, position] = table[code, position]
        return out


def distinct(x: Cells, position: int) -> list[Any]:
    """The distinct values of a column; NaN counts as missing, as in a DataFrame."""
    values = _encoded(x, position)[0]
    return list(dict.fromkeys(None if standins.is_nan(value) else value for value in values))


def coded(x: Cells) -> tuple[list[np.ndarray], Any]:
    """For each column the rows' positions among its distinct values; and those values side by side as a DataFrame."""
    columns, codes = [], []
    for position in range(x.shape[1]):
        values, code = _encoded(x, position)
        columns.append(values)
        codes.append(code)
    return codes, standins.values(x, padded(columns))


def padded(columns: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Columns of one length, filled up with the first value of each."""
    length = max(len(column) for column in columns)
    return [[*column, *[column[0]] * (length - len(column))] for column in columns]


def _encoded(x: Cells, position: int) -> tuple[list[Any], np.ndarray]:
    encoded = dense(x.table.column(position)).combine_chunks().dictionary_encode(null_encoding="encode")
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()


def _has_rare(worker: Any, x: Any) -> bool:
    # Rare categories change how a worker is fitted, not how it encodes a value.
    return isinstance(x, Cells) and not x.one and set(x.kinds) <= KINDS


def _widths(worker: Any) -> list[int]:
    """Output columns of each input column."""
    widths = []
    rare = worker.infrequent_categories_ if hasattr(worker, "infrequent_categories_") else [None] * 10**6
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
