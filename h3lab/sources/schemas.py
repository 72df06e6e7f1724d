"""Schemas: one set of names and types for several files or samples.

A column has the narrowest type that holds the values of all: whole numbers of any size, floats, whole numbers beside
floats (as long as they are floats themselves, up to 2⁵³), times of any unit, text beside categories. Where a type holds
the values of both only by changing some (decimals and floats, text and bytes) they differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.types as t

from h3lab.errors import DataError


def common(schemas: Sequence[tuple[str, pa.Schema]], union: bool) -> tuple[pa.Schema, dict[str, tuple[str, str]]]:
    """The schema of all files (name, schema), columns in the order of the first, and for each column that only some of
    them have one file with it and one without. ``union``: a file without a column has nulls in it, as JSON lines do.
    DataError names both files, the column and both types."""
    fields: dict[str, pa.DataType] = {}
    having: dict[str, list[str]] = {}
    for name, schema in schemas:
        for field in schema:
            if name in having.setdefault(field.name, []):
                raise DataError(f"{name}: two columns are named {field.name!r}.")
            having[field.name].append(name)
            one = widest(fields.get(field.name, pa.null()), field.type)
            if one is None:
                raise _differ(field, name, schemas)
            fields[field.name] = one
    some = {} if union else {column: names for column, names in having.items() if len(names) < len(schemas)}
    lacks = {column: next(name for name, _ in schemas if name not in names) for column, names in some.items()}
    partial = {column: (names[0], lacks[column]) for column, names in some.items()}
    if len(partial) == len(fields) > 0:
        column, (has, other) = next(iter(partial.items()))
        raise DataError(
            f"the files have no column in common: {has} has {column!r}, {other} does not. Read one kind of them."
        )
    return pa.schema([(column, one) for column, one in fields.items() if column not in partial]), partial


def _differ(field: pa.Field, name: str, schemas: Sequence[tuple[str, pa.Schema]]) -> DataError:
    others = [(other, schema.field(field.name).type) for other, schema in schemas if field.name in schema.names]
    first, known = next((each for each in others if widest(each[1], field.type) is None), others[0])
    return DataError(
        f"the files differ: column {field.name!r} is {field.type} in {name}, {known} in {first}, and no type holds the "
        "values of both. Write one of them again with the other's type, or read one without the other."
    )


def unify(a: pa.Schema, b: pa.Schema, mixed: bool) -> pa.Schema:
    """The schema of two samples of one file. ``mixed``: what does not fit together is text."""
    fields = {field.name: field.type for field in a}
    for field in b:
        known = fields.get(field.name, pa.null())
        one = widest(known, field.type)
        if one is None and (mixed or t.is_string(known) or t.is_string(field.type)):
            one = pa.string()
        if one is None:
            raise DataError(f"field {field.name!r} is {known} in some lines and {field.type} in others.")
        fields[field.name] = one
    return pa.schema(list(fields.items()))


def cast(table: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """The columns of a schema with its types, nulls where the table has none; DataError names ``where``, column and
    value where a type would change it."""
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(len(table), field.type))
            continue
        column = table.column(field.name)
        try:
            columns.append(column if column.type == field.type else column.cast(field.type))
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{where}: column {field.name!r} is {column.type} here and {field.type} elsewhere, which does not hold "
                f"its values ({error}). Write it with one type everywhere; as text, where every digit counts."
            ) from error
    return pa.table(columns, schema=schema)


def without_views(table: pa.Table) -> pa.Table:
    """Text and bytes that are views (of polars, of some writers) in the older form, for Arrow cannot filter views."""
    schema = unviewed(table.schema)
    return table if schema.equals(table.schema) else table.cast(schema)


def unviewed(schema: pa.Schema) -> pa.Schema:
    """A schema with the older form of views."""
    older = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    return pa.schema([field.with_type(older.get(field.type, field.type)) for field in schema])


def widest(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both; None where there is none."""
    if a.equals(b):
        return a
    if t.is_dictionary(a) or t.is_dictionary(b):
        return widest(*(kind.value_type if t.is_dictionary(kind) else kind for kind in (a, b)))
    kinds = {_kind(a), _kind(b)}
    if kinds in ({"text", "bytes"}, {"decimal", "float"}):
        return None
    try:
        fields = [pa.schema([("one", kind)]) for kind in (a, b)]
        return pa.unify_schemas(fields, promote_options="permissive").field("one").type
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return None


def _kind(kind: pa.DataType) -> str:
    if t.is_string(kind) or t.is_large_string(kind):
        return "text"
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_fixed_size_binary(kind):
        return "bytes"
    return "decimal" if t.is_decimal(kind) else "float" if t.is_floating(kind) else ""
