"""A Preprocessor: one block of a pipeline, its columns and its workers in a row.

It knows what was written and checks it; it is never fitted itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from h3lab.errors import UsageError, guided
from h3lab.preparing import portrait
from h3lab.preparing.cells import select

if TYPE_CHECKING:
    import pyarrow as pa


@guided
class Preprocessor:
    """One block, ``h3.Preprocessor("text", ["title", "body"], TfidfVectorizer(), TruncatedSVD(64))``: its name, its
    columns and its workers in a row.

    ``columns``: a string selects one 1-D column, a list a 2-D table, as in ColumnTransformer. ``workers``:
    scikit-learn transformers; none passes numbers through. A worker that takes one column of text is cloned for each
    column of a list. ``source``: the name of the source that has the columns, where it is not the pipeline's.
    """

    def __init__(self, name: str, columns: str | Iterable[str], *workers: Any, source: str | None = None) -> None:
        if not isinstance(name, str) or not name:
            raise UsageError(f"a Preprocessor begins with its block's name; {name!r} came.")
        if "__" in name:
            raise UsageError(f"block {name!r}: '__' separates block and column in feature names; write one '_'.")
        if not isinstance(columns, str):
            columns = tuple(columns) if isinstance(columns, Iterable) and not hasattr(columns, "transform") else ()
            if not columns or not all(isinstance(column, str) for column in columns):
                raise UsageError(
                    f"block {name!r}: columns are a name or a list of names. "
                    f'For example Preprocessor("{name}", ["price", "stars"], StandardScaler()).'
                )
            twice = next((column for column in columns if columns.count(column) > 1), None)
            if twice is not None:
                raise UsageError(f"block {name!r} names the column {twice!r} twice; leave one of them out.")
        for worker in workers:
            if isinstance(worker, type) or not (hasattr(worker, "transform") and hasattr(worker, "fit")):
                hint = f" Write {worker.__name__}() with its parentheses." if isinstance(worker, type) else ""
                raise UsageError(
                    f"block {name!r}: {worker!r} is no scikit-learn transformer (fit and transform).{hint}"
                )
            if not hasattr(worker, "get_params") or not hasattr(worker, "__sklearn_tags__"):
                raise UsageError(
                    f"block {name!r}: {type(worker).__name__} cannot be cloned. Let it inherit from scikit-learn's "
                    "TransformerMixin and BaseEstimator, in this order, and store its arguments in __init__."
                )
        self.name, self.columns, self.workers, self.source = name, columns, workers, source

    @property
    def names(self) -> list[str]:
        """The columns, as the joined rows call them: ``source.column`` where the block has a source of its own."""
        return self.bare if self.source is None else [f"{self.source}.{name}" for name in self.bare]

    @property
    def bare(self) -> list[str]:
        """The columns, as they were written and as workers see them."""
        return [self.columns] if isinstance(self.columns, str) else list(self.columns)

    def cells(self, table: pa.Table) -> Any:
        """This block's columns of a table, as its first worker gets them."""
        if self.source is not None:
            table = table.select(self.names).rename_columns(self.bare)
        return select(table, self.columns)

    def __repr__(self) -> str:
        return portrait.block_lines(self)
