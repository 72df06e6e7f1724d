"""Files of every format, cut anywhere, are the rows that were written; whatever is wrong with them is named."""

import bz2
import csv
import doctest
import functools
import gzip
import http.server
import io
import json
import os
import random
import shutil
import threading
import zipfile

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry as LOADED
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

import h3lab.sources
from h3lab import worlds
from h3lab.errors import DamagedData, DataError, MissingExtra, StorageError, UnknownName, UsageError, redacted
from h3lab.feeds.feed import open_feed
from h3lab.pipeline import Pipeline, Preprocessor
from h3lab.preparing.prepare import prepare
from h3lab.serial import signed
from h3lab.sources import formats, frames, lines, read
from h3lab.sources.places import natural
from h3lab.testing import check_source

ROWS = 300


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of a few rows, so that every file is cut, and chunks that end in the middle of everything."""
    monkeypatch.setattr(formats, "PART_ROWS", 64)
    monkeypatch.setattr(frames, "PART_ROWS", 64)
    monkeypatch.setattr(lines, "PART_ROWS", 64)
    monkeypatch.setattr(lines, "_CHUNK", 1000)


def frame(rows: int = ROWS, start: int = 0) -> pd.DataFrame:
    numbers = np.arange(start, start + rows)
    return pd.DataFrame(
        {
            "id": numbers,
            "price": np.sin(numbers).round(6),
            "text": [f'he said "{n}", twice' if n % 3 else f"line\nbreak {n} ü" for n in numbers],
            "good": numbers % 2 == 0,
            "class": np.array(["red", "green", "blue"])[numbers % 3],
        }
    )


def stream(table: pa.Table, path: str) -> None:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=50)


WRITERS = {
    "a.parquet": lambda df, path: df.to_parquet(path),
    "groups.parquet": lambda df, path: df.to_parquet(path, row_group_size=20),
    "a.csv": lambda df, path: df.to_csv(path, index=False),
    "crlf.csv": lambda df, path: df.to_csv(path, index=False, lineterminator="\r\n"),
    "a.csv.gz": lambda df, path: df.to_csv(path, index=False),
    "a.tsv": lambda df, path: df.to_csv(path, index=False, sep="\t"),
    "a.jsonl": lambda df, path: df.to_json(path, orient="records", lines=True),
    "a.ndjson.bz2": lambda df, path: df.to_json(path, orient="records", lines=True),
    "a.feather": lambda df, path: feather.write_feather(df, path, chunksize=50),
    "large.arrow": lambda df, path: feather.write_feather(df, path, compression="uncompressed"),
    "a.arrows": lambda df, path: stream(pa.Table.from_pandas(df), path),
}


ARRAYS = {"x": np.sin(np.arange(ROWS)), "y": np.arange(ROWS), "z": np.array(["a", "b"] * (ROWS // 2))}
ALL_WRITERS = {
    **WRITERS,
    "a.npz": lambda df, path: np.savez(path, **ARRAYS),
    "squeezed.npz": lambda df, path: np.savez_compressed(path, **ARRAYS),
    "a.npy": lambda df, path: np.save(path, np.arange(ROWS * 3.0).reshape(ROWS, 3)),
}


@pytest.fixture(params=WRITERS)
def written(request, tmp_path):
    path = tmp_path / request.param
    WRITERS[request.param](frame(), str(path))
    return path


def rows_of(source) -> pd.DataFrame:
    return pa.concat_tables(source.tables()).to_pandas()


def texts(source, column: str = "text") -> list:
    return [value for table in source.tables([column]) for value in table.column(column).to_pylist()]


def test_the_examples_run():
    assert doctest.testmod(h3lab.sources).failed == 0


def test_every_format_keeps_the_promises_of_a_source(written):
    check_source(read(written))
    check_source(read(str(written), key="id"))


def test_every_format_has_the_rows_that_were_written(written):
    source = read(written)
    found = rows_of(source)
    assert found[list(frame().columns)].astype(object).equals(frame().astype(object))
    assert len(source) == ROWS and source.head(3)["id"].tolist() == [0, 1, 2]
    parts = source.parts()
    assert len(parts) > 3 and max(part.rows for part in parts) <= 96
    assert [part.start for part in parts] == np.cumsum([0] + [part.rows for part in parts])[:-1].tolist()


def test_parts_can_be_read_in_any_order_and_process(written):
    source = read(written)
    expected = {part.index: source.read(part, ["id", "text"]) for part in source.parts()}
    order = list(source.parts())
    random.Random(0).shuffle(order)
    there = signed.loads(signed.dumps(source))
    for part in order + order:
        assert there.read(part, ["id", "text"]).equals(expected[part.index])


def test_reading_looks_at_metadata_alone(tmp_path):
    frame(5000).to_parquet(path := tmp_path / "a.parquet", compression=None)
    data = bytearray(path.read_bytes())
    middle = slice(len(data) // 2, len(data) // 2 + 400)
    data[middle] = b"\xff" * 400
    path.write_bytes(data)
    source = read(path)
    assert source.size() == "5,000 rows" and len(source.parts()) == 79
    with pytest.raises(DamagedData, match=rf"{path}, part \d+ \(rows from \d+\) cannot be read"):
        list(source.tables())


# ---- Text -------------------------------------------------------------------------------------------------

CELLS = st.text(st.sampled_from(list('ab",\n\r;ü🙂 \t0')), max_size=8)
NO_RETURN = st.text(st.sampled_from(list('ab",\n;ü🙂 \t0')), max_size=8)


def write_csv(rows: list[tuple[str, str]], end: str, quoting: int, final: bool, separator: str = ",") -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=end, quoting=quoting, delimiter=separator)
    writer.writerow(["text", "other"])
    writer.writerows(rows)
    text = out.getvalue()
    return (text if final else text.removesuffix(end)).encode()


@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(st.tuples(CELLS, NO_RETURN), min_size=1, max_size=40),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    final=st.booleans(),
    part=st.integers(1, 9),
    piece=st.sampled_from([10, 100, 10_000]),
    chunk=st.integers(1, 50),
    kind=st.sampled_from([("csv", ","), ("tsv", "\t")]),
)
def test_csv_can_be_cut_anywhere(rows, end, quoting, final, part, piece, chunk, kind, tmp_path_factory):
    path = tmp_path_factory.mktemp("csv") / f"a.{kind[0]}"
    path.write_bytes(write_csv(rows, end, quoting, final, kind[1]))
    if end == "\n" and quoting == csv.QUOTE_MINIMAL:
        assume(not any("\r" in text for text, _ in rows))  # Python's writer leaves it without quotes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "PART_ROWS", part)
        patch.setattr(formats, "PART_ROWS", part)
        patch.setattr(lines, "PIECE_BYTES", piece)
        patch.setattr(lines, "_CHUNK", chunk)
        source = read(path)
        parsed = pacsv.read_csv(path, parse_options=pacsv.ParseOptions(delimiter=kind[1], newlines_in_values=True))
        expected = [[v if v != "" else None for v in column] for column in parsed.to_pydict().values()]
        if parsed.schema.types == [pa.string()] * 2:
            assert expected[1] == [other or None for _, other in rows]
        assert [texts(source, name) for name in ("text", "other")] == expected
        assert len(source) == len(rows) and sum(p.rows for p in source.parts()) == len(rows)
        keys = np.concatenate([source.keys(p, source.read(p)) for p in source.parts()])
        assert len(np.unique(keys)) == len(rows)


@settings(deadline=None, max_examples=150)
@given(
    body=st.lists(st.text(st.sampled_from(list('ab"" \r')), max_size=6), min_size=1, max_size=30),
    part=st.integers(1, 5),
    chunk=st.integers(1, 20),
)
def test_stray_quotes_are_read_as_the_parser_reads_them(body, part, chunk, tmp_path_factory):
    """Such a file may be wrong, and then it is an error; but it never gives other rows than in one piece."""
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_text("text,n\n" + "".join(f"{cell},1\n" for cell in body), newline="")
    try:
        whole = pacsv.read_csv(path, parse_options=pacsv.ParseOptions(newlines_in_values=True))
    except pa.ArrowInvalid:
        whole = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "PART_ROWS", part)
        patch.setattr(formats, "PART_ROWS", part)
        patch.setattr(lines, "_CHUNK", chunk)
        if whole is None:
            with pytest.raises(DataError, match=r"a\.csv"):
                texts(read(path))
            return
        found = texts(read(path))
        assert found == [value if value != "" else None for value in whole.column("text").to_pylist()]


def test_text_without_line_breaks_in_quotes_is_cut_by_bytes(tmp_path):
    rows = [(f'a "quoted" word {n}', str(n)) for n in range(200)]
    (tmp_path / "a.csv").write_bytes(write_csv(rows, "\n", csv.QUOTE_MINIMAL, True))
    parts = read(tmp_path / "a.csv").parts()
    assert all("bytes" in part.position for part in parts) and len(parts) == 4


def test_line_breaks_in_quotes_are_cut_by_bytes_where_the_parser_agrees(tmp_path):
    (tmp_path / "a.csv").write_bytes(write_csv([("x\ny", "1")] * 200, "\n", csv.QUOTE_MINIMAL, True))
    assert all("bytes" in part.position for part in read(tmp_path / "a.csv").parts())
    stray = 'text,n\n5" disk,1\n' + '"x\ny",2\n' * 200
    (tmp_path / "b.csv").write_text(stray)
    source = read(tmp_path / "b.csv")
    assert all("rows" in part.position for part in source.parts())
    assert texts(source) == ['5" disk', *["x\ny"] * 200]


def test_lone_returns_end_lines_as_for_the_parser(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,n\r" + b"a,1\r" * 100)
    assert texts(read(tmp_path / "a.csv")) == ["a"] * 100


def test_blank_lines_are_no_rows(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\n\r\ntext,n\n\n" + b"a,1\n\r\n\n" * 150 + b"\r\n\n")
    source = read(tmp_path / "a.csv")
    assert len(source) == 150 and len(source.parts()) == 3 and texts(source) == ["a"] * 150
    (tmp_path / "a.jsonl").write_bytes(b'\n{"text": "a"}\r\n\r\n' * 150)
    assert texts(read(tmp_path / "a.jsonl")) == ["a"] * 150


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    (tmp_path / "a.csv").write_bytes("﻿text,n\nä,1\n".encode())
    source = read(tmp_path / "a.csv")
    assert source.columns == ["text", "n"] and texts(source) == ["ä"]


def test_an_empty_cell_is_missing(tmp_path):
    (tmp_path / "a.csv").write_text("text,n\na,1\n,\nNA,nan\n")
    found = read(tmp_path / "a.csv").first(5).to_pydict()
    assert found["text"] == ["a", None, "NA"] and found["n"][:2] == [1, None]


def test_types_are_found_at_both_ends_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("h3lab.sources.text._SAMPLE", 500)
    body = [f"{n},{n},,2024-01-01" for n in range(1000)] + ["1.5,x,late,2024-01-01"] * 30
    (tmp_path / "a.csv").write_text("\n".join(["a,b,c,d", *body]))
    source = read(tmp_path / "a.csv")
    assert [str(field.type) for field in source.schema] == ["double", "string", "string", "date32[day]"]
    assert texts(source, "c")[-1] == "late" and texts(source, "b")[0] == "0"
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n' * 500 + '{"a": 1.5, "b": {"c": [1]}}\n' * 500)
    source = read(tmp_path / "a.jsonl")
    assert source.schema.field("a").type == pa.float64() and texts(source, "b")[-1] == {"c": [1]}


def test_a_value_of_another_type_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("h3lab.sources.text._SAMPLE", 200)
    body = [str(n) for n in range(5000)]
    body[1500] = "many"
    (tmp_path / "a.csv").write_text("\n".join(["amount", *body]))
    source = read(tmp_path / "a.csv")
    with pytest.raises(DamagedData, match=r"a\.csv, line 1502 does not fit column 'amount', int64: many"):
        list(source.tables())
    assert source.read(source.parts()[0]).num_rows == 64


def test_what_is_no_text_is_named(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,n\nGrüße,1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"column 'text' is no UTF-8"):
        _ = read(tmp_path / "a.csv").schema
    (tmp_path / "b.csv").write_text("a,b\n1,2\n1,2,3\n")
    with pytest.raises(DamagedData, match=r"b\.csv, line 3 has 3 fields, expected 2: 1,2,3\. Mend"):
        _ = read(tmp_path / "b.csv").schema
    (tmp_path / "c.json").write_text(json.dumps([{"a": 1}, {"a": 2}], indent=1))
    with pytest.raises(DamagedData, match=r"c\.json"):
        _ = read(tmp_path / "c.json").schema


@pytest.mark.parametrize("squeeze", [lambda data: data, gzip.compress], ids=["plain", "gzip"])
def test_a_line_that_is_no_json_is_named_by_its_number_in_the_file(tmp_path, squeeze):
    lines = [json.dumps({"a": n}) for n in range(70_000)]
    lines[69_000] = "nope"
    path = tmp_path / ("a.jsonl.gz" if squeeze is gzip.compress else "a.jsonl")
    path.write_bytes(squeeze("\n".join(lines).encode()))
    with pytest.raises(DamagedData, match=r"a\.jsonl.*line 69001 is no JSON .*: nope"):
        list(read(path).tables())
    (tmp_path / "b.jsonl").write_text('{"a": 1}\n\n[1, 2]\n')
    with pytest.raises(DamagedData, match=r"line 3 is no JSON object"):
        list(read(tmp_path / "b.jsonl").tables())


def test_files_without_rows(tmp_path):
    for name in ("a.csv", "a.jsonl", "b.csv"):
        (tmp_path / name).write_text("" if name[0] == "a" else "\n\n")
        with pytest.raises(DataError, match="is empty"):
            _ = read(tmp_path / name).schema
    (tmp_path / "c.csv").write_text("a,b\n")
    source = read(tmp_path / "c.csv")
    assert source.columns == ["a", "b"] and len(source) == 0 and len(source.head()) == 0
    with pytest.raises(DataError, match="0 rows in all"):
        source.split()
    frame(0).to_parquet(tmp_path / "d.parquet")
    assert len(read(tmp_path / "d.parquet")) == 0


def test_a_file_that_grows_keeps_its_first_parts(tmp_path):
    frame().to_csv(tmp_path / "a.csv", index=False)
    before = read(tmp_path / "a.csv").parts()
    frame(900).to_csv(tmp_path / "a.csv", index=False)
    after = read(tmp_path / "a.csv").parts()
    assert after[:4] == before[:4] and after[4].version != before[4].version and len(after) > len(before)
    text = (tmp_path / "a.csv").read_text().replace('he said ""70""', 'he said ""71""')
    (tmp_path / "a.csv").write_text(text)
    changed = [a.index for a, b in zip(after, read(tmp_path / "a.csv").parts()) if a != b]
    assert changed == [1]


def test_a_file_that_changed_is_noticed(tmp_path):
    for name in ("a.csv", "b.csv.gz", "c.parquet"):
        WRITERS.get(name.replace("b", "a").replace("c.p", "a.p"))(frame(), str(tmp_path / name))
        source = read(tmp_path / name)
        parts = source.parts()
        WRITERS.get(name.replace("b", "a").replace("c.p", "a.p"))(frame(70), str(tmp_path / name))
        with pytest.raises(DamagedData, match=f"{name}, part 4.*chang|{name}, part 4.*cannot"):
            source.read(parts[-1])
        os.unlink(tmp_path / name)
        with pytest.raises(DataError, match=f"{name} is gone"):
            source.read(parts[-1])


# ---- Several files ----------------------------------------------------------------------------------------


def several(folder, count: int = 12) -> None:
    for number in range(count):
        frame(10, number * 10).to_parquet(folder / f"part-{number}.parquet")


def test_files_come_in_their_natural_order(tmp_path):
    several(tmp_path)
    assert texts(read(str(tmp_path / "part-*.parquet")), "id") == list(range(120))
    assert texts(read(tmp_path), "id") == list(range(120))
    chosen = [tmp_path / "part-3.parquet", str(tmp_path / "part-1.parquet")]
    assert texts(read(chosen), "id") == [*range(30, 40), *range(10, 20)]


@given(st.lists(st.text(st.sampled_from(list("ab01_-.²")), max_size=6)))
def test_the_natural_order_is_total(names):
    assert sorted(names, key=natural) == sorted(names[::-1], key=natural)  # noqa: C415
    assert natural("part-2") < natural("part-10") < natural("part-10a")


def test_keys_belong_to_file_and_row_not_to_the_folder(tmp_path):
    (tmp_path / "here").mkdir()
    several(tmp_path / "here", 3)
    train, _ = read(str(tmp_path / "here" / "*.parquet")).split(0.5, seed=1)
    before = texts(train, "id")
    shutil.move(tmp_path / "here", tmp_path / "there")
    several(tmp_path / "there", 5)
    train, _ = read(tmp_path / "there").split(0.5, seed=1)
    assert [row for row in texts(train, "id") if row < 30] == before
    alone, _ = read(tmp_path / "there" / "part-1.parquet").split(0.5, seed=1)
    assert texts(alone, "id") == [row for row in before if 10 <= row < 20]


def test_files_of_one_name_in_two_folders_have_different_keys(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        frame(10).to_parquet(tmp_path / name / "rows.parquet")
    check_source(read([tmp_path / "a" / "rows.parquet", tmp_path / "b" / "rows.parquet"]))
    check_source(read(tmp_path / "*" / "rows.parquet"))
    check_source(read(tmp_path))


def test_notes_of_other_programs_are_no_rows(tmp_path):
    several(tmp_path, 2)
    for name in ("_SUCCESS", ".part-0.parquet.crc", "_metadata.parquet"):
        (tmp_path / name).write_text("")
    (tmp_path / "_temporary").mkdir()
    shutil.copy(tmp_path / "part-0.parquet", tmp_path / "_temporary" / "part-9.parquet")
    assert len(read(tmp_path)) == len(read(tmp_path / "*")) == len(read(tmp_path / "**")) == 20
    shutil.copy(tmp_path / "part-0.parquet", tmp_path / "_mine.parquet")
    assert len(read(tmp_path / "_mine.parquet")) == len(read(tmp_path / "_mi*.parquet")) == 10


def test_a_name_with_brackets_is_a_file_before_it_is_a_glob(tmp_path):
    frame(10).to_parquet(tmp_path / "a[1].parquet")
    assert len(read(tmp_path / "a[1].parquet")) == 10


def test_a_description_finds_files_that_came_later(tmp_path, monkeypatch):
    several(tmp_path, 2)
    monkeypatch.chdir(tmp_path)
    description = json.loads(json.dumps(read("part-*.parquet", key="id").describe()))
    several(tmp_path, 3)
    monkeypatch.chdir("/")
    assert len(worlds.reopen(description)) == 30


def test_missing_files_are_named_with_what_is_there(tmp_path):
    several(tmp_path, 2)
    with pytest.raises(DataError, match=r"no file .*part-O\.parquet\. Did you mean 'part-[01]\.parquet'"):
        read(tmp_path / "part-O.parquet")
    with pytest.raises(DataError, match=r"no file matches .*\*\.csv\. There are: part-0\.parquet, part-1"):
        read(tmp_path / "*.csv")
    with pytest.raises(DataError, match="is not there either"):
        read(tmp_path / "nowhere" / "a.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        read(tmp_path / "empty")
    with pytest.raises(DataError, match="named twice"):
        read([tmp_path / "part-0.parquet", tmp_path / "part-*.parquet"])


def test_formats_are_known_by_name(tmp_path):
    several(tmp_path, 1)
    frame(5).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match=r"several formats.*'csv': 'a\.csv'.*'parquet': 'part-0\.parquet'"):
        read(tmp_path / "*")
    shutil.copy(tmp_path / "a.csv", tmp_path / "rows.txt")
    with pytest.raises(DataError, match=r"rows\.txt.*format=, one of parquet, csv"):
        read(tmp_path / "rows.txt")
    assert len(read(tmp_path / "rows.txt", format="csv")) == 5
    with pytest.raises(UnknownName, match="Did you mean 'parquet'"):
        read(tmp_path / "rows.txt", format="parket")
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress((tmp_path / "part-0.parquet").read_bytes()))
    with pytest.raises(DataError, match="compresses by itself"):
        read(tmp_path / "b.parquet.gz")


def test_files_that_differ_are_named_with_both_types(tmp_path):
    frame(5).to_parquet(tmp_path / "a.parquet")
    frame(5).assign(price="cheap").to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"'price' is (large_)?string in .*b\.parquet, double in .*a\.parquet"):
        read(tmp_path).parts()
    for name, text in (("a.csv", "a,b\n1,x\n"), ("b.csv", "a,b\nred,x\n")):
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=r"'a' is string in .*b\.csv, int64 in .*a\.csv"):
        _ = read(tmp_path / "*.csv").schema


def test_files_may_differ_in_order_and_in_columns_of_nulls(tmp_path):
    frame(5).to_parquet(tmp_path / "a.parquet")
    frame(5, 5)[["class", "good", "text", "price", "id"]].to_parquet(tmp_path / "b.parquet")
    frame(5, 10).assign(price=None).to_parquet(tmp_path / "c.parquet")
    source = read(tmp_path)
    check_source(source)
    assert texts(source, "id") == list(range(15)) and source.columns == list(frame().columns)
    (tmp_path / "a.csv").write_text("a,b,c\n1,,x\n")
    (tmp_path / "b.csv").write_text("b,a,c\nred,2.5,\n")
    source = read(tmp_path / "*.csv")
    check_source(source)
    assert [texts(source, name) for name in "abc"] == [[1.0, 2.5], [None, "red"], ["x", None]]


def written_as(folder, *columns: pa.Array) -> h3lab.sources.Files:
    for number, column in enumerate(columns):
        pq.write_table(pa.table({"a": column, "n": range(len(column))}), folder / f"{number}.parquet")
    return read(folder)


def words(*values: str | None, kind: pa.DataType | None = None) -> pa.Array:
    return pa.array(values, kind or pa.string())


DAY, NOW = 86_400, 1_700_000_000
WIDER = {
    "gaps": (pa.array([1, 2]), pa.array([3.0, None]), pa.float64(), [1.0, 2.0, 3.0, None]),
    "floats": (pa.array([0.1], pa.float32()), pa.array([0.1]), pa.float64(), [float(np.float32(0.1)), 0.1]),
    "narrow": (pa.array([2**31 - 1], pa.int32()), pa.array([0.5], pa.float32()), pa.float64(), [2.0**31 - 1, 0.5]),
    "signs": (pa.array([-1], pa.int8()), pa.array([2**32 - 1], pa.uint32()), pa.int64(), [-1, 2**32 - 1]),
    "category": (words("x", "y").dictionary_encode(), words("y", None), pa.string(), ["x", "y", "y", None]),
    "categories": (
        words("x").dictionary_encode(),
        words("y").dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())),
        pa.string(),
        ["x", "y"],
    ),
    "text": (words("x"), words("y", kind=pa.large_string()), pa.large_string(), ["x", "y"]),
    "decimals": (
        pa.array([1]).cast(pa.decimal128(19, 0)),
        pa.array([2]).cast(pa.decimal128(21, 2)),
        pa.decimal128(21, 2),
        [1, 2],
    ),
    "units": (
        pa.array([NOW], pa.timestamp("s")),
        pa.array([NOW * 10**6], pa.timestamp("us")),
        pa.timestamp("us"),
        [pd.Timestamp(NOW, unit="s")] * 2,
    ),
    "lists": (pa.array([[1]]), pa.array([[0.5]]), pa.list_(pa.float64()), [[1.0], [0.5]]),
}


@pytest.mark.parametrize("name", WIDER)
def test_types_widen_where_no_value_changes(name, tmp_path):
    one, two, kind, values = WIDER[name]
    source = written_as(tmp_path, one, two)
    assert source.schema.field("a").type == kind and texts(source, "a") == values
    check_source(source)
    (tmp_path / "other").mkdir()
    other = written_as(tmp_path / "other", two, one)
    assert other.schema.equals(source.schema) and texts(other, "a") == [*values[len(one) :], *values[: len(one)]]


@pytest.mark.parametrize(
    ("large", "beside"),
    [
        (pa.array([1, 2**53 + 1]), pa.array([0.5])),
        (pa.array([2**63], pa.uint64()), pa.array([-1])),
        (pa.array([10**11], pa.timestamp("s")), pa.array([5], pa.timestamp("ns"))),
    ],
    ids=["float", "unsigned", "time"],
)
def test_a_value_that_the_wider_type_does_not_hold_is_named(large, beside, tmp_path):
    source = written_as(tmp_path, beside, large)
    assert source.first(1).num_rows == 1
    with pytest.raises(
        DataError, match=r"1\.parquet, part 1 .*: column 'a' is .* here and .* elsewhere.*Write it with"
    ):
        list(source.tables())
    assert texts(source, "n") == [*range(len(beside)), *range(len(large))]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (pa.array([1]), words("1")),
        (pa.array([True]), pa.array([1])),
        (words("x"), pa.array([b"x"])),
        (pa.array([1]).cast(pa.decimal128(19, 0)), pa.array([0.5])),
        (pa.array([1], pa.timestamp("us")), pa.array([1], pa.timestamp("us", "UTC"))),
        (pa.array([1], pa.timestamp("us")), pa.array([1], pa.date32())),
    ],
    ids=lambda column: str(column.type),
)
def test_types_that_no_type_holds_are_named_with_both_files(one, two, tmp_path):
    with pytest.raises(DataError) as caught:
        _ = written_as(tmp_path, one, pa.nulls(1), two).schema
    for told in (f"'a' is {two.type} in {tmp_path}/2.parquet", f"{one.type} in {tmp_path}/0.parquet", "Write one of"):
        assert told in str(caught.value)


@pytest.mark.parametrize("ending", ["parquet", "csv", "feather"])
def test_a_column_of_some_files_matters_where_it_is_needed(ending, tmp_path):
    write = ALL_WRITERS[f"a.{ending}"]
    write(frame(5), str(tmp_path / f"a.{ending}"))
    write(frame(5, 5).drop(columns="price").assign(more=1), str(tmp_path / f"b.{ending}"))
    source = read(tmp_path)
    check_source(source)
    assert texts(source, "id") == list(range(10)) and source.columns == ["id", "text", "good", "class"]
    assert "without 'price', 'more', which not all files have" in repr(source)
    for wrapped in (source, read(source, key="id"), source.split(0.5)[0]):
        with pytest.raises(DataError, match=rf"column 'price' is in .*a\.{ending} and not in .*b\.{ending}\. Read the"):
            wrapped.read(wrapped.parts()[0], ["price"])
    needs = Pipeline(Preprocessor("cost", ["more"]), label="class")
    with pytest.raises(DataError, match=rf"block 'cost'.*column 'more' is in .*b\.{ending} and not in .*a\.{ending}"):
        prepare(needs, source)
    assert len(prepare(Pipeline(Preprocessor("cost", ["id"]), label="class"), source)) == 10
    with pytest.raises(DataError, match=rf"column 'price' is in .*a\.{ending} and not"):
        prepare(Pipeline(Preprocessor("cost", ["price"], source="b")), {"a": frame(5), "b": source}, keys={"b": "id"})
    write(pd.DataFrame({"other": [1]}), str(tmp_path / f"c.{ending}"))
    with pytest.raises(DataError, match="no column in common"):
        _ = read(tmp_path).schema


def test_fields_that_a_file_of_json_lines_never_has_are_nulls(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n' * 5)
    (tmp_path / "b.jsonl").write_text('{"b": "x", "a": 2.5}\n' * 5)
    source = read(tmp_path)
    check_source(source)
    assert (
        texts(source, "a")[4:6] == [1.0, 2.5]
        and texts(source, "b")[4:6] == [None, "x"]
        and "without" not in repr(source)
    )


def test_a_column_that_stands_twice_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,a\n1,2,3\n")
    with pytest.raises(DataError, match=r"a\.csv: two columns are named 'a'"):
        _ = read(tmp_path / "a.csv").schema


def test_a_misspelt_column_is_named(written):
    source = read(written)
    with pytest.raises(UnknownName, match=r"no column 'prise'.*Did you mean 'price'\?.*Known: "):
        source.read(source.parts()[0], ["id", "prise"])


@pytest.mark.parametrize("name", ALL_WRITERS)
def test_truncated_files_are_damaged(name, tmp_path):
    ALL_WRITERS[name](frame(), str(tmp_path / name))
    source = read(tmp_path / name)
    parts = source.parts()
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: whole.rfind(b'"', 0, len(whole) * 2 // 3)])  # text ends in a cell
    with pytest.raises(DamagedData, match=name):
        source.read(parts[-1])
    with pytest.raises(DamagedData, match=name):
        list(read(tmp_path / name).tables())
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=name):
        list(read(tmp_path / name).tables())


@pytest.mark.parametrize("name", ["a.npz", "squeezed.npz", "a.npy"])
def test_damaged_arrays_are_damaged_data_or_what_they_were(name, tmp_path):
    ALL_WRITERS[name](frame(), str(tmp_path / name))
    whole = (tmp_path / name).read_bytes()
    for seed in range(150):
        chance, data = random.Random(seed), bytearray(whole)
        # A third anywhere, a third in the first head, a third among the entries of the archive.
        at = chance.choice([chance.randrange(len(data)), chance.randrange(200), len(data) - chance.randrange(1, 300)])
        data[at : at + chance.choice([1, 2, 8, 40])] = chance.randbytes(8)
        (tmp_path / name).write_bytes(data)
        try:
            list(read(tmp_path / name).tables())
        except DataError as error:
            assert name in str(error)
    (tmp_path / name).write_bytes(whole.replace(ARRAYS["x"][1:2].tobytes(), b"12345678"))
    if name == "a.npz":
        with pytest.raises(DamagedData, match=r"a\.npz, .* cannot be read: Bad CRC-32 for file 'x\.npy'"):
            list(read(tmp_path / name).tables())
    with zipfile.ZipFile(tmp_path / "none.npz", "w") as archive:
        archive.writestr("notes.txt", "nothing here")
    with pytest.raises(DamagedData, match=r"none\.npz, its beginning: it holds no arrays"):
        _ = read(tmp_path / "none.npz").schema


def test_small_row_groups_are_joined_and_large_ones_cut(tmp_path):
    frame().to_parquet(tmp_path / "a.parquet", row_group_size=20)
    assert [part.rows for part in read(tmp_path / "a.parquet").parts()] == [60] * 5
    frame().to_parquet(tmp_path / "b.parquet")
    parts = read(tmp_path / "b.parquet").parts()
    assert [part.position for part in parts][:2] == [{"group": 0, "rows": [0, 64]}, {"group": 0, "rows": [64, 128]}]


def test_names_with_dots_are_names(tmp_path):
    table = pa.table({"a": range(100), "a.b": range(100), "c": [{"d": 1}] * 100})
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=10)
    for name in ("a", "b"):
        check_source(read(tmp_path / f"{name}.parquet"))
        assert texts(read(tmp_path / f"{name}.parquet"), "a") == list(range(100))


def test_large_rows_make_small_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "PART_ROWS", 65_536)
    monkeypatch.setattr(formats, "PART_BYTES", 1 << 20)
    images = pa.table({"x": pa.FixedSizeListArray.from_arrays(np.random.default_rng(0).random(2000 * 200), 200)})
    pq.write_table(images, tmp_path / "a.parquet")
    assert max(part.rows for part in read(tmp_path / "a.parquet").parts()) == 512
    np.save(tmp_path / "a.npy", np.zeros((2000, 200)))
    assert max(part.rows for part in read(tmp_path / "a.npy").parts()) == 512


# ---- Arrays -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_files(order, tmp_path):
    x = np.asarray(np.arange(600.0).reshape(200, 3), order=order)
    np.save(tmp_path / "a.npy", x)
    source = read(tmp_path / "a.npy")
    check_source(source)
    assert source.columns == ["x0", "x1", "x2"] and len(source.parts()) == 4 and texts(source, "x1") == x[:, 1].tolist()
    os.truncate(tmp_path / "a.npy", 1000)
    with pytest.raises(DamagedData, match=r"a\.npy, part 3"):
        read(tmp_path / "a.npy").read(source.parts()[3])


def test_npz_files(tmp_path):
    arrays = {"x": np.arange(1200).reshape(200, 3, 2), "y": np.array(["a", "b"] * 100), "w": np.ones((200, 2), ">f4")}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        source = read(tmp_path / "a.npz")
        check_source(source)
        assert source.columns == ["x", "y", "w0", "w1"]
        assert texts(source, "x")[1] == [6, 7, 8, 9, 10, 11] and texts(source, "y") == arrays["y"].tolist()
    np.savez(tmp_path / "b.npz", x_train=np.zeros((5, 2)), x_test=np.zeros((3, 2)))
    with pytest.raises(DataError, match=r"different numbers of rows: .*'x_train': 5.*h3\.read\(\("):
        _ = read(tmp_path / "b.npz").schema
    np.save(tmp_path / "c.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="never unpickled"):
        _ = read(tmp_path / "c.npy").schema
    np.save(tmp_path / "d.npy", np.array(3.0))
    with pytest.raises(DataError, match="single value"):
        _ = read(tmp_path / "d.npy").schema


def test_frames_of_every_form_keep_the_promises():
    df = frame(200)
    records = df.to_dict("records")
    x, y = np.arange(600.0).reshape(200, 3), np.array(["a", "b"] * 100)
    for what in (
        df,
        pa.Table.from_pandas(df),
        records,
        df.to_dict("list"),
        (x, y),
        (df, y),
        (y, y),
        x,
        (x > 3, x[:, 0]),
    ):
        check_source(read(what))
    check_source(read((np.zeros((9, 2, 2)), np.arange(9))))


def test_arrays_become_columns():
    source = read((np.arange(6).reshape(3, 2), ["a", "b", "c"]))
    assert source.head().to_dict("list") == {"x0": [0, 2, 4], "x1": [1, 3, 5], "y": ["a", "b", "c"]}
    assert read((["good", "bad"], [1, 0])).head().to_dict("list") == {"x0": ["good", "bad"], "y": [1, 0]}
    images = read((np.arange(8).reshape(2, 2, 2), [[1], [0]]))
    assert images.first(1).to_pylist() == [{"x": [0, 1, 2, 3], "y": 1}]
    named = read((pd.DataFrame({"a": [1], 2: [3]}), pd.Series(["x"], name="label")))
    assert named.head().to_dict("list") == {"a": [1], "2": [3], "label": ["x"]}
    assert read([{"a": 1}, {"b": "x"}]).first(2).to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


def test_parts_of_a_frame_have_the_version_of_their_content():
    df = frame(200)
    before = [part.version for part in read(df).parts()]
    assert [part.version for part in read(df.copy()).parts()] == before and len(set(before)) == 4
    df.loc[70, "price"] = 99.0
    after = [part.version for part in read(df).parts()]
    assert [a == b for a, b in zip(after, before)] == [True, False, True, True]


PLUG = """
from h3lab.sources.frames import Frame
import pyarrow as pa

