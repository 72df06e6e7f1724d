"""Files: a source of Parquet, CSV, TSV, JSON lines, Arrow or NumPy files by path, URL, glob or folder.

It knows parts and what can go wrong with files; how a format is cut and read stands in its own module.
"""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from h3lab.errors import DamagedData, DataError, H3labError, UsageError, redacted
from h3lab.source import Part, Source
from h3lab.sources.formats import Format, format_of
from h3lab.sources.places import File, absolute, find
from h3lab.sources.schemas import common
from h3lab.urls import is_url

#: Formats whose types are found in samples.
INFERRED = ("csv", "tsv", "jsonl")
#: What the readers of formats raise where a file is not what it should be: Arrow, Python, archives, and NumPy, which
#: reads the head of an array as Python.
_DAMAGE: tuple[type[Exception], ...] = (pa.ArrowException, OSError, ValueError, EOFError, KeyError, RuntimeError)
_DAMAGE = (*_DAMAGE, zipfile.BadZipFile, zlib.error, tokenize.TokenError)
#: Metadata of so many files are read at a time.
_THREADS = 8


class Files(Source):
    """Rows of files, in the natural order of their names. The files are found now, their rows are read later."""

    def __init__(self, what: str | Path | Sequence[str | Path], format: str | None = None) -> None:
        given = [what] if isinstance(what, str | os.PathLike) else list(what)
        if not all(os.fspath(one) for one in given):
            raise UsageError("an empty path came; expected a file, a folder, a glob or a URL.")
        self.what = [absolute(one) for one in given]
        self._files = {file.name: file for file in find(self.what)}
        self.format = format_of(list(self._files.values()), format).name
        self._given_format = format
        self._schema: pa.Schema | None = None

    @property
    def schema(self) -> pa.Schema:
        """Of all files; DataError where they differ."""
        # It travels, unlike the parts: an engine must read text with the types that the samples here have shown.
        if self._schema is None:
            files = list(self._files.values())
            found = [(file.shown, schema) for file, schema in zip(files, self._map(self._schema_of, files))]
            self._schema = common(found, self.format in INFERRED)
        return self._schema

    def _schema_of(self, file: File) -> pa.Schema:
        with _reading(file, "its beginning", self.format):
            return Format(self.format).schema(file)

    def parts(self) -> Sequence[Part]:
        """Text is scanned once for its line ends; other formats tell from their metadata."""
        return list(self._once("parts", self._cut))

    def _cut(self) -> list[Part]:
        files = list(self._files.values())
        parts: list[Part] = []
        self.schema  # noqa: B018  (files that differ are named before any is scanned)
        for file, pieces in zip(files, self._map(self._pieces_of, files)):
            for piece in pieces:
                parts.append(Part(len(parts), piece.rows, file.name, piece.start, piece.position, piece.version))
        return parts

    def _pieces_of(self, file: File) -> Any:
        with _reading(file, "its parts", self.format):
            return Format(self.format).cut(file, self.schema)

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
        with _reading(file, where, self.format):
            table = Format(self.format).read(file, part.position, wanted or self.columns[:1], self.schema)
        if part.rows is not None and table.num_rows != part.rows:
            raise DamagedData(
                f"{file.shown}, {where}: {part.rows} rows were found before, {table.num_rows} now; the file has "
                "changed. Read it again with h3.read."
            )
        if not wanted:
            return table.select([])
        schema = pa.schema([self.schema.field(name) for name in wanted])
        return table.replace_schema_metadata(None).cast(schema)

    def first(self, rows: int) -> pa.Table:
        """The first rows, without cutting the files into parts."""
        found: list[pa.RecordBatch] = []
        for file in self._files.values():
            with _reading(file, "its first rows", self.format):
                for batch in Format(self.format).first(file, self.schema, rows):
                    found.append(batch.slice(0, rows))
                    rows -= len(found[-1])
                    if rows <= 0:
                        break
            if rows <= 0:
                break
        tables = [pa.Table.from_batches([batch]).replace_schema_metadata(None).cast(self.schema) for batch in found]
        return pa.concat_tables([self.schema.empty_table(), *tables])

    def describe(self) -> dict[str, Any]:
        """Paths from the root on. A URL's password is left out: give it by fsspec's configuration or the environment,
        where the source is to be opened again."""
        return {"kind": "files", "what": [redacted(text) for text in self.what], "format": self._given_format}

    @property
    def title(self) -> str:
        names = ", ".join(redacted(text) if is_url(text) else os.path.relpath(text) for text in self.what[:3])
        more = ", ..." if len(self.what) > 3 else ""
        return f"{len(self._files)} {self.format} file{'s' * (len(self._files) > 1)} {names}{more}"

    def size(self) -> str:
        if self.format not in INFERRED or "parts" in self.__dict__.get("_known", {}):
            return super().size()
        size = sum(file.size for file in self._files.values())
        return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size:,} bytes"


@contextmanager
def _reading(file: File, where: str, kind: str) -> Iterator[None]:
    """Foreign errors of reading a file, as DamagedData or DataError that names it."""
    try:
        yield
    except DamagedData as error:
        raise DamagedData(f"{file.shown}, {where}: {str(error).rstrip('.')}.") from error
    except H3labError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{file.shown} is gone. Read the source again with h3.read.") from error
    except _DAMAGE as error:
        reason = redacted(str(error)).rstrip(".")
        if kind in INFERRED and isinstance(error, pa.ArrowInvalid):
            # The parser counts from where a part begins, and some of its errors have no place at all.
            reason = _first_bad(file, kind) or reason
        raise DamagedData(
            f"{file.shown}, {where} cannot be read: {reason}. Is the file whole, and what its ending says? For another "
            "format pass format=."
        ) from error


def _first_bad(file: File, kind: str) -> str:
    from h3lab.sources.text import first_bad

    try:
        return first_bad(file, kind)
    except _DAMAGE:
        return ""  # a file that is damaged otherwise; the parser has said how


def reopen(description: Mapping[str, Any]) -> Files:
    """The inverse of ``describe``; files that have come since are seen."""
    what = description["what"]
    hidden = [text for text in what if is_url(text) and "***" in text]
    if hidden:
        raise DataError(f"{hidden[0]} was read with a password, which is not kept. Call h3.read with it again.")
    return Files(what, description["format"])
