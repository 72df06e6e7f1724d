"""A Pipeline: Preprocessors side by side, one a block, each a row of scikit-learn workers; a ColumnTransformer over
sources, not a sequence.

It knows how rows become batches once it is fitted; it does not know how it is fitted (``preparing``) or stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from h3lab import worlds
from h3lab.batch import Batch
from h3lab.errors import DataError, NotFittedError, UnknownName, UsageError, guided
from h3lab.joining import joined
from h3lab.preparing import chain, portrait
from h3lab.preparing.cells import Cells, as_table, check_columns, kind, number_type
from h3lab.preparing.labels import encode, null_labels, present
from h3lab.preprocessor import Preprocessor as Preprocessor
from h3lab.serial.fingerprints import fingerprint
from h3lab.settings import whole
from h3lab.spec import Spec, Task

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class Fitted:
    """What fitting found out: ``spec``; ``schema`` (columns and types); ``stages`` (the fitted workers by block);
    ``names`` (feature names by block); ``how`` (how each worker was fitted, JSON-able); ``fingerprint``; ``lookups``
    (where blocks have sources of their own: how these are opened again and looked up, JSON-able)."""

    spec: Spec
    schema: pa.Schema
    stages: Mapping[str, tuple[chain.Stage, ...]]
    names: Mapping[str, list[str]]
    how: list[dict[str, Any]] = field(default_factory=list)
    fingerprint: str = ""
    lookups: Mapping[str, Any] | None = None


@guided
class Pipeline:
    """``h3.Pipeline(h3.Preprocessor("numbers", ["price"], StandardScaler()), label="rating")``: blocks, label and task.
    It is a value: nothing here changes it, or its workers; ``lab.prepare`` makes a fitted one, ``feed.pipeline``.

    ``label``: the label's column. ``task``: None lets the label decide (strings, booleans, categories and whole
    numbers: classification; floats: regression). ``weight``: a column of row weights. ``join``: ``"concat"`` for one
    matrix, ``"blocks"`` for a dict of blocks. ``dtype``: stores a cast. ``seed``: for workers without a random state.
    """

    def __init__(
        self,
        *preprocessors: Preprocessor,
        label: str | None = None,
        task: Task | None = None,
        weight: str | None = None,
        join: Literal["concat", "blocks"] = "concat",
        dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        for given in preprocessors:
            if not isinstance(given, Preprocessor):
                came = f"a Pipeline is made of Preprocessors; a {type(given).__name__} came"
                raise UsageError(f'{came}. For example Pipeline(Preprocessor("numbers", ["price"], StandardScaler())).')
        names = [block.name for block in preprocessors]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"a Pipeline needs at least one block, each of its own name; {names} came.")
        if task not in (None, "classification", "regression"):
            raise UnknownName("task", task, ["classification", "regression"])
        if join not in ("concat", "blocks"):
            raise UnknownName("join", join, ["concat", "blocks"])
        dtype = None if dtype is None else number_type(dtype)
        used = [column for block in preprocessors for column in block.names]
        for what, column in (("label", label), ("weight", weight)):
            if column is not None and not isinstance(column, str):
                raise UsageError(f"{what}={column!r} came; expected the name of a column, for example {what}='rating'.")
            if column is not None and column in used:
                raise UsageError(f"the {what} {column!r} is also a column of a block; the model would be told.")
        self.preprocessors = preprocessors
        self.label, self.task, self.weight, self.join = label, task, weight, join
        self.dtype, self.seed = dtype, whole("seed", seed, 0)
        self._fitted: Fitted | None = None
        #: Lines of comment in the code that it shows: by block, "head" and "foot".
        self._remarks: Mapping[str, Sequence[str]] = {}

    @staticmethod
    def guess(source: Any, label: str | None = None, task: Task | None = None) -> Pipeline:
        """A first pipeline for a table, chosen by the types of its columns and a sample of its rows; ``print`` it: it
        is code to paste and edit, which says what was left out and why. ``source``: whatever ``h3.read`` takes.
        UnknownName: a label that is no column. DataError: no rows, or no column to learn from."""
        from h3lab.preparing.guess import guess

        return guess(source, label, task)

    @staticmethod
    def from_sklearn(transformer: Any, source: Any, label: str | None = None, **settings: Any) -> Pipeline:
        """scikit-learn's ColumnTransformer or Pipeline of transformers as a Pipeline of the same outputs, fitted in
        parts where this can; one that came fitted is only applied. ``source``: rows, for their columns and types."""
        from h3lab.preparing.from_sklearn import as_pipeline

        return as_pipeline(transformer, source, label, **settings)

    def plan(self, source: Any, **choices: Any) -> Any:
        """What preparing a source with these ``choices`` would make, from a sample of its rows or a pyarrow Schema: an
        :class:`Outlook` of spec, blocks, types, classes and bytes, which says what of it is estimated, or unknown."""
        return worlds.load("h3lab.preparing.outlook:outlook")(self, source, **choices)

    @property
    def columns(self) -> list[str]:
        """The columns of all blocks, without label and weight."""
        return list(dict.fromkeys(column for block in self.preprocessors for column in block.names))

    @property
    def fitted(self) -> bool:
        """Whether it has learned from rows."""
        return self._fitted is not None

    @property
    def spec(self) -> Spec:
        """What a model must know of the prepared rows; NotFittedError before fitting."""
        return self.state.spec

    @property
    def state(self) -> Fitted:
        """What fitting found out; NotFittedError before."""
        if self._fitted is None:
            raise NotFittedError(
                "this pipeline has not learned anything yet. Prepare rows with it, then use the feed's pipeline: "
                "feed = lab.prepare(pipeline, rows); feed.pipeline. Its spec from a sample or a schema: "
                "pipeline.plan(source).spec"
            )
        return self._fitted

    @property
    def feature_names(self) -> list[str]:
        """Names of the prepared columns, ``block__column``, as ColumnTransformer would name them."""
        return [f"{block}__{name}" for block, names in self.state.names.items() for name in names]

    def with_fitted(self, fitted: Fitted | None) -> Pipeline:
        """The same recipe, fitted (or, with None, not)."""
        new = Pipeline.__new__(Pipeline)
        new.__dict__ = {**self.__dict__, "_fitted": fitted}
        return new

    def replace(self, **changes: Any) -> Pipeline:
        """The same blocks with another ``label``, ``task`` and so on; not fitted."""
        known = {name: getattr(self, name) for name in ("label", "task", "weight", "join", "dtype", "seed")}
        for name in changes:
            if name not in known:
                raise UnknownName("setting of a Pipeline", name, known)
        return Pipeline(*self.preprocessors, **{**known, **changes})

    def transform(self, rows: Any, told: Sequence[str] = ("label", "weight")) -> Batch:
        """Raw rows → a Batch. ``rows``: a DataFrame, Arrow table, Source, list of dicts. The label column may be
        absent. ``told``: which of label and weight are looked at; one that is not may have gaps and values never seen.
        Where the pipeline was fitted on arrays, an array (rows, ...). Errors name columns that are missing, misspelt or
        of another type.
        """
        state = self.state
        rows = joined.with_lookups(rows, state.lookups)
        if isinstance(rows, np.ndarray) and self.takes_arrays:
            rows = worlds.load("h3lab.sources:read")(rows)
        table = as_table(rows, state.schema.names, [*filter(None, (getattr(self, name) for name in told))])
        if not table.num_rows:
            raise DataError("no rows came; at least one was expected.")
        return self.batch(table)

    @property
    def takes_arrays(self) -> bool:
        """Whether its columns are those of a bare array: x0, x1, ..., or x for one of more dimensions."""
        return all(re.fullmatch(r"x\d*", name) for name in self.columns)

    def batch(self, table: pa.Table) -> Batch:
        """One table of raw rows, as it is when prepared."""
        state = self.state
        raw = check_columns(table, state.schema, "these rows")
        blocks = {
            block.name: chain.run(state.stages[block.name], block.cells(raw), f"block {block.name!r}")
            for block in self.preprocessors
        }
        return self.joined(blocks, table)

    def joined(self, blocks: Mapping[str, Any], table: pa.Table, keys: np.ndarray | None = None) -> Batch:
        """Prepared blocks by name, with label and weight of the raw rows, as the model gets them."""
        rows = {name: block.shape[0] for name, block in blocks.items()}
        if len(set(rows.values())) > 1:
            raise DataError(f"blocks have different rows: {', '.join(f'{n!r} has {r}' for n, r in rows.items())}.")
        known = self.spec.blocks
        cast = {name: chain.conform(block, known[name], f"block {name!r}") for name, block in blocks.items()}
        x: Any = cast if self.join == "blocks" else chain.side_by_side(list(cast.values()))
        return Batch(x, self._y(table), self._weights(table), None, keys)

    def _y(self, table: pa.Table) -> np.ndarray | None:
        if self.label is None or self.label not in table.column_names:
            return None
        column = table.column(self.label)
        nulls = len(column) - int(present(column).to_numpy().sum())
        if nulls:
            raise null_labels(self.label, nulls, len(column))
        return encode(column, self.spec, self.label)

    def _weights(self, table: pa.Table) -> np.ndarray | None:
        if self.weight is None or self.weight not in table.column_names:
            return None
        column = table.column(self.weight)
        if kind(column.type) not in ("number", "bool"):
            raise DataError(f"the weight column {self.weight!r} is {column.type}; weights are numbers from 0 on.")
        values = Cells(table.select([self.weight]), one=True).array().astype(np.float64)
        if not np.isfinite(values).all() or (values < 0).any():
            raise DataError(f"the weight column {self.weight!r} has missing, infinite or negative values.")
        return values

    @property
    def fingerprint(self) -> str:
        """The same for the same recipe and, once fitted, the same learned numbers, in any process."""
        return self.state.fingerprint if self.fitted else self.recipe

    @property
    def recipe(self) -> str:
        """The fingerprint of what was written, whether fitted or not."""
        blocks = [(block.name, block.columns, block.workers, block.source) for block in self.preprocessors]
        return fingerprint(blocks, self.label, self.task, self.weight, self.join, self.dtype, self.seed)

    def to_document(self) -> dict[str, Any]:
        """A codec tree, workers as skops bytes; nothing in it is a pickle."""
        from h3lab.serial import documents

        return documents.to_document(self)

    @staticmethod
    def from_document(tree: Mapping[str, Any], types: Iterable[Any] = ()) -> Pipeline:
        """The inverse. ``types``: classes and functions of your own that the workers use; Untrusted names them."""
        from h3lab.serial import documents

        return documents.from_document(tree, types)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pipeline) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return portrait.program(self) if self._remarks else portrait.text(self)

    def __str__(self) -> str:
        return portrait.program(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": portrait.html(self)}
