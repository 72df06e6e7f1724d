"""SQL: a source of the rows of a table or query, through SQLAlchemy, in the order of a key.

It knows keys, runs of rows and what can go wrong with servers; how a database's values become Arrow's stands in
``sqltypes``. SQLAlchemy was chosen because it speaks to every database in one language, ours included.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import pyarrow as pa

from h3lab.errors import DamagedData, DataError, H3labError, MissingExtra, UnknownName, UsageError, redacted
from h3lab.keys import Keyed
from h3lab.source import PART_ROWS, Part, Source
from h3lab.sources import sqltypes
from h3lab.worlds import PIP

#: How long a server that has gone is waited for, try after try.
RETRY_SECONDS = (0.2, 1.0, 3.0)


def read_sql(url: str, table: str | None, query: str | None, key: str | Sequence[str] | None) -> Source:
    """Rows of a table or query, known by ``key`` (None: the table's primary key)."""
    source = Sql(url, table, query, None if key is None else (key,) if isinstance(key, str) else tuple(key))
    return Keyed(source, source.key)


class Sql(Source):
    """Rows of ``table`` (``"name"`` or ``"schema.name"``) or of a ``query``, in the order of the columns ``key``.

    A part is all rows between two keys, so that reading one asks the server for just these, and a part that was read
    before is found again after the connection, or the server, was lost. No connection is held between two reads. Rows
    with the same key stay together, ordered by their other columns.
    """

    def __init__(self, url: str, table: str | None, query: str | None, key: tuple[str, ...] | None) -> None:
        if (table is None) == (query is None):
            raise UsageError(
                f"table={table!r} and query={query!r} came; expected one of them, for example "
                "h3.read(url, table='weather', key=['origin', 'time_hour'])."
            )
        self.url, self.table, self.query = url, table, query
        with self._asking("its columns"):
            self._types, primary = self._reflected()
        if not (key or primary):
            raise UsageError(
                f"{self.title} has no primary key, so its rows have no order to read them in. Name the columns that "
                f"know a row: h3.read(..., key={list(self._types)[:1]!r}). It has: {', '.join(self._types)}."
            )
        self.key = tuple(key or primary)
        self.check(self.key)

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(list(self._types.items()))

    def parts(self) -> Sequence[Part]:
        """One query over the key finds where every ``PART_ROWS``-th row stands; no other column is read."""
        return list(self._once("parts", self._cut))

    def _cut(self) -> list[Part]:
        with self._asking("its keys"):
            edges, last, rows = self._edges()
        if not rows:
            return [Part(0, 0, self._name, 0, {"from": None, "to": None})]
        starts = [start for _, start in edges] + [rows]
        parts = []
        for index, (low, start) in enumerate(edges):
            # The last one ends at what was the greatest key: rows that come later are no part of this source.
            ends = {"to": last} if index == len(edges) - 1 else {"before": edges[index + 1][0]}
            parts.append(Part(index, starts[index + 1] - start, self._name, start, {"from": low, **ends}))
        return parts

    def read(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows between two keys; DataError where the server stays away, DamagedData where the rows have changed."""
        wanted = self.check(columns)
        where = f"part {part.index} (rows from {part.start})"
        for wait in (*RETRY_SECONDS, None):
            try:
                with self._asking(where):
                    return self._read(part, wanted, where)
            except _Gone as error:
                if wait is None:
                    raise DataError(
                        f"{error} Nothing is lost: where the server has gone, start it and do the same again; parts "
                        "are found by their keys."
                    ) from error.__cause__
                time.sleep(wait)
        raise AssertionError("unreachable")

    def first(self, rows: int) -> pa.Table:
        import sqlalchemy as sa

        with self._asking("its first rows"), self._engine.connect() as connection:
            below = self._below()
            found = connection.execute(sa.select(below).order_by(*self._order(below)).limit(rows)).all()
        return sqltypes.to_arrow(found, self.schema, f"{self.title}, its first rows")

    def describe(self) -> dict[str, Any]:
        """The URL without its password: give that by ``~/.pgpass`` or the driver's own environment variables, where the
        source is to be opened again."""
        own = {"table": self.table, "query": self.query, "key": list(self.key)}
        return {"kind": "sql", "url": without_secrets(self.url), **own}

    @property
    def title(self) -> str:
        return f"{'table ' + self.table if self.table else 'query'} of {without_secrets(self.url)}"

    # ---- Inside

    @property
    def _name(self) -> str:
        """What row keys would derive from: the same on another server."""
        return self.table or str(self.query)

    @property
    def _engine(self) -> Any:
        return _engine(self.url)

    def _below(self) -> Any:
        """The table or query, as what a SELECT can be made from."""
        import sqlalchemy as sa

        # With their types the driver's values become Python's: SQLite has text for a date.
        columns = [sa.column(column, sqltypes.generic(kind)) for column, kind in self._types.items()]
        if self.query is not None:
            return sa.text(self.query).columns(*columns).subquery("h3")
        schema, _, name = str(self.table).rpartition(".")
        return sa.table(name, *columns, schema=schema or None)

    def _reflected(self) -> tuple[dict[str, pa.DataType], tuple[str, ...]]:
        """(Arrow type by column, primary key)."""
        import sqlalchemy as sa

        with self._engine.connect() as connection:
            if self.query is not None:
                found = connection.execute(
                    sa.select(sa.text("*")).select_from(sa.text(f"({self.query}) h3")).limit(1000)
                )
                return sqltypes.of_rows(list(found.keys()), found.all()), ()
            schema, _, name = str(self.table).rpartition(".")
            inspector = sa.inspect(connection)
            if not inspector.has_table(name, schema=schema or None):
                known = [*inspector.get_table_names(schema or None), *inspector.get_view_names(schema or None)]
                raise UnknownName("table", name, sorted(known), redacted(self.url))
            columns = inspector.get_columns(name, schema=schema or None)
            primary = inspector.get_pk_constraint(name, schema=schema or None).get("constrained_columns") or ()
            return {c["name"]: sqltypes.of_column(c["type"]) for c in columns}, tuple(primary)

    def _order(self, below: Any) -> list[Any]:
        names = [*self.key, *(name for name in self._types if name not in self.key)]
        return [below.c[name] for name in names if sqltypes.orderable(self._types[name]) or name in self.key]

    def _edges(self) -> tuple[list[tuple[list[Any], int]], list[Any], int]:
        """([(first key of a part, number of rows before it)], greatest key, rows)."""
        import sqlalchemy as sa

        below = self._below()
        key = [below.c[name] for name in self.key]
        place = sa.func.row_number().over(order_by=key).label("h3_place")
        before = (sa.func.rank().over(order_by=key) - 1).label("h3_before")
        placed = sa.select(*key, place, before).subquery("placed")
        edge = sa.select(placed).where((placed.c.h3_place - 1) % PART_ROWS == 0).order_by(placed.c.h3_place)
        nulls = sa.select(sa.func.count()).select_from(below).where(sa.or_(*(c.is_(None) for c in key)))
        greatest = sa.select(*key).order_by(*(c.desc() for c in key)).limit(1)
        with self._engine.connect() as connection:
            if missing := connection.execute(nulls).scalar_one():
                raise DataError(
                    f"{self.title}: {missing} rows have no {' or '.join(self.key)}, which is their key. Leave them out "
                    "with query='SELECT ... WHERE ... IS NOT NULL', or take another key."
                )
            rows = int(connection.execute(sa.select(sa.func.count()).select_from(below)).scalar_one())
            found = connection.execute(edge).all()
            last = connection.execute(greatest).first()
        # A run of equal keys may reach over an edge, and then belongs to the part that it begins in.
        edges = {int(row[-1]): sqltypes.told(row[: len(key)]) for row in found}
        return [(low, start) for start, low in sorted(edges.items())], sqltypes.told(last or ()), rows

    def _read(self, part: Part, wanted: list[str], where: str) -> pa.Table:
        import sqlalchemy as sa

        schema = pa.schema([(name, self._types[name]) for name in wanted])
        if not part.rows:
            return schema.empty_table()
        below = self._below()
        asked = sa.select(*(below.c[name] for name in wanted or self.key)).order_by(*self._order(below))
        for how, edge in part.position.items():
            asked = asked.where(self._beyond(below, how, edge))
        with self._engine.connect() as connection:
            found = connection.execute(asked).all()
        if len(found) != part.rows:
            raise DamagedData(
                f"{self.title}, {where}: {part.rows} rows were found before, {len(found)} now; the table has changed. "
                "Read it again with h3.read."
            )
        if not wanted:
            return pa.table({"": pa.nulls(len(found))}).select([])
        return sqltypes.to_arrow(found, schema, f"{self.title}, {where}")

    def _beyond(self, below: Any, how: str, edge: list[Any]) -> Any:
        """Whether a row's key lies from, before or up to another one, column by column, as every database can tell."""
        import sqlalchemy as sa

        types = [self._types[name] for name in self.key]
        columns = [below.c[name] for name in self.key]
        told = zip(sqltypes.meant(edge, types), types, strict=True)
        # As literals: SQLAlchemy refuses to order Python's True and False.
        values = [sa.literal(value, sqltypes.generic(kind)) for value, kind in told]
        strict = [c > v if how == "from" else c < v for c, v in zip(columns, values, strict=True)]
        equal = [c == v for c, v in zip(columns, values, strict=True)]
        ways = [sa.and_(*equal[:place], strict[place]) for place in range(len(columns))]
        return sa.or_(*ways) if how == "before" else sa.or_(*ways, sa.and_(*equal))

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Errors of the driver as ours, without the password; ``_Gone`` for those that may pass."""
        try:
            from sqlalchemy import exc
        except ImportError as error:
            raise MissingExtra("SQL sources need sqlalchemy. Install it with: pip install sqlalchemy") from error
        try:
            yield
        except H3labError:
            raise
        except (exc.OperationalError, exc.InterfaceError) as error:
            raise _Gone(f"{self.title}, {what} cannot be read: {_said(error)}.") from error
        except (exc.SQLAlchemyError, ValueError, TypeError, ArithmeticError) as error:
            raise DataError(f"{self.title}, {what} cannot be read: {_said(error)}.") from error


class _Gone(DataError):
    """A server that may answer the next time: the drivers have one error for this and for much else."""


def without_secrets(url: str) -> str:
    """A database's URL without its password; ``sslmode`` and the like stay, which opening it again needs."""
    url = re.sub(r"://([^/\s:]*):[^/\s]*@", r"://\1:***@", url)
    return re.sub(r"(?i)([?&][^=&\s]*(?:pass|pwd|secret|token|key)[^=&\s]*)=[^&\s]*", r"\1=***", url)


def _said(error: Exception) -> str:
    """The driver's own words, in one line: SQLAlchemy adds the statement and a link."""
    return redacted(" ".join(str(getattr(error, "orig", None) or error).split())).rstrip(".")


@lru_cache(maxsize=8)
def _engine(url: str) -> Any:
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


def reopen(description: Mapping[str, Any]) -> Sql:
    """The inverse of ``describe``."""
    if "***" in description["url"]:
        raise DataError(
            f"{description['url']} was read with a password, which is not kept. Call h3.read with it again, or keep "
            "it where the driver looks (for PostgreSQL ~/.pgpass) and leave it out of the URL."
        )
    key = tuple(description["key"])
    return Sql(description["url"], description["table"], description["query"], key)
