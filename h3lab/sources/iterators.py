"""Iterators: a source of whatever Python yields: dicts, a row each, or Arrow tables and DataFrames, some rows each.

An iterator gives its rows once, and preparing reads them several times, in any order: they are put down on disk, part
by part, when somebody first asks for them, and are gone with this process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from inspect import isroutine
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
import pyarrow as pa

from h3lab.errors import DataError, H3labError, UsageError
from h3lab.preparing.workroom import storage_error, workroom
from h3lab.serial.contents import table_digest
from h3lab.source import PART_ROWS, Part, Source
from h3lab.sources.frames import NAME, frame
from h3lab.sources.schemas import cast, unify, widest


class Iterated(Source):
    """``make``: gives the iterator. It must end; it may give the rows once, because they are kept on disk."""

    def __init__(self, make: Callable[[], Any], what: str) -> None:
        self.what, self._make = what, make
        self._folder: Path | None = None
        self._schema = pa.schema([])
        self._parts: list[Part] = []

    @property
    def schema(self) -> pa.Schema:
        """Of all rows, so it reads them: whole numbers beside floats are floats. DataError for other mixtures."""
        return self._landed()._schema

    def parts(self) -> Sequence[Part]:
        return list(self._landed()._parts)

    def read(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        wanted = self.check(columns)
        assert self._folder is not None
        try:
            with pa.memory_map(str(self._folder / f"{part.index}.arrow")) as file:
                table = pa.ipc.open_file(file).read_all()
        except OSError as error:
            raise DataError(
                f"the rows of {self.what} were kept on disk by a process that has ended. Pass what makes them again."
            ) from error
        schema = pa.schema([self.schema.field(name) for name in wanted])
        return cast(table, schema, f"{self.what}, rows from {part.start}") if wanted else table.select([])

    def describe(self) -> dict[str, Any]:
        return {"kind": "memory", "what": self.what}

    @property
    def title(self) -> str:
        return self.what

    @property
    def notes(self) -> list[str]:
        return ["read once, and kept on disk until this process ends"]

    def _landed(self) -> Iterated:
        if self._folder is None:
            stack = ExitStack()
            folder = stack.enter_context(workroom(Path(tempfile.gettempdir())))
            try:
                self._schema, self._parts = _put_down(self._make, folder, self.what)
            except BaseException:
                stack.close()
                raise
            finalize(self, stack.close)
            self._folder = folder
        return self

    def __getstate__(self) -> dict[str, Any]:
        # The rows travel as their place on disk; what has made them need not be picklable.
        return {**super(Iterated, self._landed()).__getstate__(), "_make": None}


class _Given:
    """An iterator that came as such: it is given once. Begun and not read to its end (an error, an interrupt), it would
    go on in its middle."""

    def __init__(self, rows: Iterator[Any], what: str) -> None:
        self._rows: Iterator[Any] | None = rows
        self._what = what

    def __call__(self) -> Iterator[Any]:
        rows, self._rows = self._rows, None
        if rows is None:
            raise DataError(
                f"{self._what} was begun before and not read to its end, and gives no row twice. Make it again, or "
                "pass the function that makes it: h3.read(lambda: rows())."
            )
        return rows


def _called(make: Callable[[], Any], what: str) -> Any:
    try:
        return make()
    except H3labError:
        raise
    except Exception as error:  # whatever the user's own code raises
        raise DataError(f"{what} failed after 0 rows: {type(error).__name__}: {error}") from error


def _put_down(make: Callable[[], Any], folder: Path, what: str) -> tuple[pa.Schema, list[Part]]:
    made = _called(make, what)
    if not isinstance(made, Iterable) or isinstance(made, Mapping | str | bytes) or frame(made) is not None:
        raise UsageError(
            f"{what} gave a {type(made).__name__}; expected an iterator of dicts, Arrow tables or DataFrames, for "
            "example a generator function. Pass other rows as they are, without a function around them."
        )
    schema, start = pa.schema([]), 0
    parts: list[Part] = []
    for table in _pieces(_tables(iter(made), what), what):
        schema = _unified(schema, table.schema, f"{what}, rows from {start}")
        number = len(parts)
        try:
            with (
                pa.OSFile(str(folder / f"{number}.arrow"), "wb") as file,
                pa.ipc.new_file(file, table.schema) as writer,
            ):
                writer.write_table(table)
        except OSError as error:
            raise storage_error(error, folder / "rows") from error
        rows = table.num_rows
        parts.append(Part(number, rows, NAME, start, {"rows": [start, start + rows]}, table_digest([table])))
        start += rows
    if not schema.names:
        raise DataError(
            f"{what} gave no rows. An iterator gives them once: keep the source that h3.read has made of it, or pass a "
            "function that makes a new one: h3.read(lambda: rows())."
        )
    return schema, parts


def _tables(rows: Iterator[Any], what: str) -> Iterator[pa.Table]:
    """What an iterator yields as tables; dicts are gathered."""
    gathered: list[Any] = []
    done = 0

    def table_of(item: Any) -> pa.Table:
        try:
            # A tuple or an array may be meant as one row, and would be read as many.
            found = None if isinstance(item, tuple | np.ndarray) else frame(item)
        except H3labError as error:
            raise DataError(f"{what}, rows from {done}: {error}") from error
        if found is None:
            raise UsageError(
                f"{what} yielded a {type(item).__name__} after {done} rows; expected dicts, a row each, or Arrow "
                "tables or DataFrames, some rows each."
            )
        return found.table

    while True:
        try:
            item = next(rows)
        except StopIteration:
            break
        except Exception as error:  # whatever the user's own code raises
            raise DataError(
                f"{what} failed after {done + len(gathered)} rows: {type(error).__name__}: {error}"
            ) from error
        if isinstance(item, Mapping):
            gathered.append(item)
        if gathered and (not isinstance(item, Mapping) or len(gathered) == PART_ROWS):
            yield (table := table_of(gathered))
            gathered, done = [], done + table.num_rows
        if not isinstance(item, Mapping):
            yield (table := table_of(item))
            done += table.num_rows
    if gathered:
        yield table_of(gathered)


def _pieces(tables: Iterator[pa.Table], what: str) -> Iterator[pa.Table]:
    """Tables of ``PART_ROWS`` rows, the last one of fewer: however rows come, parts and their keys are the same."""
    held: list[pa.Table] = []
    rows = start = 0
    for table in tables:
        held.append(table)
        rows += table.num_rows
        while rows >= PART_ROWS:
            whole = _joined(held, f"{what}, rows from {start}")
            yield whole.slice(0, PART_ROWS).combine_chunks()
            held, rows, start = [whole.slice(PART_ROWS)], rows - PART_ROWS, start + PART_ROWS
    if rows:
        yield _joined(held, f"{what}, rows from {start}").combine_chunks()


def _joined(tables: Sequence[pa.Table], where: str) -> pa.Table:
    schema = tables[0].schema
    for table in tables[1:]:
        schema = _unified(schema, table.schema, where)
    return pa.concat_tables([cast(table, schema, where) for table in tables])


def _unified(one: pa.Schema, two: pa.Schema, where: str) -> pa.Schema:
    for name in set(one.names) & set(two.names):
        types = [schema.field(name).type for schema in (one, two)]
        if widest(*types) is None:  # in a text file such a column may be text; here it is a mistake
            told = " in some rows and ".join(sorted(map(str, types)))
            raise DataError(f"{where}: column {name!r} is {told} in others. Give each column one type.")
    return unify(one, two, False)


def iterated(what: Any) -> Iterated | None:
    """The source of an iterator or of a function that makes one; None for anything else. Other iterables are not
    guessed at: a Series, a tensor or a set is one too."""
    if isinstance(what, Iterator):
        named = f"a {type(what).__name__}"
        return Iterated(_Given(what, named), named)
    if isroutine(what) or isinstance(what, partial):
        return Iterated(what, f"what {getattr(what, '__name__', 'the function')}() gives")
    return None
