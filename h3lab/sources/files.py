"""Files: a source of Parquet, CSV, TSV, JSON lines, Arrow or NumPy files by path, URL, glob or folder.

It knows parts and what can go wrong with files; how a format is cut and read stands in its own module.
"""

from __future__ import annotations

import os
import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from h3lab import servers
from h3lab.errors import DamagedData, DataError, H3labError, UsageError, redacted
from h3lab.source import Part, Source, row_keys
from h3lab.sources.aside import aside, check_apart, policy_of
from h3lab.sources.formats import Format, Piece, format_of
from h3lab.sources.places import File, absolute, find
from h3lab.sources.schemas import cast, common, unviewed
from h3lab.urls import is_url, server

#: Formats whose types are found in samples.
INFERRED = ("csv", "tsv", "jsonl")
_SEPARATED = {"csv": "commas", "tsv": "tabs"}
#: What the readers of formats raise where a file is not what it should be: Arrow, Python, archives, and NumPy, which
#: reads the head of an array as Python.
_DAMAGE: tuple[type[Exception], ...] = (pa.ArrowException, OSError, ValueError, EOFError, KeyError, RuntimeError)
_DAMAGE = (*_DAMAGE, zipfile.BadZipFile, zlib.error, tokenize.TokenError)
#: Metadata of so many files are read at a time.
_THREADS = 8


