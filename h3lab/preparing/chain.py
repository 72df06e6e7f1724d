"""A chain: the workers of one block in a row, applied to its columns.

It knows what a worker may be given and must give back; it does not know how a worker is fitted, or other blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from h3lab import worlds
from h3lab.errors import DataError, H3labError, UnseenValue
from h3lab.preparing.cells import Cells, native
from h3lab.spec import Block

#: The workers at one place of a chain: one for the whole input, or, where a worker takes one column of text, a clone
#: of it for each column.
Stage = tuple[Any, ...]
#: Rows that are joined at a time.
JOINED_ROWS = 8192


def takes_text(worker: Any) -> bool:
    """Whether a worker takes one 1-D column of text (its tags say so)."""
    from sklearn.utils import get_tags

    tags = get_tags(worker).input_tags
    return bool(tags.string and not tags.two_d_array)


def inputs_of(worker: Any, x: Any) -> list[Any]:
    """What the workers of a stage are given: ``x`` as a whole, or each of its columns for a worker that takes one
    column of text. (scikit-learn alone would vectorise the column names of a table, without an error.) Workers take
    images as rows of pixels."""
    if isinstance(x, np.ndarray) and x.ndim > 2:
        x = x.reshape(len(x), -1)
    if not takes_text(worker) or len(x.shape) == 1:
        return [x]
    if isinstance(x, Cells):
        return [x.column(i) for i in range(x.shape[1])]
    return [np.asarray(x)[:, i] for i in range(x.shape[1])]


def apply(stage: Stage, given: Sequence[Any], where: str) -> Any:
    """The output of a stage from what each of its workers is given; the outputs of clones side by side. ``where``
    names the block in errors."""
    return side_by_side([transform(worker, x, where) for worker, x in zip(stage, given, strict=True)])


def transform(worker: Any, x: Any, where: str) -> Any:
    """One fitted worker's output; DataError that names block and worker where it fails or changes the rows."""
    family = worlds.load("h3lab.workers:mergeable")(worker)
    with naming(worker, x, where):
        out = worker.transform(native(x)) if family is None else family.transform(worker, x)
    if not hasattr(out, "shape"):
        out = np.asarray(out)
    if out.shape[0] != x.shape[0]:
        raise DataError(
            f"{where}, worker {name_of(worker)}: {x.shape[0]} rows came in and {out.shape[0]} came out. A worker of a "
            "pipeline gives one row for each row; filter the source instead."
        )
    return out


def rows(x: Any, chosen: np.ndarray) -> Any:
    """Some rows of an input, by mask."""
    if isinstance(x, Cells):
        return replace(x, table=x.table.filter(chosen))
    return x[chosen]


def stacked(parts: Sequence[Any]) -> Any:
    """Inputs of several parts, one below the other."""
    if isinstance(parts[0], Cells):
        import pyarrow as pa

        tables = [part.table for part in parts]
        return replace(parts[0], table=pa.concat_tables(tables, promote_options="permissive"))
    if hasattr(parts[0], "indptr"):
        from scipy import sparse

        return sparse.csr_matrix(sparse.vstack(parts, format="csr"))
    if hasattr(parts[0], "columns"):
        import pandas as pd

        return pd.concat(parts, ignore_index=True)
    return np.concatenate(parts)


class naming:
    """Maps whatever a worker raises to a DataError that names block, worker and columns with their types."""

    def __init__(self, worker: Any, x: Any, where: str) -> None:
        self.worker, self.x, self.where = worker, x, where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception):
            return
        context = f"{self.where}, worker {name_of(self.worker)}"
        if isinstance(error, UnseenValue):
            raise error.placed(context=f"{context}: ") from error.__cause__
        if isinstance(error, H3labError):
            raise DataError(f"{context}: {error}") from error
        given = ""
        if isinstance(self.x, Cells):
            given = f" It was given {self.x.types()}" + (" as one 1-D column." if self.x.one else ".")
            if self.x.one and "2D" in str(error):
                given += f" Write [{self.x.names[0]!r}] instead of {self.x.names[0]!r} to give it a 2-D table."
        raise DataError(f"{context}: {error}{given}") from error


def name_of(worker: Any) -> str:
    """A worker as messages call it."""
    return type(worker).__name__


def side_by_side(outputs: Sequence[Any]) -> Any:
    """Outputs joined by row: CSR where one is sparse, else a dense array (rows, columns). One output stays as it is."""
    if len(outputs) == 1:
        return outputs[0]
    from scipy import sparse

    flat = [out if sparse.issparse(out) else np.asarray(out).reshape(out.shape[0], -1) for out in outputs]
    if any(sparse.issparse(out) for out in flat):
        return _joined(flat)
    return np.concatenate(flat, axis=1)


