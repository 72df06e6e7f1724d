"""Doors: a feed as a pandas DataFrame or an Arrow table, for whatever comes after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from h3lab.batch import Batch
from h3lab.feeds.feed import Feed
from h3lab.feeds.rows import columns, is_sparse
from h3lab.stores.tables import fixed_lists, sparse_lists


def frame(feed: Feed, n: int) -> Any:
    """The first ``n`` rows: a column a feature (the pipeline's names, or ``x0``), label and weight; keys as index."""
    import pandas as pd

    batch = feed.batch(slice(0, n))
    names = iter(_names(feed))
    found: dict[str, Any] = {}
    for name, column in columns(batch).items():
        if name.startswith("x"):
            dense = column.toarray() if is_sparse(column) else _flat(column)
            found |= {next(names): dense[:, i] for i in range(dense.shape[1])}
    if batch.y is not None:
        found |= _targets(feed, batch)
    if batch.weight is not None:
        found["weight"] = batch.weight
    index = None if batch.keys is None else pd.Index([f"{key:016x}" for key in batch.keys.tolist()], name="key")
    return pd.DataFrame(found, index=index)


def _names(feed: Feed) -> Iterator[str]:
    if feed.pipeline is not None and len(feed.pipeline.feature_names) == feed.spec.features:
        yield from feed.pipeline.feature_names
        return
    for block in feed.spec.blocks.values():
        yield from (f"{block.name}{i}" for i in range(int(np.prod(block.shape))))


def _label(feed: Feed) -> str:
    return (feed.pipeline.label if feed.pipeline is not None else None) or "y"


def _targets(feed: Feed, batch: Batch) -> dict[str, Any]:
    y = feed.spec.decode(batch.y) if batch.y is not None else np.empty(0)
    if y.ndim == 1:
        return {_label(feed): y}
    return {f"{_label(feed)}{i}": y[:, i] for i in range(y.shape[1])}


def arrow(feed: Feed) -> pa.Table:
    """All rows: ``x`` or a block's name, lists of fixed size (of a sparse block, lists of ``(column, value)``); the
    label, ``weight``, ``key``."""
    batch = feed.batch(slice(None))
    found: dict[str, Any] = {}
    for name, column in columns(batch).items():
        if name.startswith("x"):
            found[name.removeprefix("x/")] = _lists(column)
    if batch.y is not None:
        found |= _targets(feed, batch)
    if batch.weight is not None:
        found["weight"] = batch.weight
    if batch.keys is not None:
        found["key"] = batch.keys
    return pa.table(found)


def _lists(column: Any) -> pa.Array:
    return sparse_lists(column) if is_sparse(column) else fixed_lists(_flat(column))


def _flat(column: np.ndarray) -> np.ndarray:
    """(rows, features), also of no rows, whose features -1 could not tell."""
    return column.reshape(len(column), int(np.prod(column.shape[1:])))
