"""Schemas: one set of names and types for several files or samples.

Files must agree; a column of nulls alone takes the other file's type, and whole numbers beside floats become floats.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as t

from h3lab.errors import DataError


def common(schemas: list[tuple[str, pa.Schema]], inferred: bool) -> pa.Schema:
    """The schema of all files (name, schema), columns in the order of the first; DataError names file, column and
    both types. ``inferred``: types come from samples of text, so numbers may widen."""
    first_name, found = schemas[0]
    for name, schema in schemas:
        for column in schema.names:
            if schema.names.count(column) > 1:
                raise DataError(f"{name}: two columns are named {column!r}.")
        missing = [column for column in found.names if column not in schema.names]
        extra = [column for column in schema.names if column not in found.names]
        for columns, has, lacks in ((missing, first_name, name), (extra, name, first_name)):
            if columns:
                raise DataError(f"the files differ: {has} has the column {columns[0]!r}, {lacks} does not.")
        for column in found.names:
            a, b = found.field(column).type, schema.field(column).type
            one = _one(a, b, inferred)
            if one is None:
                raise DataError(
                    f"the files differ: column {column!r} is {b} in {name}, {a} in {first_name}. Write one of them "
                    "again with the other's type."
                )
            found = found.set(found.get_field_index(column), pa.field(column, one))
    return found


def unify(a: pa.Schema, b: pa.Schema, mixed: bool) -> pa.Schema:
    """The schema of two samples of one file. ``mixed``: what does not fit together is text."""
    fields = {field.name: field.type for field in a}
    for field in b:
        known = fields.get(field.name, pa.null())
        one = _one(known, field.type, True)
        if one is None and (mixed or t.is_string(known) or t.is_string(field.type)):
            one = pa.string()
        if one is None:
            raise DataError(f"field {field.name!r} is {known} in some lines and {field.type} in others.")
        fields[field.name] = one
    return pa.schema(list(fields.items()))


def _one(a: pa.DataType, b: pa.DataType, inferred: bool) -> pa.DataType | None:
    if a.equals(b) or t.is_null(b):
        return a
    if t.is_null(a):
        return b
    if inferred and {str(a), str(b)} == {"int64", "double"}:
        return pa.float64()
    if inferred and t.is_list(a) and t.is_list(b):
        inner = _one(a.value_type, b.value_type, inferred)
        return None if inner is None else pa.list_(inner)
    if inferred and t.is_struct(a) and t.is_struct(b):
        fields = {field.name: field.type for field in a}
        for field in b:
            one = _one(fields.get(field.name, pa.null()), field.type, inferred)
            if one is None:
                return None
            fields[field.name] = one
        return pa.struct(list(fields.items()))
    return None
