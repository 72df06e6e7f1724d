"""Guess: a first pipeline for a table, from its schema and a sample of its rows, to be read and edited.

It knows kinds of columns and which workers suit them; it fits nothing, and reads a bounded number of parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from h3lab import worlds
from h3lab.errors import DataError, UsageError
from h3lab.preparing.cells import kind
from h3lab.preparing.labels import dense, is_float, present

if TYPE_CHECKING:
    import pyarrow as pa

    from h3lab.pipeline import Pipeline
    from h3lab.preprocessor import Preprocessor
    from h3lab.source import Source
    from h3lab.spec import Task

#: Parts that are looked at, spread evenly: all of a small source, about a quarter of a million rows of a large one.
SAMPLE_PARTS = 4
#: Rows of which the label column alone is read to count its gaps exactly.
COUNTED_ROWS = 5_000_000
#: With more categories than this, a one-hot block is mostly zeros and each category too rare to learn from.
MANY_CATEGORIES = 50
#: A label of whole numbers with more values than this is more likely a quantity than a class.
MANY_LABELS = 20
#: Words a value, on average, from which on text is prose rather than a name.
PROSE_WORDS = 3.0
#: Terms that a vectorizer keeps: the most frequent ones carry nearly all there is to learn.
TERMS = 10_000


@dataclass(frozen=True)
class Column:
    """What a sample tells of a column: its Arrow ``type``, rows that are ``missing`` or have a value (``present``),
    ``distinct`` values, whether it is a ``category`` by its type, ``words`` a value where it is text, whether
    it is ``whole`` numbers, and whether it is text that is ``dated``."""

    name: str
    type: str
    kind: str
    present: int
    missing: int
    distinct: int
    category: bool = False
    words: float = 0.0
    whole: bool = False
    dated: bool = False

    @classmethod
    def of(cls, name: str, values: pa.ChunkedArray) -> Column:
        """Look at the values of a sample."""
        import pyarrow as pa
        import pyarrow.compute as pc

        what = kind(values.type)
        there = dense(values).filter(present(values)) if what not in ("list", "other") else values.drop_null()
        distinct = pc.count_distinct(there).as_py() if what not in ("list", "other", "null") else len(there)
        words = 0.0
        if what == "text" and len(there):
            words = 1 + pc.mean(pc.count_substring(pc.utf8_trim_whitespace(there.cast("string")), " ")).as_py()
        category, whole = pa.types.is_dictionary(values.type), pa.types.is_integer(there.type)
        missing, dated = len(values) - len(there), what == "text" and _dated(there)
        return cls(name, str(values.type), what, len(there), missing, distinct, category, words, whole, dated)

    @property
    def role(self) -> str:
        """The block that it goes to, or, in words, why it is left out."""
        if self.kind in ("list", "other"):
            return f"of type {self.type}, which is no single value; pick numbers or text out of it in the source"
        if not self.present:
            return "no value in any row"
        if self.distinct == 1:
            return "one value in all rows"
        if self.kind == "time" or self.dated:
            return f"a time ({self.type}); add columns such as hour, weekday or month in the source"
        if self.kind == "number" and not self.category:
            return IDENTIFIER if self.whole and self.distinct == self.present > MANY_CATEGORIES else "numbers"
        if self.kind == "bool" and not self.missing:
            return "flags"
        if self.kind == "text" and self.distinct > MANY_CATEGORIES and self.words >= PROSE_WORDS:
            return "text"
        if self.distinct == self.present and self.present > 2:
            return IDENTIFIER
        return "categories" if self.distinct <= MANY_CATEGORIES else "many categories"


def _dated(values: pa.ChunkedArray) -> bool:
    """Whether text is dates or times, as CSV and pandas often keep them."""
    import pyarrow as pa

    for zone in (None, "UTC"):
        try:
            values.slice(0, 100).cast("string").cast(pa.timestamp("us", zone))
            return len(values) > 0
        except pa.ArrowInvalid:
            continue
    return False


IDENTIFIER = "another value in every row, as an identifier has"
ROLES = ("numbers", "flags", "categories", "many categories", "text")


def guess(source: Any, label: str | None = None, task: Task | None = None) -> Pipeline:
    """See :meth:`h3lab.pipeline.Pipeline.guess`."""
    from h3lab.pipeline import Pipeline

    if label is None and isinstance(source, tuple):
        label = "y"  # as arrays are named
    source = worlds.load(worlds.READ)(source)
    if not source.bounded:
        raise UsageError(f"{source.title} has no end. Land a piece of it as files first, and guess from these.")
    names = source.schema.names
    if label is not None and label not in names:
        raise source.missing(label, "the source")
    sample, whole = sampled(source)
    if not sample.num_rows:
        raise DataError(f"{source.title} has no rows, so there is nothing to guess from.")
    columns = [Column.of(name, sample.column(name)) for name in names if name != label]
    blocks, remarks = _blocks(columns, whole)
    left = [column for column in columns if column.role not in ROLES]
    if not blocks:
        told = "; ".join(f"{column.name!r}: {column.role}" for column in left)
        raise DataError(f"{source.title} has no column to learn from{f' beside {label!r}' if label else ''}. {told}")
    head = [] if whole else [f"guessed from {sample.num_rows:,} rows, not from all"]
    foot = [f"left out: {column.name!r}, {column.role}" for column in left]
    if label is not None:
        task, why = _task(sample.column(label), task)
        foot = [*why, *_gaps(source, label, sample, whole), *foot]
    pipeline = Pipeline(*blocks, label=label, task=task)
    pipeline._remarks = {**remarks, "head": head, "foot": foot}
    return pipeline


def sampled(source: Source) -> tuple[pa.Table, bool]:
    """Some parts of a source as one table, and whether these are all."""
    import pyarrow as pa

    parts = list(source.parts())
    if not parts:
        return source.schema.empty_table(), True
    count = min(SAMPLE_PARTS, len(parts))
    chosen = [parts[i * (len(parts) - 1) // max(1, count - 1)] for i in range(count)]
    tables = [source.read(part) for part in chosen]
    return pa.concat_tables(tables, promote_options="permissive"), count == len(parts)


def _blocks(columns: Sequence[Column], whole: bool) -> tuple[list[Preprocessor], dict[str, list[str]]]:
    """The blocks, and a comment on each that is not plain."""
    from h3lab.preprocessor import Preprocessor

    found: dict[str, list[Column]] = {role: [c for c in columns if c.role == role] for role in ROLES}
    blocks, remarks = [], {}
    for role, members in found.items():
        if members:
            # What a sample does not miss may still be missing elsewhere.
            gaps = any(column.missing for column in members) or not whole
            blocks.append(Preprocessor(role, [column.name for column in members], *_workers(role, gaps)))
    if found["many categories"]:
        told = ", ".join(f"{column.name} {column.distinct:,}" for column in found["many categories"])
        remarks["many categories"] = [
            f"more than {MANY_CATEGORIES} categories ({told}): a column of codes each and no one-hot, which trees can",
            "split; their order means nothing: for a linear model or a network group the rare ones in the source",
        ]
    return blocks, remarks


def _workers(role: str, gaps: bool) -> list[Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    if role == "numbers":
        return [*([SimpleImputer()] if gaps else []), StandardScaler()]
    if role == "categories":
        return [OneHotEncoder(handle_unknown="ignore")]  # a missing value is a category of its own
    if role == "many categories":
        # A TargetEncoder would look at the labels of the rows that it then encodes, and hashes cannot be read back.
        options = {"handle_unknown": "use_encoded_value", "unknown_value": -1, "encoded_missing_value": -2}
        return [OrdinalEncoder(**options), StandardScaler()]
    if role == "text":
        filled = [SimpleImputer(strategy="constant", fill_value="")] if gaps else []
        return [*filled, TfidfVectorizer(max_features=TERMS)]
    return []


def _task(column: pa.ChunkedArray, task: Task | None) -> tuple[Task | None, list[str]]:
    """The task to write down where the label's type alone would say another, and why."""
    import pyarrow.compute as pc
    import pyarrow.types as t

    if task is not None or is_float(column.type) or not t.is_integer(column.type):
        return task, []
    distinct = pc.count_distinct(column).as_py()
    if distinct <= MANY_LABELS:
        return None, []
    return "regression", [f"task: the label has {distinct:,} different whole numbers, so it is taken as a quantity"]


def _gaps(source: Source, label: str, sample: pa.Table, whole: bool) -> list[str]:
    """What to write where rows miss the label, with their number."""
    rows = [part.rows for part in source.parts()]
    columns = [sample.column(label)]
    if not whole and None not in rows and sum(n or 0 for n in rows) <= COUNTED_ROWS:
        columns, whole = [table.column(label) for table in source.tables([label])], True
    total = sum(map(len, columns))
    missing = total - sum(int(present(column).to_numpy().sum()) for column in columns)
    if not missing:
        return []
    told = f"{missing:,} of {total:,} rows" + ("" if whole else " of the sample")
    return [f'{told} have no {label!r}: leave them out with lab.train(..., on_null_label="drop")']
