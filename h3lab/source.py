"""A Source: where raw rows come from. It yields parts and knows its position; it does not prepare anything.

New stores are adapters of :class:`Source`: ``schema``, ``parts``, ``read``, ``describe``. Everything else is derived,
and ``h3lab.testing.check_source`` is their conformance suite.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Part:
    """A run of rows. ``index``: its place in the source; ``rows``: their number, None when only reading tells;
    ``name`` and ``start``: the file or table and the row number in it where the part begins (row keys derive from
    them, never from how the source is cut into parts); ``position``: JSON-able, what the source needs to read it;
    ``version``: changes when the rows may have changed."""

    index: int
    rows: int | None
    name: str
    start: int = 0
    position: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""


class Source(ABC):
    """Rows in parts. Sources are small, immutable and picklable: they name data and hold no connection."""

    #: Whether the rows end, can be read again in the same order, and have an order of their own.
    bounded: bool = True
    replayable: bool = True
    ordered: bool = True

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
