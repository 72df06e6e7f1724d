"""Databases by their SQLAlchemy URLs: how one is opened, and what says that it cannot be."""

from __future__ import annotations

import math
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from h3lab import servers
from h3lab.errors import DataError, MissingExtra, UsageError, redacted
from h3lab.sources.places import absolute, find
from h3lab.worlds import PIP

#: An answer may take so many times as long as that of other servers: the database may have to sort first.
QUERY_TIMES = 10
#: A password with an @ as it is: SQLAlchemy takes what comes behind it for a host, and drivers show that.
_SEVERAL = re.compile(r"[\w+]+://[^:/]*:[^@]*@(?:(?!\?[\w.-]+=).)*@", re.DOTALL)


def located(url: str) -> str:
    """A URL that means the same in every process: a file of SQLite or DuckDB from the root on. DataError where there
    is no such file, for these would make an empty one."""
    dialect = url.partition(":")[0].partition("+")[0]
    if dialect not in ("sqlite", "duckdb"):
        return url
    import sqlalchemy as sa

    parsed = sa.make_url(url)
    if not parsed.database or parsed.database.startswith((":memory:", "file:")):
        return url
    path = absolute(parsed.database)
    if not os.path.isfile(path):
        find([path])  # it knows what is close
        raise DataError(f"{path} is no file; expected one of {dialect}.")
    return str(parsed.set(database=path).render_as_string(hide_password=False))


@contextmanager
def connected(url: str) -> Iterator[Any]:
    """A connection that is cut where an answer takes too long, for which drivers have no common word: a server that has
    frozen keeps its connections open. :func:`heard` begins the time anew."""
    with engine(url, servers.timeout_seconds()).connect() as connection:
        limit = connection.info["h3lab limit"] = _Limit(connection.connection.driver_connection)
        limit.begin()
        try:
            yield connection
        finally:
            limit.end()


def heard(connection: Any) -> None:
    """A part of a long answer has come."""
    connection.info["h3lab limit"].begin()


class _Limit:
    """Cuts the socket of a connection, where its driver tells which it is, after a time."""

    def __init__(self, driver: Any) -> None:
        self._descriptor: Callable[[], int] | None = getattr(driver, "fileno", None)
        self._timer: threading.Timer | None = None

    def begin(self) -> None:
        self.end()
        if self._descriptor is not None:
            self._timer = threading.Timer(QUERY_TIMES * servers.timeout_seconds(), self._cut)
            self._timer.daemon = True
            self._timer.start()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _cut(self) -> None:
        assert self._descriptor is not None
        # The socket may have been closed in this moment.
        with suppress(Exception), socket.socket(fileno=os.dup(self._descriptor())) as end:
            end.shutdown(socket.SHUT_RDWR)


@lru_cache(maxsize=8)
def engine(url: str, seconds: float) -> Any:
    """An engine without a pool: a connection that lay idle, or went through a fork, is worth less than the five
    milliseconds of a new one. ``seconds``: how long a server that is called may say nothing."""
    import sqlalchemy as sa

    if _SEVERAL.match(url):
        raise UsageError(
            f"{redacted(url)}: more than one @ came, so what is password and what is host cannot be told. Write each @ "
            "of the password as %40."
        )
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite" and os.path.isabs(parsed.database or ""):
            # A file that another machine does not see must not be made there. Not mode=ro: what a killed writer
            # has left beside it must be rolled back.
            uri = parsed.set(database=Path(str(parsed.database)).as_uri())
            parsed = uri.set(query={"mode": "rw", **parsed.query, "uri": "true"})
        bounded = parsed.get_backend_name() in ("postgresql", "mysql", "mariadb")
        limit = {"connect_timeout": max(2, math.ceil(seconds))}  # libpq takes a second for two
        limits = limit if bounded and "connect_timeout" not in parsed.query else {}
        made = sa.create_engine(parsed, poolclass=sa.pool.NullPool, connect_args=limits)
    except ImportError as error:
        package = error.name or "the database's driver"
        raise MissingExtra(
            f"{redacted(url).partition('://')[0]}:// needs {package}, which is not installed. Install it with: "
            f"pip install {PIP.get(package, package)}"
        ) from error
    except (sa.exc.ArgumentError, ValueError) as error:
        raise UsageError(
            f"{redacted(url)} is no database that can be opened: {_said(error)}. Expected for example "
            "postgresql+psycopg://user@host/database, or sqlite:///file.db."
        ) from None
    sa.event.listen(made, "handle_error", _close)
    return made


def _close(context: Any) -> None:
    """SQLAlchemy leaves the cursor of a lost connection open, of which psycopg warns."""
    cursor = getattr(context.execution_context, "cursor", None)
    if context.is_disconnect and cursor is not None:
        with suppress(Exception):
            cursor.close()


def _said(error: Exception) -> str:
    """What is wrong with a URL. Python quotes a port that is no number, which may be a password."""
    return "its port is no number" if type(error) is ValueError else redacted(str(error)).rstrip(".")


def is_database(url: str) -> bool:
    """Whether a URL names a database: its first word is a dialect of SQLAlchemy's."""
    dialect = url.partition("://")[0].partition("+")[0]
    return "://" in url and dialect in (
        "postgresql",
        "postgres",
        "sqlite",
        "mysql",
        "mariadb",
        "mssql",
        "oracle",
        "duckdb",
    )