def _joined(blocks: Sequence[Any]) -> Any:
    """CSR of blocks of which one is sparse, made in runs of rows: scipy holds all of it three times at once."""
    from scipy import sparse

    rows, columns = blocks[0].shape[0], sum(block.shape[1] for block in blocks)
    size = sum(block.nnz if sparse.issparse(block) else int(np.count_nonzero(block)) for block in blocks)
    index = np.int32 if max(size, columns) < 2**31 else np.int64
    data = np.empty(size, np.result_type(*(block.dtype for block in blocks)))
    indices, indptr = np.empty(size, index), np.zeros(rows + 1, index)
    for start in range(0, rows, JOINED_ROWS):
        run = slice(start, start + JOINED_ROWS)
        piece = sparse.hstack([_csr(block[run]) for block in blocks], format="csr")
        at = int(indptr[start])
        data[at : at + piece.nnz], indices[at : at + piece.nnz] = piece.data, piece.indices
        indptr[start + 1 : start + 1 + piece.shape[0]] = piece.indptr[1:] + at
    return sparse.csr_matrix((data, indices, indptr), shape=(rows, columns), copy=False)


def _csr(x: Any) -> Any:
    """A matrix as CSR. Scaled numbers have no zeros, and then there is nothing to look for."""
    from scipy import sparse

    if sparse.issparse(x) or np.count_nonzero(x) < x.size:
        return sparse.csr_matrix(x)
    rows, columns = x.shape
    indices = np.tile(np.arange(columns, dtype=np.int32), rows)
    indptr = np.arange(0, x.size + 1, columns, dtype=np.int32 if x.size < 2**31 else np.int64)
    return sparse.csr_matrix((x.ravel(), indices, indptr), shape=x.shape)


def finished(x: Any, where: str) -> Any:
    """The end of a chain as numbers: CSR, or a dense array (rows, ...); DataError where text is left."""
    from scipy import sparse

    if isinstance(x, Cells):
        x = x.native() if x.bare else x.array()
    if sparse.issparse(x):
        return sparse.csr_matrix(x)
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        try:
            x = x.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{where} ends with values of type {x.dtype}, but a model needs numbers. Put a worker at the end that "
                "makes numbers of them, such as OneHotEncoder() or TfidfVectorizer()."
            ) from error
    return x.reshape(-1, 1) if x.ndim == 1 else x


def conform(x: Any, spec: Block, where: str) -> Any:
    """Prepared numbers in the type, form and shape that the spec promises for every part; DataError where they do not
    fit (a column of whole numbers that has gaps here and had none when the pipeline was fitted)."""
    from scipy import sparse

    if tuple(x.shape[1:]) != spec.shape:
        raise DataError(f"{where} has shape {tuple(x.shape[1:])} a row here, and had {spec.shape} when it was fitted.")
    if sparse.issparse(x) != spec.sparse:
        x = sparse.csr_matrix(x) if spec.sparse else x.toarray()
    if str(x.dtype) == spec.dtype:
        return x
    if np.dtype(spec.dtype).kind in "iub" and x.dtype.kind == "f":
        raise DataError(f"{where} has gaps or fractions here ({x.dtype}), and was of type {spec.dtype} when fitted.")
    return _cast(x, np.dtype(spec.dtype), where)


def _cast(x: Any, dtype: np.dtype[Any], where: str) -> Any:
    """Numbers in another type; DataError for one that would come out as another number, or as infinity."""
    values = x.data if hasattr(x, "indptr") else x
    if dtype.kind in "iu" and values.size and not np.can_cast(values.dtype, dtype):
        low, high, limits = values.min(), values.max(), np.iinfo(dtype)
        if low < limits.min or high > limits.max:
            raise DataError(f"{where} has values from {low} to {high}, which {dtype} does not hold. {_WIDER}")
    try:
        with np.errstate(over="raise"):
            return x.astype(dtype)
    except FloatingPointError as error:
        raise DataError(
            f"{where} has values that {dtype} does not hold (up to {np.finfo(dtype).max:.4g}). {_WIDER}"
        ) from error


_WIDER = "Take a wider type, Pipeline(..., dtype=...), or scale the numbers before."


def run(stages: Sequence[Stage], x: Any, where: str) -> Any:
    """All stages of a fitted chain, then numbers."""
    for stage in stages:
        x = apply(stage, inputs_of(stage[0], x), where)
    return finished(x, where)


def feature_names(stages: Sequence[Stage], names: Sequence[str], width: int) -> list[str]:
    """Names of a chain's output columns, as ``get_feature_names_out`` of its workers gives them; numbered where one
    cannot say."""
    current: list[str] | None = list(names)
    for stage in stages:
        current = _stage_names(stage, current)
    if current is None or len(current) != width:
        return [str(i) for i in range(width)]
    return current


def _stage_names(stage: Stage, names: list[str] | None) -> list[str] | None:
    out: list[str] = []
    for position, worker in enumerate(stage):
        if not hasattr(worker, "get_feature_names_out") or names is None:
            return None
        try:
            given = None if takes_text(worker) else np.asarray(names, dtype=object)
            found = [str(name) for name in worker.get_feature_names_out(given)]
        except (ValueError, AttributeError, TypeError):  # a FunctionTransformer that was not told how to name them
            return None
        prefix = f"{names[position]}__" if len(stage) > 1 and position < len(names) else ""
        out += [prefix + name for name in found]
    return out
