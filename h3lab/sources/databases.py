"""Databases by their SQLAlchemy URLs: how one is opened, and what says that it cannot be."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from h3lab.errors import MissingExtra, UsageError, redacted
from h3lab.worlds import PIP

#: A password with an @ as it is: SQLAlchemy takes what comes behind it for a host, and drivers show that.
_SEVERAL = re.compile(r"[\w+]+://[^:/]*:[^@]*@(?:(?!\?[\w.-]+=).)*@", re.DOTALL)


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
        return sa.create_engine(url, poolclass=sa.pool.NullPool)
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
