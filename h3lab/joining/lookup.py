"""A lookup: the rows of a source by their key, once in memory or once in files that every process maps.

It knows keys as 64-bit hashes in order; that two keys with one hash are no match is checked on their values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab.errors import DataError
from h3lab.joining.alike import hashed, same, usable
from h3lab.preparing.workroom import storing
from h3lab.serial.contents import Digest, joint
from h3lab.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

#: A hash and a row number, and as much again while they are put in order.
BYTES_A_KEY = 48


@dataclass
class Lookup:
    """``find`` the rows of keys, ``take`` their columns. ``columns``: those that are kept. ``counts``: ``rows``,
    ``duplicates`` and ``without_key``. ``digest``: of the values of all that is kept, in their order."""

    name: str
    columns: list[str]
    counts: dict[str, int]
    folder: Path | None = None
    digest: str = ""
    _open: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        source: Source,
        pairs: Sequence[tuple[str, str]],
        folder: Path | None,
        on_duplicate: str,
        columns: Sequence[str],
        blocks: Sequence[str] = (),
    ) -> Lookup:
        """Read a source part by part: hashes of its keys into memory, the columns that are needed to ``folder`` (None:
        memory too). DataError for doubled keys, which names the ``blocks`` that look them up, and where the keys do not
        fit into memory."""
        there, parts = [name_there for _, name_there in pairs], source.parts()
        wanted = list(dict.fromkeys([*there, *columns]))
        schema = source.schema.empty_table().select(wanted).schema.remove_metadata()
        hashes, rows, at, kept = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0, [schema.empty_table()]
        digests = {column: Digest() for column in wanted}
        with _writing(None if folder is None else folder / f"lookup-{name}.arrow", schema) as write:
            for part in parts:
                table = source.read(part, wanted).replace_schema_metadata(None)
                known = usable(table.select(there))
                hashes.append(hashed(_rows(table, known, there), name))
                rows.append(at + np.flatnonzero(known))
                at += table.num_rows
                check_memory(name, at)
                write(table)
                kept += [table] if folder is None else []
                for column in wanted if folder is not None else ():
                    digests[column].add(table.column(column))
        content = joint({column: digest.hexdigest() for column, digest in digests.items()})
        bad = sum(part.bad for part in parts)
        counts = {"rows": at, **({"bad_rows": bad} if bad else {})}
        self = cls(name, wanted, counts, folder, "" if folder is None else content)
        if folder is None:
            import pyarrow as pa

            self._open["table"] = pa.concat_tables(kept)
        self._index(np.concatenate(hashes), np.concatenate(rows), there, on_duplicate, blocks)
        return self

    def _index(
        self, hashes: np.ndarray, rows: np.ndarray, there: list[str], on_duplicate: str, blocks: Sequence[str]
    ) -> None:
        """Put the keys in order, the first row of each."""
        order = np.argsort(hashes, kind="stable")
        hashes, rows = hashes[order], rows[order]
        first = np.ones(len(order), bool)
        first[1:] = hashes[1:] != hashes[:-1]
        self.counts |= {"duplicates": int((~first).sum()), "without_key": self.counts["rows"] - len(order)}
        if self.counts["duplicates"] and on_duplicate == "error":
            raise self._doubled(hashes, rows, first, there, blocks)
        for what, values in (("hashes", hashes[first]), ("rows", rows[first])):
            if self.folder is None:
                self._open[what] = values
            else:
                path = self.folder / f"lookup-{self.name}-{what}.npy"
                with storing(path):
                    np.save(path, values)

    def _doubled(
        self, hashes: np.ndarray, rows: np.ndarray, first: np.ndarray, there: list[str], blocks: Sequence[str]
    ) -> DataError:
        again = np.flatnonzero(~first)
        again = again[np.argsort(rows[again])][:3]
        values = self._table.select(there).take(rows[again]).to_pylist()
        examples = []
        for place, value in zip(again, values, strict=True):
            low = int(np.searchsorted(hashes, hashes[place]))
            examples.append(f"{', '.join(map(str, value.values()))} (rows {int(rows[low])} and {int(rows[place])})")
        count = self.counts["duplicates"]
        return DataError(
            f"{named(blocks)}{count} rows of {self.name!r} have a key that an earlier row has, by {', '.join(there)}: "
            f"{'; '.join(examples)}{', ...' if count > len(examples) else ''}. Take the first of each with "
            "on_duplicate='first', or name more key columns."
        )

    @property
    def _table(self) -> pa.Table:
        if "table" not in self._open:
            import pyarrow as pa

            assert self.folder is not None
            with pa.memory_map(str(self.folder / f"lookup-{self.name}.arrow")) as file:
                self._open["table"] = pa.ipc.open_file(file).read_all()
        return self._open["table"]

    def _array(self, what: str) -> np.ndarray:
        if what not in self._open:
            assert self.folder is not None
            self._open[what] = np.load(self.folder / f"lookup-{self.name}-{what}.npy", mmap_mode="r")
        return np.asarray(self._open[what])

    def find(self, table: pa.Table, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """(rows,) where each row's key stands here; -1 where it does not, or the row has none."""
        here = [name for name, _ in pairs]
        known = usable(table.select(here))
        found = np.full(table.num_rows, -1, np.int64)
        hashes, rows = self._array("hashes"), self._array("rows")
        if not known.any() or not len(hashes):
            return found
        asked = _rows(table, known, here)
        wanted = hashed(asked)
        place = np.minimum(np.searchsorted(hashes, wanted), len(hashes) - 1)
        hit = hashes[place] == wanted
        hit &= same(asked, self._table.select([name for _, name in pairs]).take(rows[place]))
        found[known] = np.where(hit, rows[place], -1)
        return found

    def take(self, column: str, rows: np.ndarray) -> pa.ChunkedArray:
        """A column's values at rows; null at -1."""
        import pyarrow as pa

        at = pa.array(np.maximum(rows, 0), mask=rows < 0)
        values = self._table.column(column)
        return values.take(at) if len(values) else pa.chunked_array([pa.nulls(len(rows), values.type)])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}} if self.folder is not None else self.__dict__


def named(blocks: Sequence[str]) -> str:
    """How an error begins that is about some blocks."""
    return f"block {', '.join(map(repr, blocks))}: " if blocks else ""


@contextmanager
def _writing(path: Path | None, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Puts tables down one after another; does nothing where there is no path."""
    import pyarrow as pa

    if path is None:
        yield lambda table: None
        return
    with storing(path):
        sink = pa.OSFile(str(path), "wb")
        writer = pa.ipc.new_file(sink, schema)

    def write(table: pa.Table) -> None:
        with storing(path):  # around the writing alone: what a source raises while it is read is its own affair
            writer.write_table(table)

    try:
        yield write
    finally:
        with storing(path):
            writer.close()
            sink.close()


def check_memory(name: str, rows: int) -> None:
    """DataError where the keys of so many rows would not fit."""
    import psutil

    if rows * BYTES_A_KEY > psutil.virtual_memory().available:
        raise DataError(
            f"the keys of {name!r} ({rows:,} rows so far) do not fit into memory, at {BYTES_A_KEY} bytes each. Look up "
            "in a smaller source, or join the tables where they are stored."
        )


def _rows(table: pa.Table, mask: np.ndarray, names: Sequence[str]) -> pa.Table:
    import pyarrow as pa

    return table.select(names).filter(pa.array(mask))