class Counting(Frame):
    def describe(self):
        return {"kind": "counting", "to": self.table.num_rows}

class Plug:
    kind = "counting"
    def reads(self, what): return isinstance(what, range) or str(what).startswith("count://")
    def read(self, what): return self.reopen({"to": what.stop if isinstance(what, range) else int(what[8:])})
    def reopen(self, description): return Counting(pa.table({"n": range(description["to"])}), "a count")

plug = Plug()
"""


def test_third_parties_bring_their_own(tmp_path, monkeypatch):
    (tmp_path / "counting.py").write_text(PLUG)
    (tmp_path / "counting-1.dist-info").mkdir()
    (tmp_path / "counting-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1\n")
    (tmp_path / "counting-1.dist-info" / "entry_points.txt").write_text("[h3lab.sources]\ncounting = counting:plug\n")
    monkeypatch.syspath_prepend(tmp_path)
    check_source(read("count://100"))
    assert len(read(range(7))) == len(worlds.reopen(read(range(7)).describe())) == 7
    assert len(worlds.reopen(read(range(99)).split(0.5)[0].describe())) == len(read("count://99").split(0.5)[0])


def test_a_source_is_returned_as_it_is():
    source = read(frame(5))
    assert read(source) is source and read(source, key="id").base is source


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        (3, UsageError, "a int came; expected a path"),
        ([], DataError, "an empty list"),
        ({}, DataError, "an empty dict"),
        (pd.Series([1]), UsageError, "a Series came"),
        (pd.DataFrame({"a": [1, "x"]}), DataError, "mixes types"),
        ({"a": [1], "b": [1, 2]}, DataError, "lengths differ"),
        ((np.zeros((3, 2)), [1, 2]), DataError, "X has 3 rows, y has 2"),
        ((sparse.eye(3).tocsr(), [1, 2, 3]), UsageError, "Feed.of"),
        ((pd.DataFrame({"y": [1]}), [1]), DataError, "already has a column 'y'"),
        (np.array(3), DataError, "single value"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), DataError, "'a'"),
        ([{"a": 1}, 3], UsageError, "a list came"),
    ],
)
def test_what_is_no_source_is_explained(what, kind, words):
    with pytest.raises(kind, match=words):
        read(what)


def test_format_is_for_files():
    with pytest.raises(UsageError, match="for files alone"):
        read(frame(3), format="csv")


# ---- URLs -------------------------------------------------------------------------------------------------


class Vault(MemoryFileSystem):
    """A file system behind a password, as SFTP or WebHDFS have it."""

    protocol = "vault"
    cachable = False
    store, pseudo_dirs = {}, [""]

    def __init__(self, password: str = "", **options):
        super().__init__(**options)
        if password != "secret":
            raise PermissionError("wrong password")

    @classmethod
    def _strip_protocol(cls, path):
        path = path.partition("://")[2] or path
        path = path.rpartition("@")[2].partition("/")[2] if "@" in path else path
        return "/" + path.strip("/") if path.strip("/") else ""

    @staticmethod
    def _get_kwargs_from_urls(path):
        return {"password": path.partition("@")[0].rpartition(":")[2]} if "@" in path else {}


@pytest.fixture
def vault():
    fsspec.register_implementation("vault", Vault, clobber=True)
    yield Vault(password="secret")
    Vault.store.clear()


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_read_by_url(name, tmp_path, vault):
    WRITERS[name](frame(), str(tmp_path / name))
    with vault.open(f"/data/{name}", "wb") as file:
        file.write((tmp_path / name).read_bytes())
    check_source(read(f"vault://me:secret@host/data/{name}"), secret="secret")
    local, remote = read(tmp_path / name), read(f"vault://me:secret@host/data/*{name}")
    assert texts(local) == texts(remote)
    assert [part.rows for part in remote.parts()] == [part.rows for part in local.parts()]
    part = local.parts()[1]
    assert remote.keys(part, remote.read(remote.parts()[1])).tolist() == local.keys(part, local.read(part)).tolist()


def test_a_password_is_never_told(vault):
    with vault.open("/data/a.csv", "wb") as file:
        file.write(b"a,b\n1,2\n1,2,3\n")
    source = read("vault://me:secret@host/data/a.csv")
    assert "secret" not in source.title and "***" in source.title
    for fail in (
        source.parts,
        lambda: read("vault://me:secret@host/data/b.csv"),
        lambda: worlds.reopen(source.describe()),
    ):
        with pytest.raises(DataError) as caught:
            fail()
        assert "secret" not in str(caught.value)
    assert "secret" not in repr(source)


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(DataError, match=r"ftp://me:\*\*\*@127\.0\.0\.1:1/a\.csv cannot be reached"):
        read("ftp://me:secret@127.0.0.1:1/a.csv")


@pytest.mark.parametrize("host", ["127.0.0.1:9", "nohost.invalid"])
def test_a_web_server_that_is_not_there_is_no_missing_file(host):
    with pytest.raises(DataError) as caught:
        read(f"http://me:secret@{host}/folder/a.csv")
    assert "cannot be reached" in str(caught.value) and "is the server running?" in str(caught.value)
    assert "no file" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_web_server_without_the_file_says_so(tmp_path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *given):
            pass

    (tmp_path / "a.csv").write_text("\n".join(["a", *map(str, range(200))]))
    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert texts(read(f"{url}/a.csv"), "a") == list(range(200))  # in parts, of a server that knows no ranges
        with pytest.raises(DataError, match=r"there is no file .*/b/a\.csv\. Its server answers, .*\(404\)\.$"):
            read(f"{url}/b/a.csv")
        server.shutdown()


def test_a_bucket_that_is_not_there_is_named_and_never_made(s3, tmp_path):
    import s3fs

    for what in ("a.csv", "*.csv", "folder"):
        with pytest.raises(DataError, match=r"there is no bucket 'typo'\. Is its name right"):
            read(f"s3://typo/{what}")
    with pytest.raises(DataError, match=r"no file s3://h3lab/none/a\.csv\. "):
        read(f"{s3}/none/a.csv")
    frame(20).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(StorageError, match=r"no bucket 'typo' for s3://typo/feed\. Create it first"):
        prepare(Pipeline(Preprocessor("n", ["id"]), label="class"), tmp_path / "a.parquet", to="s3://typo/feed")
    with pytest.raises(StorageError, match="no bucket 'typo'"):
        open_feed("s3://typo/feed")
    s3fs.S3FileSystem.clear_instance_cache()
    assert not s3fs.S3FileSystem().exists("typo")


def test_files_in_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"in/part-{number}.csv", f"a\n{number}\n")
    source = read(f"zip://in/*.csv::file://{tmp_path}/a.zip")
    assert texts(source, "a") == [0, 1, 2]


def test_unknown_schemes_and_missing_packages_are_explained(monkeypatch):
    with pytest.raises(UsageError, match="nonsense"):
        read("nonsense://a.csv")
    monkeypatch.delitem(LOADED, "s3", raising=False)  # another test may have loaded it
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    # Where another test has loaded it.
    monkeypatch.delitem(__import__("sys").modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(MissingExtra, match="pip install s3fs"):
        read("s3://bucket/a.csv")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sftp://me:p@ss:w/rd@host/a.csv", None),
        ("sftp://me:secret@host/a.csv", "sftp://me:***@host/a.csv"),
        ("https://host/a.csv?token=secret&x=1", "https://host/a.csv?token=***"),
        ("cannot reach ftp://a:secret@b/c, sorry", "cannot reach ftp://a:***@b/c, sorry"),
        ("a@b.csv", "a@b.csv"),
        ("s3://bucket/a=1/b.csv", "s3://bucket/a=1/b.csv"),
    ],
)
def test_redacted(text, shown):
    assert "secret" not in redacted(text)
    if shown is not None:
        assert redacted(text) == shown


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:{}@bucket/a.csv",
        "s3://key:{}/x@bucket/a.csv",
        "ftp://me:{}/x@127.0.0.1:9/a.csv",
        "http://me:{}?x@127.0.0.1:9/a.csv",
        "webhdfs://me:{}#x@127.0.0.1:9/a.csv",
        "zip://a.csv::ftp://me:{}/x@127.0.0.1:9/a.zip",
    ],
)
def test_a_password_that_a_library_takes_for_something_else_is_not_shown(url):
    with pytest.raises(UsageError, match="cannot be told|takes no key and secret") as caught:
        read(url.format("geheim"))
    assert "geheim" not in str(caught.value)


def test_compressed_text(tmp_path):
    data = write_csv([(str(n), "x") for n in range(200)], "\n", csv.QUOTE_MINIMAL, True)
    squeezed = {"a.csv.bz2": bz2.compress(data), "a.csv.gz": gzip.compress(data)}
    for codec in ("zstd", "lz4"):
        out = pa.BufferOutputStream()
        with pa.CompressedOutputStream(out, codec) as stream:
            stream.write(data)
        squeezed[f"a.csv.{'zst' if codec == 'zstd' else codec}"] = out.getvalue().to_pybytes()
    for name, content in squeezed.items():
        (tmp_path / name).write_bytes(content)
        assert texts(read(tmp_path / name), "text") == list(range(200))


@pytest.mark.parametrize("name", ["latin.csv", "bare.jsonl", "none.parquet"])
def test_files_whose_columns_have_no_names_are_named(name, tmp_path):
    path = tmp_path / name
    if name == "none.parquet":
        pq.write_table(pa.table({}), path)
    else:
        path.write_bytes({"latin.csv": "größe,b\n1,2\n".encode("latin-1"), "bare.jsonl": b"{}\n{}\n"}[name])
    with pytest.raises(DataError, match=rf"{name}.*(no UTF-8 text|no columns)"):
        read(str(path)).schema  # noqa: B018


def test_a_column_that_is_no_column_for_a_reason_says_the_reason(tmp_path):
    (tmp_path / "semi.csv").write_text("a;b\n1;2\n")
    (tmp_path / "tabs.csv").write_text("a\tb\n1\t2\n")
    for year in ("y=1", "y=2"):
        (tmp_path / "parts" / year).mkdir(parents=True)
        pq.write_table(pa.table({"a": [1]}), tmp_path / "parts" / year / "rows.parquet")
    for name, words in (("semi.csv", r"'a;b'.*sep=';'"), ("tabs.csv", r"sep='\\t'"), ("parts", r"'b'|Known: a")):
        with pytest.raises((DataError, UnknownName), match=words):
            read(str(tmp_path / name)).check(["b"])
    with pytest.raises(DataError, match=r"'y' stands in names of folders alone \(y=1/\)"):
        read(str(tmp_path / "parts")).check(["y"])


def test_views_of_text_are_text_like_any(tmp_path):
    words = pa.array(["x", None, "y", "x"], pa.string_view())
    table = pa.table({"word": words, "raw": words.cast(pa.binary_view()), "n": [1.0, 2.0, 3.0, 4.0]})
    pq.write_table(table, tmp_path / "views.parquet")
    for source in (read(table), read(str(tmp_path / "views.parquet"))):
        check_source(source)
        assert source.first(4).column("word").to_pylist() == words.to_pylist()
        feed = prepare(Pipeline(Preprocessor("n", ["n"]), label="word"), source, on_null_label="drop")
        assert feed.arrays()[1].tolist() == ["x", "y", "x"]
        assert "word" in repr(Pipeline.guess(source, label="n"))


@pytest.mark.parametrize(
    "what",
    [
        np.ma.masked_array([[1.0, 2.0]], mask=[[True, False]]),
        (np.ma.masked_array([[1.0], [2.0]], mask=[[True], [False]]), [0, 1]),
        (np.zeros((2, 1)), np.ma.masked_array([0, 1], mask=[True, False])),
    ],
    ids=["array", "X", "y"],
)
def test_masked_values_are_not_taken_for_values(what):
    with pytest.raises(DataError, match=r"masked array with 1 masked values.*filled\(numpy\.nan\)"):
        read(what)


def test_names_that_are_no_text_become_text():
    assert read([{1: 1.5, "b": 2}, {1: 2.5}]).first(2).to_pylist() == [{"1": 1.5, "b": 2}, {"1": 2.5, "b": None}]
    for what in ([{1: 1, "1": 2}], {1: [1], "1": [2]}):
        with pytest.raises(DataError, match="two columns are named '1'"):
            read(what)


@pytest.mark.parametrize("what", [pd.DataFrame({"a": [2**70, 1]}), [{"a": 2**70}], {"a": [2**70]}], ids=str)
def test_numbers_that_no_column_holds_are_an_error_of_ours(what):
    with pytest.raises(DataError, match="these rows cannot be a table"):
        read(what)
