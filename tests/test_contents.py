"""A digest of rows follows from their values alone."""

import datetime as dt
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h3lab.serial.contents import Digest, column_digest, table_digest

COLUMNS = {
    "int": pa.array([1, None, 3, -4, 5, 6, None, 8, 9], pa.int16()),
    "float": pa.array([0.0, -0.0, None, float("nan"), 1e300, 1, 2, 3, 4], pa.float64()),
    "bool": pa.array([True, None, False, True, True, False, None, True, True]),
    "text": pa.array(["a", "", None, "bc", "ü", "x" * 40, "a", None, ""]),
    "bytes": pa.array([b"a", b"", None, b"bc", b"\xff", b"", b"a", None, b""]),
    "time": pa.array([dt.datetime(2013, 1, n + 1) if n % 3 else None for n in range(9)], pa.timestamp("us")),
    "day": pa.array([dt.date(2013, 1, n + 1) if n % 4 else None for n in range(9)]),
    "decimal": pa.array([decimal.Decimal(n) / 4 if n % 3 else None for n in range(9)], pa.decimal128(9, 2)),
    "list": pa.array([[1, 2], [], None, [None], [3], [4, 5, 6], [], None, [7]]),
    "fixed": pa.array([[1, 2], None, [3, 4], [None, 5], [6, 7], [8, 9], [1, 1], None, [2, 2]], pa.list_(pa.int8(), 2)),
    "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}, *[{"a": n, "b": "z"} for n in range(6)]]),
    "category": pa.array(["a", None, "b", "a", "c", "c", "b", None, "a"]).dictionary_encode(),
    "map": pa.array([[("a", 1)], None, [], *[[("b", n)] for n in range(6)]], pa.map_(pa.string(), pa.int64())),
    "null": pa.nulls(9),
}


@pytest.mark.parametrize("name", COLUMNS)
@settings(deadline=None, max_examples=25)
@given(cuts=st.lists(st.integers(0, 9), max_size=5), before=st.integers(0, 3))
def test_pieces_and_offsets_change_nothing(name, cuts, before):
    values = COLUMNS[name]
    longer = pa.concat_arrays([values.slice(0, before), values])  # a slice of it has an offset
    edges = [0, *sorted(cuts), 9]
    pieces = [longer.slice(before + a, b - a) for a, b in zip(edges, edges[1:], strict=False)]
    assert column_digest(pa.chunked_array(pieces, values.type)) == column_digest(pa.chunked_array([values]))


@pytest.mark.parametrize("name", sorted(set(COLUMNS) - {"null"}))
def test_each_value_and_place_counts(name):
    values = COLUMNS[name]
    rows = values.to_pylist()
    found = {repr(rows): column_digest(pa.chunked_array([values]))}
    variants = [rows[:-1], [*rows, None], [*rows[:-1], None], [None, *rows[1:]], [rows[-1], *rows[:-1]], rows[::-1]]
    for variant in variants:
        found[repr(variant)] = column_digest(pa.chunked_array([pa.array(variant, values.type)]))
    assert len(set(found.values())) == len(found) > 4


def test_what_lies_in_the_slot_of_a_null_is_nobodys():
    one = pa.array(np.array([1.0, 7.0, 3.0]), mask=np.array([False, True, False]))
    two = pa.array(np.array([1.0, 8.0, 3.0]), mask=np.array([False, True, False]))
    assert column_digest(pa.chunked_array([one])) == column_digest(pa.chunked_array([two]))


def test_types_count_but_for_the_forms_of_text():
    column = pa.chunked_array([["a", None, "b"]])
    for kind in (pa.large_string(), pa.string_view()):
        assert column_digest(column.cast(kind)) == column_digest(column)
    assert column_digest(column.cast(pa.binary())) != column_digest(column)
    assert column_digest(pa.chunked_array([[1]], pa.int8())) != column_digest(pa.chunked_array([[1]], pa.int16()))


def test_tables_are_their_columns_one_below_the_other(tmp_path):
    table = pa.table({name: values for name, values in COLUMNS.items() if name in ("int", "float", "bool", "text")})
    whole = table_digest([table])
    assert table_digest([table.slice(0, 4), table.slice(4)]) == whole
    assert table_digest([table.rename_columns(["int", "float", "bool", "other"])]) != whole
    assert table_digest([table.slice(0, 8)]) != whole
    frame = pd.DataFrame({"a": [1.5, None], "b": ["x", None]})
    frame.to_parquet(tmp_path / "a.parquet")
    stored = pa.Table.from_pandas(pd.read_parquet(tmp_path / "a.parquet"), preserve_index=False)
    assert table_digest([stored]) == table_digest([pa.Table.from_pandas(frame, preserve_index=False)])


def test_nothing_has_a_digest_too():
    assert Digest().hexdigest() == Digest().hexdigest() != column_digest(pa.chunked_array([[0]]))
    assert column_digest(pa.chunked_array([], pa.int8())) != column_digest(pa.chunked_array([], pa.int16()))
