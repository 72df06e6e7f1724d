"""A Source: where raw rows come from. It yields parts and knows its position; it does not prepare anything.

New stores are adapters of :class:`Source`: ``schema``, ``parts``, ``read``, ``describe``. Everything else is derived,
and ``h3lab.testing.check_source`` is their conformance suite.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab import pictures
from h3lab.errors import DataError, UnknownName, guided
from h3lab.settings import whole

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: Rows of a part, where the source itself does not decide: some megabytes of a usual table.
PART_ROWS = 65_536


@dataclass(frozen=True)
class Part:
    """A run of rows. ``index``: its place in the source; ``rows``: their number, None when only reading tells;
    ``name`` and ``start``: the file or table and the row number in it where the part begins (row keys derive from
    them, never from how the source is cut into parts); ``position``: JSON-able, what the source needs to read it;
    ``version``: changes when the rows may have changed. ``contents``: by column a digest of its values, where somebody
    has read them; with one of the row keys, called ``""``, a part is the same wherever it stands.
    ``bad``: how many rows more were left out, with their numbers, because they are none."""

    index: int
    rows: int | None
    name: str
    start: int = 0
    position: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    contents: Mapping[str, str] = field(default_factory=dict)
    bad: int = 0

    def inside(self) -> dict[str, Any]:
        """The position of a part that is made of this one; ``Part(**position["of"])`` reads it."""
        return {"of": asdict(replace(self, contents={}))}


@guided
class Source(ABC):
    """Rows in parts. Sources are small, immutable and picklable: they name data and hold no connection."""

    #: Whether the rows end; are the same when they are read again; and then come in the same order. What is not so
    #: is told by ``notes``, and a source around another one promises what that does.
    bounded: bool = True
    replayable: bool = True
    ordered: bool = True
    #: Whether the row keys follow from a part's name and row numbers alone, so that no row is read to know them.
    numbered: bool = True

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """Names and types of the columns; cheap."""

    @abstractmethod
    def parts(self) -> Sequence[Part]:
        """The parts in order; reads no rows where the format tells sizes without."""

    @abstractmethod
    def read(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a part, some columns or all. DamagedData names file and part when it cannot be read;
        UnknownName lists the columns when one is missing."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """JSON-able: how to open this source again (``h3lab.worlds.reopen``). Never a password."""

    def keys(self, part: Part, table: pa.Table) -> np.ndarray:
        """(rows,) uint64 keys of the rows of a part that was read; stable when rows are added to the source."""
        return row_keys(part.name, part.start, table.num_rows)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The parts' tables, one after another."""
        for part in self.parts():
            yield self.read(part, columns)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema.names)

    def check(self, columns: Sequence[str] | None) -> list[str]:
        """The columns that are asked for, or all; UnknownName for one that does not exist."""
        known = self.columns
        for name in columns or ():
            if name not in known:
                raise self.missing(name)
        return known if columns is None else list(columns)

    def missing(self, column: str, where: str = "") -> UnknownName | DataError:
        """The error of a column that is not there, or not in all of what this reads."""
        why, where = self.partly(column), where or self.title
        return DataError(f"{where}: {why}") if why else UnknownName("column", column, self.columns, where)

    def partly(self, column: str) -> str:
        """Why a column cannot be read that some of the rows have, and what to do; "" where there is none such."""
        base = getattr(self, "base", None)
        return base.partly(column) if isinstance(base, Source) else ""

    @property
    def title(self) -> str:
        """What this is, in a few words; never a password."""
        return type(self).__name__

    @property
    def notes(self) -> list[str]:
        """What is unusual about this, in a few words each; shown beside the title."""
        base = getattr(self, "base", None)
        if isinstance(base, Source):
            return base.notes
        told = {"without an end": self.bounded, "read once": self.replayable, "in no order": self.ordered}
        return [words for words, usual in told.items() if not usual]

    def size(self) -> str:
        """How much this is, where it is known without reading rows; shown beside the title."""
        rows = [part.rows for part in self.parts()]
        return f"{sum(n or 0 for n in rows):,} rows" if None not in rows else ""

    def first(self, rows: int) -> pa.Table:
        """The first rows, all columns; reads no more than it must."""
        import pyarrow as pa

        found = [self.schema.empty_table()]
        for part in self.parts():
            found.append(self.read(part).slice(0, rows))
            rows -= found[-1].num_rows
            if rows <= 0:
                break
        return pa.concat_tables(found)

    def head(self, n: int = 5) -> pd.DataFrame:
        """The first ``n`` rows."""
        return self.first(whole("n", n, 0)).to_pandas()

    def __len__(self) -> int:
        return int(self._once("length", self._count))

    def __bool__(self) -> bool:
        return True  # else `if source:` would count its rows

    def _count(self) -> int:
        rows = [self.read(p, self.columns[:1]).num_rows if p.rows is None else p.rows for p in self.parts()]
        return sum(rows)

    def split(self, test: float = 0.2, seed: int = 0, stratify: str | None = None) -> tuple[Source, Source]:
        """(train, test), drawn by row key and seed: a row keeps its side when rows are added, and sizes are
        approximate. ``stratify``: a column of classes, each of which is split exactly (after one pass over the rows,
        and no longer stable). DataError where a side would be empty."""
        from h3lab.splits import split

        return split(self, test, seed, stratify)

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        """A value that is found out once in this process and does not travel."""
        known = self.__dict__.setdefault("_known", {})
        if name not in known:
            known[name] = make()
        return known[name]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_known"}

    def __repr__(self) -> str:
        return pictures.source_text(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": pictures.source_text(self), "text/html": pictures.source_html(self)}


def row_keys(name: str, start: int, rows: int) -> np.ndarray:
    """Keys of rows ``start`` to ``start + rows`` of a file or table without a key of its own."""
    import hashlib

    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    return mix(np.arange(start, start + rows, dtype=np.uint64) + np.uint64(seed))


def mix(values: np.ndarray) -> np.ndarray:
    """A bijective scramble of uint64 (the finalizer of SplitMix64, Steele et al. 2014): equal in, equal out."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def fraction(keys: np.ndarray, seed: int) -> np.ndarray:
    """(rows,) numbers in [0, 1) drawn by key and seed: the same row gets the same number wherever it stands."""
    with np.errstate(over="ignore"):
        drawn = mix(keys ^ mix(np.full(1, seed, np.uint64)))
    return (drawn >> np.uint64(11)).astype(np.float64) * 2.0**-53
