"""SQL: a source of the rows of a table or query, through SQLAlchemy, in the order of a key.

It knows keys, runs of rows and what can go wrong with servers; how a database's values become Arrow's stands in
``sqltypes``. SQLAlchemy was chosen because it speaks to every database in one language, ours included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from h3lab import servers
from h3lab.errors import DamagedData, DataError, H3labError, MissingExtra, UsageError, redacted, without_passwords
from h3lab.keys import Keyed, columns_of_key
from h3lab.source import PART_ROWS, Part, Source
from h3lab.sources import cuts, databases, reflection, sqltypes
from h3lab.sources.databases import connected, heard
from h3lab.sources.formats import rows_at_once

Answer = TypeVar("Answer")
_KEYS_AT_A_TIME = 8192
#: So many rows at either end show how large rows are.
SAMPLE_ROWS = 200


def read_sql(url: str, table: str | None, query: str | None, key: str | Sequence[str] | None) -> Source:
    """Rows of a table or query, known by ``key`` (None: the table's primary key)."""
    source = Sql(url, table, query, None if key is None else columns_of_key(key))
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
        self._types, primary = self._asked("its columns", self._reflected)
        if not (key or primary):
            raise UsageError(
                f"{self.title} has no primary key, so its rows have no order to read them in. Name the columns that "
                f"know a row: h3.read(..., key={list(self._types)[:1]!r}). It has: {', '.join(self._types)}."
            )
        self.key = tuple(key or primary)
        self.check(self.key)
        sqltypes.check_keys({name: self._types[name] for name in self.key}, self.title)

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(list(self._types.items()))

    def parts(self) -> Sequence[Part]:
        """One query over the key finds where parts begin (:mod:`h3lab.sources.cuts`); no other column is read. The same
        rows are cut the same, and a row more or less changes the part that it is in."""
        return list(self._once("parts", self._cut))

    def _cut(self) -> list[Part]:
        edges, last, rows = self._asked("its keys", self._edges)
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
        return self._asked(where, lambda: self._read(part, wanted, where))

    def first(self, rows: int) -> pa.Table:
        import sqlalchemy as sa

        below = self._below()
        asked = sa.select(below).order_by(*self._order(below)).limit(rows)
        return self._asked("its first rows", lambda: self._fetched(asked, "its first rows"))

    def describe(self) -> dict[str, Any]:
        """The URL without its password: give that by ``~/.pgpass`` or the driver's own environment variables, where the
        source is to be opened again."""
        own = {"table": self.table, "query": self.query, "key": list(self.key)}
        return {"kind": "sql", "url": without_passwords(self.url), **own}

    @property
    def title(self) -> str:
        return f"{'table ' + self.table if self.table else 'query'} of {without_passwords(self.url)}"

    def size(self) -> str:
        import sqlalchemy as sa

        if "parts" in self.__dict__.get("_known", {}):
            return super().size()

        def ask() -> int:
            with connected(self.url) as connection:
                return int(connection.execute(sa.select(sa.func.count()).select_from(self._below())).scalar_one())

        return f"{self._asked('the number of its rows', ask):,} rows"

    # ---- Inside

    @property
    def _name(self) -> str:
        """What row keys would derive from: the same on another server."""
        return self.table or str(self.query)

    def _below(self) -> Any:
        """The table or query, as what a SELECT can be made from."""
        import sqlalchemy as sa

        # With their types the driver's values become Python's: SQLite has text for a date.
        columns = [sa.column(column, sqltypes.generic(kind)) for column, kind in self._types.items()]
        if self.query is not None:
            return sa.text(reflection.closed(self.query)).columns(*columns).subquery("h3")
        schema, _, name = str(self.table).rpartition(".")
        return sa.table(name, *columns, schema=schema or None)

    def _reflected(self) -> tuple[dict[str, pa.DataType], tuple[str, ...]]:
        """(Arrow type by column, primary key)."""
        self.url = databases.located(self.url)
        with connected(self.url) as connection:
            if self.query is not None:
                return reflection.of_query(connection, self.query), ()
            return reflection.of_table(connection, str(self.table), redacted(self.url))

    def _order(self, below: Any) -> list[Any]:
        names = [*self.key, *(name for name in self._types if name not in self.key)]
        return [below.c[name] for name in names if sqltypes.orderable(self._types[name]) or name in self.key]

    def _usual_rows(self, below: Any) -> int:
        """Rows of a part: fewer where rows are large, as the first and the last ones tell."""
        import sqlalchemy as sa

        key = [below.c[name] for name in self.key]
        orders = (key, [column.desc() for column in key])
        try:
            ends = [self._fetched(sa.select(below).order_by(*by).limit(SAMPLE_ROWS), "its ends") for by in orders]
        except DataError:  # a value that cannot be read, perhaps of a column that nobody asks for
            return PART_ROWS
        return min(PART_ROWS, rows_at_once(sum(t.nbytes for t in ends) / max(1, sum(map(len, ends)))))

    def _edges(self) -> tuple[list[tuple[list[Any], int]], list[Any], int]:
        """([(first key of a part, number of rows before it)], greatest key, rows)."""
        import sqlalchemy as sa

        below = self._below()
        key = [below.c[name] for name in self.key]
        # The database tells which keys are equal: it may ignore case, or blanks at the end.
        before = (sa.func.rank().over(order_by=key) - 1).label("h3_before")
        nulls = sa.select(sa.func.count()).select_from(below).where(sa.or_(*(c.is_(None) for c in key)))
        last: list[Any] = []
        rows, usual = 0, self._usual_rows(below)

        def pieces(connection: Any) -> Iterator[cuts.Piece]:
            nonlocal last, rows
            schema = pa.schema([(name, self._types[name]) for name in self.key])
            asked = sa.select(*key, before).order_by(*key)
            for found in connection.execution_options(yield_per=_KEYS_AT_A_TIME).execute(asked).partitions():
                heard(connection)
                *columns, firsts = zip(*found, strict=True)
                keys = list(zip(*columns, strict=True))
                last, rows = sqltypes.told(keys[-1]), rows + len(keys)
                hashes = cuts.hashes_of(sqltypes.to_arrow(keys, schema, f"{self.title}, its keys"))
                yield keys, hashes, np.array(firsts, np.int64)

        with connected(self.url) as connection:
            if missing := connection.execute(nulls).scalar_one():
                raise DataError(
                    f"{self.title}: {missing} rows have no {' or '.join(self.key)}, which is their key. Leave them out "
                    "with query='SELECT ... WHERE ... IS NOT NULL', or take another key."
                )
            edges = [(sqltypes.told(key), start) for key, start in cuts.cuts(pieces(connection), usual)]
        return edges, last, rows

    def _read(self, part: Part, wanted: list[str], where: str) -> pa.Table:
        import sqlalchemy as sa

        if not part.rows:
            return pa.schema([(name, self._types[name]) for name in wanted]).empty_table()
        below = self._below()
        asked = sa.select(*(below.c[name] for name in wanted or self.key)).order_by(*self._order(below))
        for how, edge in part.position.items():
            asked = asked.where(self._beyond(below, how, edge))
        table = self._fetched(asked, where, max(64, part.rows // 32))
        if table.num_rows != part.rows:
            raise DamagedData(
                f"{self.title}, {where}: {part.rows} rows were found before, {table.num_rows} now; the table has "
                "changed. Read it again with h3.read."
            )
        return table.select(wanted)

    def _fetched(self, asked: Any, where: str, at_once: int = 64) -> pa.Table:
        """The rows of a SELECT, ``at_once`` of them as Python's objects, which are large. DataError names the column
        with a value that the driver cannot make an object of, such as the date 'infinity'."""
        from sqlalchemy import exc

        schema = pa.schema([(column.name, self._types[column.name]) for column in asked.selected_columns])
        made = []
        try:
            with connected(self.url) as connection:
                found = connection.execution_options(yield_per=at_once).execute(asked).partitions()
                for rows in found:
                    heard(connection)
                    made.append(sqltypes.to_arrow(rows, schema, f"{self.title}, {where}"))
        except H3labError:
            raise
        except (exc.DataError, ValueError, TypeError, ArithmeticError) as error:
            if len(schema) == 1:
                name = schema.names[0]
                raise DataError(
                    f"{self.title}, {where}: column {name!r} has a value that cannot be read: {servers.said(error)}. "
                    "Cast it in a query: h3.read(url, query='SELECT CAST(...) ...', key=...)."
                ) from servers.shown(error)
            for column in asked.selected_columns:
                self._fetched(asked.with_only_columns(column), where, at_once)
            raise
        return pa.concat_tables([schema.empty_table(), *made])

    def _beyond(self, below: Any, how: str, edge: list[Any]) -> Any:
        """Whether a row's key lies from, before or up to another one, column by column, as every database can tell."""
        import sqlalchemy as sa

        types = [self._types[name] for name in self.key]
        columns = [below.c[name] for name in self.key]
        told = zip(sqltypes.meant(edge, types), types, strict=True)
        # As literals: SQLAlchemy refuses to order Python's True and False. Text goes without a type, and gets that of
        # the column: a varchar is no uuid, no enum, and ends otherwise than a char.
        values = [sa.literal(value, sqltypes.generic(kind) or sa.types.NullType()) for value, kind in told]
        strict = [c > v if how == "from" else c < v for c, v in zip(columns, values, strict=True)]
        equal = [c == v for c, v in zip(columns, values, strict=True)]
        ways = [sa.and_(*equal[:place], strict[place]) for place in range(len(columns))]
        return sa.or_(*ways) if how == "before" else sa.or_(*ways, sa.and_(*equal))

    def _asked(self, what: str, ask: Callable[[], Answer]) -> Answer:
        """What ``ask`` gives. A server that has gone is waited for; errors of the driver come as ours."""
        try:
            from sqlalchemy import exc
        except ImportError as error:
            raise MissingExtra("SQL sources need sqlalchemy. Install it with: pip install sqlalchemy") from error
        try:
            return servers.patiently(ask, without_passwords(self.url).partition("?")[0])
        except H3labError:
            raise
        except (exc.SQLAlchemyError, ValueError, TypeError, ArithmeticError) as error:
            raise DataError(
                f"{self.title}, {what} cannot be read: {servers.said(error)}. {servers.advice(error)}".rstrip()
            ) from servers.shown(error)


def reopen(description: Mapping[str, Any]) -> Sql:
    """The inverse of ``describe``."""
    if "***" in description["url"]:
        raise DataError(
            f"{description['url']} was read with a password, which is not kept. Call h3.read with it again, or keep "
            "it where the driver looks (for PostgreSQL ~/.pgpass) and leave it out of the URL."
        )
    key = tuple(description["key"])
    return Sql(description["url"], description["table"], description["query"], key)
