"""Databases by their SQLAlchemy URLs: how one is opened, and what says that it cannot be."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from h3lab.errors import DataError, MissingExtra, UsageError, redacted
from h3lab.sources.places import absolute, find
from h3lab.worlds import PIP

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


@lru_cache(maxsize=8)
def engine(url: str) -> Any:
    """An engine without a pool: a connection that lay idle, or went through a fork, is worth less than the five
    milliseconds of a new one."""
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
        return sa.create_engine(parsed, poolclass=sa.pool.NullPool)
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
