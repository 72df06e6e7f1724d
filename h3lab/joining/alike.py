"""Alike keys: which types of keys can be equal, and the form in which equal keys are equal bits.

It knows Arrow types and their values; it does not know sources, or where a row stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab.errors import DataError
from h3lab.keys import keys_of
from h3lab.source import mix

if TYPE_CHECKING:
    import pyarrow as pa

#: Parts of a second, by the unit of a type.
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
#: What makes a column of pandas one of a kind.
_CASTS = {
    "text": "df[c].astype(str), or CAST(c AS TEXT)",
    "whole number": "df[c].astype('int64')",
    "boolean": "df[c].astype(bool)",
    "date": "pd.to_datetime(df[c]).dt.date",
    "time": "pd.to_datetime(df[c])",
    "time with zone": "pd.to_datetime(df[c], utc=True)",
    "time of day": "pd.to_datetime(df[c]).dt.time",
    "duration": "pd.to_timedelta(df[c])",
}
_KINDS = "whole numbers (floats count where they are whole), text, booleans, decimals, dates, times or durations"


def alike(here: pa.DataType, there: pa.DataType, name_here: str, name_there: str) -> None:
    """DataError where values of two types cannot be equal; it names both and the cast."""
    import pyarrow.types as t

    ours, theirs = _kind_of(here), _kind_of(there)
    if (ours == theirs and ours) or t.is_null(here) or t.is_null(there):
        return
    told = f"keys of unlike types: {name_here!r} is {here}, {name_there!r} is {there}."
    if ours and theirs:
        # What has a zone stays what it is in pd.to_datetime.
        plain = ours == "time" and theirs == "time with zone"
        cast = "df[c].dt.tz_convert(None)" if plain else _CASTS.get(ours, f"a cast to {here}")
        raise DataError(f"{told} Convert one of them where it is read, for example {name_there!r} by {cast}.")
    odd, kind, other = (name_here, here, theirs) if not ours else (name_there, there, ours)
    cast = _CASTS.get(other, _CASTS["text"])
    raise DataError(f"{told} Keys are {_KINDS}: convert {odd!r}, which is {kind}, where it is read, by {cast}.")


def _kind_of(kind: pa.DataType) -> str:
    """What two types share whose values may be equal; "" for no key."""
    import pyarrow.types as t

    if t.is_dictionary(kind):
        return _kind_of(kind.value_type)
    if t.is_timestamp(kind):
        return "time with zone" if kind.tz else "time"
    if t.is_decimal(kind):
        return f"decimal with {kind.scale} places"
    kinds = {
        "whole number": (t.is_integer, t.is_floating),
        "text": (t.is_string, t.is_large_string, t.is_string_view),
        "boolean": (t.is_boolean,),
        "date": (t.is_date,),
        "time of day": (t.is_time,),
        "duration": (t.is_duration,),
    }
    return next((name for name, tests in kinds.items() if any(test(kind) for test in tests)), "")


def usable(table: pa.Table) -> np.ndarray:
    """Which rows have every key; a NaN is none."""
    import pyarrow.compute as pc
    import pyarrow.types as t

    mask = np.ones(table.num_rows, bool)
    for column in table.columns:
        missing = pc.is_null(column, nan_is_null=t.is_floating(column.type))
        mask &= ~missing.to_numpy()
    return mask


def hashed(table: pa.Table, source: str = "") -> np.ndarray:
    """(rows,) uint64 of several columns, the same for equal values of alike types. ``source``: whose they are, for the
    DataError of a float that is no whole number."""
    found = np.zeros(table.num_rows, np.uint64)
    for name, column in zip(table.column_names, table.columns, strict=True):
        for form in _forms(column, f"{source}.{name}" if source else name):
            found = mix(found) ^ keys_of(form, "a key")
    return found


def same(here: pa.Table, there: pa.Table) -> np.ndarray:
    """(rows,) whether rows of two tables with alike columns are equal; those of keys with one hash may not be."""
    import pyarrow.compute as pc

    equal = np.ones(here.num_rows, bool)
    for a, b in zip(here.columns, there.columns, strict=True):
        for one, other in zip(_forms(a, ""), _forms(b, ""), strict=True):
            if one.type != other.type:  # signed and unsigned, which Arrow compares as signed, and refuses above 2⁶³
                equal &= one.to_numpy() == other.to_numpy()
            else:
                equal &= pc.equal(one, other).to_numpy()
    return equal


def _forms(column: pa.ChunkedArray, what: str) -> Sequence[pa.ChunkedArray]:
    """A key as one column or two in types that all alike ones share."""
    import pyarrow as pa
    import pyarrow.types as t

    kind = column.type
    if t.is_dictionary(kind):
        return _forms(column.cast(kind.value_type), what)
    if t.is_floating(kind):
        return [_whole(column, what)]
    if t.is_integer(kind) or t.is_null(kind):
        return [column.cast(pa.int64()) if kind != pa.uint64() else column]
    if t.is_timestamp(kind) or t.is_duration(kind):
        return _seconds(column.cast(pa.int64()).to_numpy(), _PER_SECOND[kind.unit])
    if t.is_time(kind):
        return [column.cast(pa.time64("ns"))]
    if t.is_date(kind):
        return [column.cast(pa.date32())]
    if t.is_decimal(kind):
        return [column.cast(pa.string())]
    return [column.cast(pa.large_string()) if t.is_string(kind) or t.is_string_view(kind) else column]


def _seconds(values: np.ndarray, per_second: int) -> list[Any]:
    """Seconds and nanoseconds: no single unit holds both the year 3000 and a nanosecond."""
    import pyarrow as pa

    seconds, rest = np.divmod(values, per_second)
    return [pa.chunked_array([seconds]), pa.chunked_array([rest * (10**9 // per_second)])]


def _whole(column: pa.ChunkedArray, what: str) -> pa.ChunkedArray:
    """Floats as the whole numbers that they are: pandas makes floats of whole numbers as soon as one is missing."""
    import pyarrow as pa

    values = column.to_numpy()
    limit = 2.0 ** (np.finfo(values.dtype).nmant + 1)
    wrong = ~((np.abs(values) < limit) & (values == np.trunc(values)))
    if wrong.any():
        raise DataError(
            f"key {what!r} is {column.type} and holds {values[np.argmax(wrong)]}. Floats are keys where they are whole "
            f"numbers below {limit:.0f} (several larger ones are one float); a missing one is a missing key. Convert "
            "the column where it is read, on both sides: df[c].astype('Int64') keeps gaps, df[c].astype(str) digits."
        )
    return pa.chunked_array([values.astype(np.int64)])
