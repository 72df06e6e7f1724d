"""Reflection: what a database tells of the columns of a table or of a query, before a row is read."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa

from h3lab.errors import UnknownName
from h3lab.sources import sqltypes

#: So many values show the type of a column whose driver does not tell it.
_SHOWN = 1000
_TOKENS = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | \$(\w*)\$.*?\$\1\$ | --[^\n]* | /\*.*?\*/ | .""", re.S | re.X
)


def of_table(connection: Any, table: str, shown: str) -> tuple[dict[str, pa.DataType], tuple[str, ...]]:
    """(Arrow type by column, primary key); UnknownName, which names the database as it may be ``shown``."""
    import sqlalchemy as sa

    schema, _, name = table.rpartition(".")
    inspector = sa.inspect(connection)
    if not inspector.has_table(name, schema=schema or None):
        known = [*inspector.get_table_names(schema or None), *inspector.get_view_names(schema or None)]
        raise UnknownName("table", name, sorted(known), shown)
    columns = inspector.get_columns(name, schema=schema or None)
    primary = inspector.get_pk_constraint(name, schema=schema or None).get("constrained_columns") or ()
    return {column["name"]: sqltypes.of_column(column["type"]) for column in columns}, tuple(primary)


def of_query(connection: Any, query: str) -> dict[str, pa.DataType]:
    """The Arrow types of a query's columns: as the driver tells them, else as its first rows show them, else, where
    these have no value, as the first that have one do. A column without any value is text."""
    import sqlalchemy as sa

    below = sa.text(f"({closed(query)}) h3")
    found = connection.execute(sa.select(sa.text("*")).select_from(below).limit(0))
    types = {told[0]: _told(connection, told) for told in found.cursor.description}
    found.close()
    columns: dict[str, Any] = {name: sa.column(name) for name, kind in types.items() if kind is None}
    if columns:
        rows = connection.execute(sa.select(*columns.values()).select_from(below).limit(_SHOWN)).all()
        types.update(sqltypes.of_rows(list(columns), rows))
    for name in [name for name in columns if types[name] is None]:
        column = columns[name]
        asked = sa.select(column).select_from(below).where(column.is_not(None)).limit(_SHOWN)
        types.update(sqltypes.of_rows([name], connection.execute(asked).all()))
    return {name: kind or pa.string() for name, kind in types.items()}


def _told(connection: Any, column: Any) -> pa.DataType | None:
    """A column's type as psycopg tells it, by its number in the server's catalogue; None from other drivers, which
    have no word in common for it."""
    import sqlalchemy as sa

    known = getattr(getattr(connection.connection.driver_connection, "adapters", None), "types", None)
    info = None if known is None else known.get(column.type_code)
    kind = None if info is None else connection.dialect.ischema_names.get(info.regtype)
    if info is None or kind is None:
        return None
    if issubclass(kind, sa.Numeric) and not issubclass(kind, sa.Float):
        made = kind(column.precision, column.scale)
    else:
        made = kind(timezone=True) if info.regtype.endswith(" with time zone") else kind()
    return sqltypes.of_column(made if column.type_code == info.oid else sa.ARRAY(made))


def closed(query: str) -> str:
    """A query as it may stand between parentheses: without the semicolon that ends it, and with a new line behind a
    comment. Colons are escaped, for SQLAlchemy takes what follows one for a parameter."""
    meant = [t.end() for t in _TOKENS.finditer(query) if not re.match(r"\s|;|--|/\*", t[0])]
    end = meant[-1] if meant else 0
    text = query[:end] if ";" in query[end:] else query
    return text.rstrip().replace(":", r"\:") + "\n"
