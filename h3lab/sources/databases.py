"""Databases by URL: how one is opened, and what of its URL may be shown."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from h3lab.errors import MissingExtra, UsageError, redacted
from h3lab.worlds import PIP


def without_secrets(url: str) -> str:
    """A database's URL without its password; ``sslmode`` and the like stay, which opening it again needs."""
    url = re.sub(r"://([^/\s:]*):[^/\s]*@", r"://\1:***@", url)
    return re.sub(r"(?i)([?&][^=&\s]*(?:pass|pwd|secret|token|key)[^=&\s]*)=[^&\s]*", r"\1=***", url)


@lru_cache(maxsize=8)
def engine(url: str) -> Any:
    """An engine without a pool: a connection that lay idle, or went through a fork, is worth less than the five
    milliseconds of a new one."""
    import sqlalchemy as sa

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
            f"{redacted(url)} is no database that can be opened: {redacted(str(error))}. Expected for example "
            "postgresql+psycopg://user@host/database, or sqlite:///file.db."
        ) from error


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