class Files(Source):
    """Rows of files, in the natural order of their names. The files are found now, their rows are read later."""

    def __init__(
        self, what: str | Path | Sequence[str | Path], format: str | None = None, on_bad_rows: Any = "error"
    ) -> None:
        given = [what] if isinstance(what, str | os.PathLike) else list(what)
        if not all(os.fspath(one) for one in given):
            raise UsageError("an empty path came; expected a file, a folder, a glob or a URL.")
        self.what = [absolute(one) for one in given]
        self._files = {file.name: file for file in find(self.what)}
        self.format = format_of(list(self._files.values()), format).name
        self._given_format = format
        self.on_bad_rows = policy_of(on_bad_rows)
        check_apart(self.on_bad_rows, self.what, list(self._files.values()))
        if self.on_bad_rows != "error" and self.format not in INFERRED:
            raise UsageError(
                f"on_bad_rows={on_bad_rows!r} came with {self.format}; it is for the rows of {', '.join(INFERRED)} "
                f"files. A {self.format} file is read whole or, where it is damaged, not at all."
            )
        self._schema: pa.Schema | None = None
        self._partial: dict[str, tuple[str, str]] = {}

    @property
    def _format(self) -> Format:
        return Format(self.format, sifted=self.on_bad_rows != "error")

    @property
    def schema(self) -> pa.Schema:
        """The columns that all files have; DataError where their types differ."""
        # It travels, unlike the parts: an engine must read text with the types that the samples here have shown.
        if self._schema is None:
            files = list(self._files.values())
            found = [(file.shown, schema) for file, schema in zip(files, self._map(self._schema_of, files))]
            self._schema, self._partial = common(found, union=self.format == "jsonl")
        return self._schema

    def _schema_of(self, file: File) -> pa.Schema:
        with self._reading(file, "its beginning"):
            found = file.patiently(lambda: self._format.schema(file))
            try:
                names = found.names
            except UnicodeDecodeError as error:
                raise DataError(f"{file.shown}: the names of its columns are no UTF-8 text. Convert it.") from error
            if not names:
                raise DataError(f"{file.shown} has no columns; expected rows with at least one.")
            return unviewed(found)

    def parts(self) -> Sequence[Part]:
        """Text is scanned once for its line ends; other formats tell from their metadata."""
        return list(self._once("parts", self._cut))

    def _cut(self) -> list[Part]:
        files = list(self._files.values())
        parts: list[Part] = []
        self.schema  # noqa: B018  (files that differ are named before any is scanned)
        for file, pieces in zip(files, self._map(self._pieces_of, files)):
            parts += [
                Part(len(parts) + n, one.rows, file.name, one.start, one.position, one.version, bad=one.bad)
                for n, one in enumerate(pieces)
            ]
        return parts

    def _pieces_of(self, file: File) -> list[Piece]:
        def cut() -> list[Piece]:
            found = self._format.cut(file, self.schema)
            return self._sifted(file, found) if self._format.sifted else list(found)

        with self._reading(file, "its parts", self.schema):
            return file.patiently(cut)

    def _sifted(self, file: File, found: Iterator[tuple[Piece, Iterable[Any]]]) -> list[Piece]:
        """The pieces, whose bad rows are set aside on the way; DataError where all rows are bad."""
        kept = self.on_bad_rows != "skip"
        pieces, example = [], ""
        with aside(self.on_bad_rows, file) if kept else nullcontext() as put:
            for piece, bad in found:
                for one in bad if kept or not example else ():
                    example = example or str(one)
                    if put is None:
                        break
                    put(one)
                mark = f"{piece.version}|{redacted(self.on_bad_rows)}" if piece.bad else piece.version
                pieces.append(replace(piece, version=mark))
            if example and not any(piece.rows for piece in pieces):
                raise DataError(f"{file.shown} has no good row; all {sum(p.bad for p in pieces):,} are bad: {example}.")
        return pieces

    def _map(self, function: Any, files: list[File]) -> Iterator[Any]:
        if len(files) == 1:
            return iter([function(files[0])])
        with ThreadPoolExecutor(_THREADS) as pool:
            return iter(list(pool.map(function, files)))

    def read(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a part; DamagedData names file and part."""
        wanted = self.check(columns)
        file = self._files.get(part.name)
        if file is None:
            raise DataError(f"part {part.index} is of {part.name!r}, which is none of the files of {self.title}.")
        where = f"part {part.index} (rows from {part.start})"
        with self._reading(file, where, self.schema):
            names = wanted or self.columns[:1]
            table = file.patiently(lambda: self._format.read(file, part.position, names, self.schema))
        if part.rows is not None and table.num_rows != part.rows:
            raise DamagedData(
                f"{file.shown}, {where}: {part.rows} rows were found before, {table.num_rows} now; the file has "
                "changed. Read it again with h3.read."
            )
        if not wanted:
            return table.select([])
        schema = pa.schema([self.schema.field(name) for name in wanted])
        return cast(table, schema, f"{file.shown}, {where}")

    def first(self, rows: int) -> pa.Table:
        """The first rows, without cutting the files into parts."""
        found: list[pa.Table] = []
        schema = self.schema  # outside: an error of a file's beginning is none of its first rows
        for file in self._files.values():
            with self._reading(file, "its first rows", schema):
                found += file.patiently(partial(self._first, file, rows - sum(map(len, found))))
            if sum(map(len, found)) >= rows:
                break
        return pa.concat_tables([schema.empty_table(), *found])

    def _first(self, file: File, rows: int) -> list[pa.Table]:
        found: list[pa.Table] = []
        for batch in self._format.first(file, self.schema, rows):
            found.append(cast(pa.Table.from_batches([batch.slice(0, rows)]), self.schema, file.shown))
            rows -= len(found[-1])
            if rows <= 0:
                break
        return found

    def keys(self, part: Part, table: pa.Table) -> np.ndarray:
        """A row keeps its key when a bad one before it is mended, because that had a number too."""
        bad = [range(run[0], run[0] + run[1]) for run in part.position.get("bad", ())]
        keys = row_keys(part.name, part.start, table.num_rows + sum(map(len, bad)))
        return np.delete(keys, np.concatenate(bad)) if bad else keys

    def partly(self, column: str) -> str:
        if column not in self.schema.names and column in self._partial:
            has, lacks = self._partial[column]
            return (
                f"column {column!r} is in {has} and not in {lacks}. Read the files that have it, write it into the "
                "others, or leave it out."
            )
        folders = {part for name in self._files for part in name.split("/")[:-1]}
        if told := sorted(part for part in folders if part.startswith(f"{column}=")):
            return (
                f"column {column!r} stands in names of folders alone ({told[0]}/), not in files. Write it into these."
            )
        only = self.schema.names[0]
        if self.format in _SEPARATED and len(self.schema) == 1 and (other := re.search(r"[;\t|,]", only)):
            return (
                f"the only column is {only!r}, and columns of {self.format} files are separated by "
                f"{_SEPARATED[self.format]}. Read the file by pandas: h3.read(pandas.read_csv(path, sep={other[0]!r}))."
            )
        return ""

    def describe(self) -> dict[str, Any]:
        """Paths from the root on. A URL's password is left out: give it by fsspec's configuration or the environment,
        where the source is to be opened again."""
        told = {"kind": "files", "what": [redacted(text) for text in self.what], "format": self._given_format}
        return told if self.on_bad_rows == "error" else {**told, "on_bad_rows": redacted(self.on_bad_rows)}

    @property
    def title(self) -> str:
        names = ", ".join(redacted(text) if is_url(text) else os.path.relpath(text) for text in self.what[:3])
        more = ", ..." if len(self.what) > 3 else ""
        bad = {"error": "", "skip": ", without bad rows"}.get(self.on_bad_rows)
        if bad is None:
            place = self.on_bad_rows
            bad = f", bad rows set aside in {redacted(place) if is_url(place) else os.path.relpath(place)}"
        return f"{len(self._files)} {self.format} file{'s' * (len(self._files) > 1)} {names}{more}{bad}"

    @property
    def notes(self) -> list[str]:
        """Columns that only some of the files have, which are not read."""
        self.schema  # noqa: B018  (finds them)
        named = [repr(column) for column in self._partial]
        some = f"{', '.join(named[:3])}{f', ... ({len(named)} in all)' if len(named) > 3 else ''}"
        return [f"without {some}, which not all files have"] if named else []

    def size(self) -> str:
        if self.format not in INFERRED or "parts" in self.__dict__.get("_known", {}):
            bad = sum(part.bad for part in self.parts())
            return super().size() + (f", {bad:,} bad ones left out" if bad else "")
        size = sum(file.size for file in self._files.values())
        return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size:,} bytes"

    @contextmanager
    def _reading(self, file: File, where: str, known: pa.Schema | None = None) -> Iterator[None]:
        """Foreign errors of reading a file, as DamagedData or DataError that names it; ``known``: its types, unless
        these are being found out."""
        try:
            yield
        except DamagedData as error:
            raise DamagedData(f"{file.shown}, {where}: {str(error).rstrip('.')}.") from error
        except H3labError:
            raise
        except FileNotFoundError as error:
            raise DataError(f"{file.shown} is gone. Read the source again with h3.read.") from error
        except Exception as error:  # each file system raises what its library does: botocore, aiohttp, paramiko, ...
            if is_url(file.root) and (advice := servers.advice(error)):
                raise DataError(
                    f"{file.shown}, {where} cannot be read from {server(file.root)}: {servers.said(error)}. {advice}"
                ) from servers.shown(error)
            if not isinstance(error, _DAMAGE):
                raise
            # The parser counts from where a part begins, and some of its errors have no place at all.
            text = self.format in INFERRED and isinstance(error, pa.ArrowInvalid)
            if text and (bad := _first_bad(file, self.format, known)):
                ending = "" if bad.row else " Is the file what its ending says? For another format pass format=."
                raise DamagedData(
                    f"{file.shown}, {bad}. Mend it, or read with on_bad_rows='skip', which leaves such rows out and "
                    "counts them, or on_bad_rows='bad/', which also sets them aside in that folder; 'error' is the "
                    f"default.{ending}"
                ) from error
            raise DamagedData(
                f"{file.shown}, {where} cannot be read: {redacted(str(error)).rstrip('.')}. Is the file whole, and "
                "what its ending says? For another format pass format=."
            ) from error


def _first_bad(file: File, kind: str, known: pa.Schema | None) -> Any:
    from h3lab.sources.sifted import first_bad

    try:
        return first_bad(file, kind, known)
    except _DAMAGE:
        return None  # a file that is damaged otherwise; the parser has said how


def reopen(description: Mapping[str, Any]) -> Files:
    """The inverse of ``describe``; files that have come since are seen."""
    what = description["what"]
    aside_in = description.get("on_bad_rows", "error")
    hidden = [text for text in [*what, aside_in] if is_url(text) and "***" in text]
    if hidden:
        raise DataError(f"{hidden[0]} was read with a password, which is not kept. Call h3.read with it again.")
    return Files(what, description["format"], aside_in)
