"""Sources: where raw rows come from. ``read`` opens whatever names or holds rows.

Third parties join through the entry point group ``h3lab.sources``: an object with ``kind`` (the word in its sources'
descriptions), ``reads(what)`` (whether this is for it), ``read(what)`` and ``reopen(description)``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from h3lab import worlds
from h3lab.errors import DataError, UsageError, guided, redacted
from h3lab.keys import Keyed
from h3lab.source import Source
from h3lab.sources.databases import is_database
from h3lab.sources.datasets import examples
from h3lab.sources.files import Files
from h3lab.sources.formats import MODULES
from h3lab.sources.frames import frame
from h3lab.sources.iterators import iterated
from h3lab.sources.sql import read_sql
from h3lab.urls import is_url


@guided
def read(
    what: Any,
    *,
    format: str | None = None,
    key: str | Sequence[str] | None = None,
    table: str | None = None,
    query: str | None = None,
    on_bad_rows: str | os.PathLike[str] = "error",
) -> Source:
    """A source of raw rows; nothing but metadata is read now.

    ``what``: a path, URL, glob or folder, or a list of them (Parquet, CSV and TSV with a header, JSON lines, Arrow,
    npy, npz; the ending or ``format`` says which); a pandas DataFrame, an Arrow table, ``(X, y)`` arrays (columns x0,
    x1, ... and y), a list of dicts; a torch Dataset or DataLoader (columns x and y, or the names of its dicts); a
    Source is returned as it is. An iterator of dicts, Arrow tables or DataFrames, or a function that makes one, is read
    to its end when the source is first looked at; its rows lie on disk until this process ends. ``key``: the column, or
    columns, whose values know a row; without it rows are known by file and row number.

    A database by its SQLAlchemy URL: ``read("postgresql+psycopg://user@host/db", table="weather", key=["origin",
    "time_hour"])``, with ``table`` (or ``"schema.table"``) or a ``query``, read in the order of ``key``, which is the
    table's primary key where none is given.

    ``on_bad_rows``: what is done about rows of text files (CSV, TSV, JSON lines) that are none: a line that is no JSON
    object, a record with more or fewer fields than the header, a value that does not fit its column's type (samples of
    the beginning, the middle and the end decide it), bytes that are no UTF-8, a quote that does not close. ``"error"``
    names the first one; ``"skip"`` leaves them out and counts them; a folder (a path with a slash, or a URL) also sets
    them aside there, each with file, line and reason. The other rows keep their keys when one is mended.

    DataError: no such file, files that differ in columns or types. UnknownName: a key that is no column.

    >>> source = read([{"price": 3.5, "stars": 4}, {"price": 1.0, "stars": 2}, {"price": 9.9, "stars": 5}])
    >>> source
    Source: a list of dicts · 3 rows
    price: double, stars: int64
     price  stars
       3.5      4
       1.0      2
       9.9      5
    >>> len(source), source.columns
    (3, ['price', 'stars'])
    >>> train, test = source.split(test=0.5, seed=0)
    >>> len(train) + len(test)
    3
    """
    url = what if isinstance(what, str) else _database_url(what)
    if url is not None and is_database(url):
        _only_files("a database", format, on_bad_rows)
        return read_sql(url, table, query, key)
    if table is not None or query is not None:
        raise UsageError(
            f"table={table!r}, query={query!r} came with {redacted(str(what))}; they are for databases, for example "
            "postgresql+psycopg://user@host/database or sqlite:///file.db."
        )
    source = _opened(what, format, on_bad_rows)
    return source if key is None else Keyed(source, key)


def _only_files(what: str, format: Any, on_bad_rows: Any) -> None:
    """UsageError for arguments that are about files."""
    if format is not None:
        raise UsageError(f"format={format!r} came with {what}; it is for files alone.")
    if on_bad_rows != "error":
        raise UsageError(
            f"on_bad_rows={on_bad_rows!r} came with {what}; it is for the rows of text files (CSV, TSV, JSON lines)."
        )


def _opened(what: Any, format: str | None, on_bad_rows: Any) -> Source:
    if isinstance(what, str) and is_url(what) and (plug := _plug(what)) is not None:
        _only_files(redacted(what), format, on_bad_rows)
        return plug.read(what)
    paths = what if isinstance(what, list | tuple) else [what]
    if paths and all(isinstance(one, str | os.PathLike) for one in paths):
        return Files(what, format, on_bad_rows)
    _only_files(f"a {type(what).__name__}", format, on_bad_rows)
    if isinstance(what, Source):
        return what
    found = frame(what) or examples(what)
    if found is not None:
        return found
    if isinstance(what, list | tuple | dict) and not what:
        raise DataError(f"an empty {type(what).__name__} came; expected rows, or the paths of files.")
    if (plug := _plug(what)) is not None:
        return plug.read(what)
    if (rows := iterated(what)) is not None:
        return rows
    raise UsageError(
        f"a {type(what).__name__} came; expected a path, URL or glob (or a list of them) of {', '.join(MODULES)} files,"
        " a DataFrame, an Arrow table, (X, y) arrays, a list of dicts, an iterator of dicts, tables or DataFrames, a "
        "torch Dataset or DataLoader, or a Source."
    )


def _database_url(what: Any) -> str | None:
    """The whole of SQLAlchemy's own URL, whose text would have *** for its password."""
    made = getattr(what, "render_as_string", None)
    return None if made is None else str(made(hide_password=False))


def _plug(what: Any) -> Any:
    return next((plug for plug in worlds.plugged("sources") if plug.reads(what)), None)
