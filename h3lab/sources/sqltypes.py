"""A database's types and values as Arrow's, and keys as JSON and back."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.types as t

from h3lab.errors import DataError, UsageError


def of_column(kind: Any) -> pa.DataType:
    """The Arrow type of a reflected column; what has none of its own is read as text."""
    from sqlalchemy import types as sql

    if isinstance(kind, sql.Boolean):
        return pa.bool_()
    if isinstance(kind, sql.Integer):
        return pa.int64()
    if isinstance(kind, sql.Float):  # also a Numeric, so it comes first
        return pa.float64()
    if isinstance(kind, sql.Numeric):
        # Without a precision a column holds numbers of any; then a float is the nearest that a model can use.
        return (
            pa.decimal128(kind.precision, kind.scale or 0) if kind.precision and kind.precision <= 38 else pa.float64()
        )
    if isinstance(kind, sql.DateTime):
        return pa.timestamp("us", tz="UTC" if kind.timezone else None)
    if isinstance(kind, sql.Date):
        return pa.date32()
    if isinstance(kind, sql.Time):
        return pa.time64("us")
    if isinstance(kind, sql.LargeBinary):
        return pa.binary()
    if isinstance(kind, sql.ARRAY):
        return pa.list_(of_column(kind.item_type))
    return pa.string()


def generic(kind: pa.DataType) -> Any:
    """SQLAlchemy's type for an Arrow one, where the driver's values need it to become Python's."""
    from sqlalchemy import types as sql

    if t.is_boolean(kind):
        return sql.Boolean()
    if t.is_date(kind):
        return sql.Date()
    if t.is_time(kind):
        return sql.Time()
    if t.is_timestamp(kind):
        return sql.DateTime(timezone=kind.tz is not None)
    return sql.Numeric(kind.precision, kind.scale) if t.is_decimal(kind) else None


def of_rows(names: list[str], rows: Sequence[Any]) -> dict[str, pa.DataType | None]:
    """The types of columns as some rows show them; None for one without a value."""
    values = ([row[place] for row in rows if row[place] is not None] for place in range(len(names)))
    return {name: _shown(some) if some else None for name, some in zip(names, values, strict=True)}


def _shown(values: list[Any]) -> pa.DataType:
    try:
        shown = pa.array([float(v) if isinstance(v, decimal.Decimal) else v for v in values]).type
    except (pa.ArrowException, OverflowError):
        return pa.string()
    return pa.timestamp("us", tz="UTC") if t.is_timestamp(shown) and shown.tz else shown


def check_keys(key: Mapping[str, pa.DataType], title: str) -> None:
    """UsageError for a column that cannot be a key: a float, which a database may round on its way, or a list."""
    for name, kind in key.items():
        if t.is_floating(kind) or t.is_nested(kind):
            raise UsageError(
                f"{title}: the key {name!r} is {kind}; rows are known by whole numbers, decimals with a precision, "
                f"text, dates or times. Cast it in a query: h3.read(url, query='SELECT CAST({name} AS VARCHAR(40)) "
                f"AS {name}, ... FROM ...', key={name!r})."
            )


def orderable(kind: pa.DataType) -> bool:
    """Whether every database can order a column of this type: text stands for what may have no order (JSON, points)."""
    return bool(t.is_integer(kind) or t.is_floating(kind) or t.is_temporal(kind) or t.is_decimal(kind))


def to_arrow(rows: Sequence[Any], schema: pa.Schema, where: str) -> pa.Table:
    """Rows as a table; DataError names the column and the first value that does not fit."""
    columns = []
    for place, field in enumerate(schema):
        values = [row[place] for row in rows]
        try:
            columns.append(_column(values, field.type))
        except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
            wrong = next((v for v in values if not _fits(v, field.type)), None)
            raise DataError(
                f"{where}: column {field.name!r} is {field.type}, and {wrong!r} came. Cast it in a query: "
                "h3.read(url, query='SELECT CAST(...) ...', key=...)."
            ) from error
    return pa.Table.from_arrays(columns, schema=schema)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if t.is_string(kind):
        return pa.array([v if v is None or isinstance(v, str) else _text(v) for v in values], kind)
    if t.is_floating(kind):
        return pa.array([float(v) if isinstance(v, decimal.Decimal) else v for v in values], kind)
    if t.is_boolean(kind):  # SQLite and MySQL have numbers for them
        return pa.array([v if v is None else bool(v) for v in values], kind)
    return pa.array(values, kind)


def _fits(value: Any, kind: pa.DataType) -> bool:
    try:
        _column([value], kind)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return False
    return True


def _text(value: Any) -> str:
    import json

    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else str(value)


def told(key: Sequence[Any]) -> list[Any]:
    """A key's values as JSON has them; :func:`meant` is the inverse."""
    return [_told(value) for value in key]


def _told(value: Any) -> Any:
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return value


def meant(key: Sequence[Any], types: Sequence[pa.DataType]) -> list[Any]:
    """A key's values out of JSON, as the database takes them."""
    return [_meant(value, kind) for value, kind in zip(key, types, strict=True)]


def _meant(value: Any, kind: pa.DataType) -> Any:
    if not isinstance(value, str):
        return value
    if t.is_timestamp(kind):
        return dt.datetime.fromisoformat(value)
    if t.is_date(kind):
        return dt.date.fromisoformat(value)
    if t.is_time(kind):
        return dt.time.fromisoformat(value)
    if t.is_decimal(kind) or t.is_floating(kind):
        return decimal.Decimal(value)
    return bytes.fromhex(value) if t.is_binary(kind) else value
