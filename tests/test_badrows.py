"""Rows that are none are left out, each of them and nothing else, however a file is cut; the report says how many."""

import bz2
import csv
import gzip
import io
import itertools
import json
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

import h3lab as h3
from h3lab import worlds
from h3lab.cluster.executors import Processes
from h3lab.errors import DamagedData, DataError, StorageError, UnknownName, UsageError
from h3lab.feeds.manifest import identity
from h3lab.preparing.executor import Here
from h3lab.preparing.prepare import prepare
from h3lab.preparing.streaming import stream
from h3lab.serial import signed
from h3lab.source import row_keys
from h3lab.sources import lines, read, records, sifted
from h3lab.sources import text as plain
from h3lab.testing import check_source

GOOD = '{"n": 1, "t": "x"}'
BAD = [
    b"nope",
    b"null",
    b"[1]",
    b"3",
    b'{"n": "x"}',
    b'{"t": 3}',
    b'{"n": true}',
    b'{"n":',
    b"}",
    b'1}, {"n": 1}',
    b'{"n": 1}{"n": 2}',
    b'{"n": 1, "n": 2}',
    b'{"n": 1},',
    b'{"t": "\xff"}',
    b'{"t": "a\tb"}',
    b'{"n": 01}',
    b'{"n": 1.}',
    b'{"n": 1,}',
    b'{"t": "\\x"}',
    b"\x00",
    b"\xff",
]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(records, "PART_ROWS", 64)
    monkeypatch.setattr(lines, "PIECE_BYTES", 2000)


def rows_of(source) -> list[dict]:
    return [row for table in source.tables() for row in table.to_pylist()]


def keys_of(source) -> list[int]:
    return [int(key) for part in source.parts() for key in source.keys(part, source.read(part))]


def bad_of(source) -> int:
    return sum(part.bad for part in source.parts())


def aside_of(folder: Path) -> list[dict]:
    return [json.loads(line) for path in sorted(folder.rglob("*.jsonl")) for line in path.read_text().splitlines()]


# ---- Against a reading line by line -----------------------------------------------------------------------


def json_by_line(data: bytes) -> tuple[list[tuple[int, dict]], list[tuple[int, bytes]]]:
    """Good rows by their number, bad lines by theirs."""
    good, bad, number = [], [], 0
    for line, text in enumerate(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"), 1):
        if not text.strip():
            continue
        try:
            pairs = json.loads(text.decode(), object_pairs_hook=list)
            row = dict(pairs)
            fits = isinstance(row.get("n"), int | float | None) and isinstance(row.get("t"), str | None)
            whole = text.strip()[:1] == b"{" and len(row) == len(pairs)
            ok = fits and whole and not isinstance(row.get("n"), bool)
        except (ValueError, TypeError):
            ok = False
        if ok:
            good.append((number, {"n": row.get("n"), "t": row.get("t") or None}))
        else:
            bad.append((line, text))
        number += 1
    return good, bad


FIELDS = {"n": st.one_of(st.integers(-9, 9), st.none(), st.just(1.5)), "t": st.text("aü")}
ROWS = st.one_of(
    st.fixed_dictionaries({}, optional=FIELDS).map(lambda row: json.dumps(row, ensure_ascii=False).encode()),
    st.sampled_from(BAD),
    st.sampled_from([b"", b" ", b"\t"]),
)


@settings(deadline=None, max_examples=200)
@given(
    body=st.lists(st.tuples(ROWS, st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"])), max_size=40),
    final=st.booleans(),
    part=st.integers(1, 9),
    piece=st.sampled_from([1, 7, 40, 100, 10_000]),
    squeezed=st.booleans(),
)
def test_json_lines_are_those_of_a_reading_line_by_line(body, final, part, piece, squeezed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("json")
    data = b"".join(line + end for line, end in [(GOOD.encode(), b"\n"), *body])
    data = data if final else data.rstrip(b"\r\n")
    path = folder / ("a.jsonl.gz" if squeezed else "a.jsonl")
    path.write_bytes(gzip.compress(data) if squeezed else data)
    good, bad = json_by_line(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "PART_ROWS", part)
        patch.setattr(lines, "PIECE_BYTES", piece)
        source = read(path, on_bad_rows=folder / "bad")
        assert rows_of(source) == [row for _, row in good]
        assert keys_of(source) == [int(row_keys(path.name, number, 1)[0]) for number, _ in good]
        assert bad_of(source) == len(bad) and len(source) == len(good)
        if bad:
            with pytest.raises(DataError, match=rf"{path.name}, line {bad[0][0]} "):
                rows_of(read(path))
        elif not any(line.isspace() for line, _ in body):
            assert rows_of(read(path)) == rows_of(source)
    told = [(one["line"], one["text"].encode() if "text" in one else bytes.fromhex(one["bytes"]))
            for one in aside_of(folder / "bad")]  # fmt: skip
    assert told == bad
    assert {one["file"] for one in aside_of(folder / "bad")} <= {str(path)}


def csv_by_line(text: str, width: int) -> tuple[list[tuple[int, list[str]]], list[tuple[int, str]]]:
    """The same of CSV without its header, one character after another."""
    good, bad, number, at, line = [], [], 0, 0, 2
    while at < len(text):
        if text[at] in "\r\n":
            line, at = line + 1, at + (2 if text[at : at + 2] == "\r\n" else 1)
            continue
        cells, cell, state, stop = [], "", "start", at
        while stop < len(text):
            char = text[stop]
            if state == "quoted":
                if text[stop : stop + 2] == '""':
                    cell, stop = cell + '"', stop + 1
                elif char == '"':
                    state = "in"
                else:
                    cell += char
            elif char in "\r\n":
                break
            elif char == ",":
                cells, cell, state = [*cells, cell], "", "start"
            elif char == '"' and state == "start":
                state = "quoted"
            else:
                cell, state = cell + char, "in"
            stop += 1
        cells = [*cells, cell]
        several = len(text[at:stop].splitlines()) > 1
        if state == "quoted" or (several and len(cells) != width):
            stop = at + len(text[at:].replace("\r", "\n").partition("\n")[0])
            bad.append((line, text[at:stop]))
        elif len(cells) != width or not (cells[0] == "" or cells[0].strip(" ").isdigit()):
            bad.append((line, text[at:stop]))
        else:
            good.append((number, cells))
        piece = text[at:stop]
        line, at, number = line + piece.count("\n") + piece.count("\r") - piece.count("\r\n"), stop, number + 1
    return good, bad


@settings(deadline=None, max_examples=300)
@given(
    body=st.lists(
        st.one_of(
            st.tuples(st.integers(0, 9), st.text(st.sampled_from(list('a",\nü ')), max_size=6)).map(list),
            st.text(st.sampled_from(list('12aü",, ')), max_size=8),
        ),
        max_size=30,
    ),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    final=st.booleans(),
    part=st.integers(1, 9),
    piece=st.sampled_from([1, 7, 40, 100, 10_000]),
    squeezed=st.booleans(),
)
def test_csv_is_that_of_a_reading_character_by_character(body, end, final, part, piece, squeezed, tmp_path_factory):
    folder, out = tmp_path_factory.mktemp("csv"), io.StringIO()
    for row in [[7, 'first, "one"'], *body]:
        if isinstance(row, list):
            csv.writer(out, lineterminator=end).writerow(row)
        else:
            out.write(row + end)
    text = out.getvalue() if final else out.getvalue().rstrip("\r\n")
    data = f"n,t{end}{text}".encode()
    path = folder / ("a.csv.gz" if squeezed else "a.csv")
    path.write_bytes(gzip.compress(data) if squeezed else data)
    good, bad = csv_by_line(text, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "PART_ROWS", part)
        patch.setattr(lines, "PIECE_BYTES", piece)
        head = f"n,t{end}7,x{end}".encode()
        patch.setattr(sifted, "samples", lambda file, kind: iter([head]))  # else a value in it may make n text
        source = read(path, on_bad_rows=folder / "bad")
        assert rows_of(source) == [{"n": int(n) if n else None, "t": t or None} for (_, (n, t)) in good]
        assert keys_of(source) == [int(row_keys(path.name, number, 1)[0]) for number, _ in good]
        assert bad_of(source) == len(bad) and len(source) == len(good)
    assert [(one["line"], one["text"]) for one in aside_of(folder / "bad")] == bad


# ---- A source without its bad rows ------------------------------------------------------------------------


def frame(rows: int = 300) -> pd.DataFrame:
    numbers = np.arange(rows)
    text = [f'said "{n}"' if n % 3 else f"line\nbreak {n} ü" for n in numbers]
    return pd.DataFrame({"n": numbers, "price": np.sin(numbers).round(6), "text": text, "good": numbers % 2 == 0})


@pytest.fixture(params=["a.jsonl", "a.jsonl.gz", "a.csv", "quotes.csv", "a.tsv.bz2"])
def spoilt_file(request, tmp_path) -> Path:
    """300 rows and seven that are none."""
    df, path = frame(), tmp_path / request.param
    if ".jsonl" in path.name:
        good = df.to_json(orient="records", lines=True, force_ascii=False).splitlines()
        bad = ['{"n": 1,', "null", "[1]", "nope", '{"n": "x"}', '{"n": 1}{"n": 2}', "}"]
    else:
        separator = "\t" if ".tsv" in path.name else ","
        df = df if path.name == "quotes.csv" else df.assign(text="x")
        out = io.StringIO()
        good = []
        for row in [df.columns, *df.astype(object).to_numpy().tolist()]:
            csv.writer(out, delimiter=separator, lineterminator="\n").writerow(row)
            good.append(out.getvalue().removesuffix("\n"))
            out.seek(out.truncate(0))
        bad = ["1", separator.join("123456"), " ", separator.join(["many", "2", "x", "True"]), "x", "y", "z"]
    for number, line in enumerate(bad):
        good.insert([2, 3, 100, 101, 102, 200, len(good)][number], line)
    data = ("\n".join(good) + "\n").encode()
    squeeze = {".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, bytes)
    path.write_bytes(squeeze(data))
    return path


@pytest.fixture
def head_alone(monkeypatch):
    """Types of a file's first lines, as of a large one: else a bad value of CSV makes text of its column."""
    monkeypatch.setattr("h3lab.sources.text._SAMPLE", 60)
    monkeypatch.setattr(plain, "samples", lambda file, kind, seen=plain.samples: itertools.islice(seen(file, kind), 1))
    monkeypatch.setattr(sifted, "samples", plain.samples)


def test_it_keeps_the_promises_of_a_source(spoilt_file, head_alone):
    for policy in ("skip", spoilt_file.parent / "bad"):
        source = read(spoilt_file, on_bad_rows=policy)
        check_source(source)
        assert [row["n"] for row in rows_of(source)] == list(range(300)) and len(source.parts()) > 4
        assert bad_of(source) == 7 == sum(bad_of(signed.loads(signed.dumps(one))) for one in [source])
        assert source.size() == "300 rows, 7 bad ones left out"
        assert {"skip": "without bad rows"}.get(policy, "set aside in") in source.title
    assert len(aside_of(spoilt_file.parent / "bad")) == 7


def test_other_rows_keep_their_keys_and_parts_when_a_bad_one_is_mended(tmp_path):
    path = tmp_path / "a.jsonl"
    body = [json.dumps({"n": n}) for n in range(300)]
    path.write_text("\n".join([*body[:50], "oops", *body[51:]]))
    before = read(path, on_bad_rows="skip")
    keys, parts = keys_of(before), before.parts()
    train, test = (rows_of(side) for side in before.split(0.5, seed=1))
    path.write_text("\n".join([*body[:50], body[50], *body[51:]]))
    for policy in ("skip", "error"):
        after = read(path, on_bad_rows=policy)
        assert [key for number, key in enumerate(keys_of(after)) if number != 50] == keys
    mended = read(path, on_bad_rows="skip")
    same = [identity(a) == identity(b) for a, b in zip(mended.parts(), parts, strict=True)]
    assert same == [False, True, True, True, True]
    assert [row for row in rows_of(mended.split(0.5, seed=1)[0]) if row["n"] != 50] == train
    assert len(train) + len(test) == 299


def test_a_part_with_bad_rows_has_the_version_of_the_policy(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*(json.dumps({"n": n}) for n in range(200)), "oops"]))
    skip, aside = (read(path, on_bad_rows=policy).parts() for policy in ("skip", tmp_path / "bad"))
    assert [a.version == b.version for a, b in zip(skip, aside, strict=True)] == [True, True, True, False]


def test_a_bad_row_is_bad_for_whichever_columns_are_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "1,2\n" * 200 + "1,x\n")
    source = read(path, on_bad_rows="skip")
    source._schema = pa.schema([("a", pa.int64()), ("b", pa.int64())])
    assert sum(source.read(part, ["a"]).num_rows for part in source.parts()) == 200


def test_values_that_come_first_decide_the_type_of_json(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": "x"}\n{"a": 2.5, "b": null}\n{"a": [1]}\n{"b": "t"}\n')
    source = read(tmp_path / "a.jsonl", on_bad_rows="skip")
    assert source.first(9).to_pylist() == [{"a": 1, "b": None}, {"a": 2.5, "b": None}, {"a": None, "b": "t"}]


def test_numbers_without_a_value_and_marks_of_a_byte_order_are_no_harm(tmp_path):
    good = [
        '{"n": 1.5}',
        '{"n": NaN}',
        '{"n": Inf}',
        '{"n": -Infinity}',
        '\ufeff{"n": 2}',
        '{"n": 3, "u": [[' + "[" * 600,
    ]
    good[-1] += "]" * 602 + "}"
    (tmp_path / "a.jsonl").write_text("\n".join([*good, "nope", '{"n": Inf'] * 2))
    source = read(tmp_path / "a.jsonl", on_bad_rows="skip")
    assert len(source) == 2 * len(good) and bad_of(source) == 4
    assert np.isinf([row["n"] for row in rows_of(source)]).sum() == 4


def test_a_long_run_behind_a_stray_quote_is_read_line_by_line(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORD_BYTES", 5000)
    path = tmp_path / "a.csv"
    path.write_text("n,t\n" + "1,x\n" * 50 + '2,"open\n' + "3,y\n" * 3000)
    source = read(path, on_bad_rows=tmp_path / "bad")
    assert [row["n"] for row in rows_of(source)] == [1] * 50 + [3] * 3000
    (bad,) = aside_of(tmp_path / "bad")
    assert (bad["line"], bad["text"], bad["reason"]) == (52, '2,"open', records.OPEN)


# ---- Set aside --------------------------------------------------------------------------------------------


def test_set_aside_is_what_is_bad_now_and_where_it_stood(tmp_path):
    for folder, line in (("one", "nope"), ("two", '{"n": "ü"}')):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_text(f"{GOOD}\n\n{line}\n{GOOD}\n")
        for _ in range(2):
            assert len(read(tmp_path / folder / "a.jsonl", on_bad_rows=tmp_path / "bad")) == 2
    found = {Path(one["file"]).parent.name: one for one in aside_of(tmp_path / "bad")}
    assert len(aside_of(tmp_path / "bad")) == 2 and {one["line"] for one in found.values()} == {3}
    assert found["one"]["text"] == "nope" and found["one"]["reason"] == "is no JSON (Expecting value, at character 1)"
    assert found["two"]["reason"] == "does not fit column 'n', int64; here it is \"\\u00fc\""
    (tmp_path / "one" / "a.jsonl").write_text(f"{GOOD}\n")
    assert len(read(tmp_path / "one" / "a.jsonl", on_bad_rows=tmp_path / "bad")) == 1
    assert [Path(one["file"]).parent.name for one in aside_of(tmp_path / "bad")] == ["two"]


def test_a_folder_by_url(tmp_path):
    (tmp_path / "a.jsonl").write_text(f"{GOOD}\nnope\n")
    source = read(tmp_path / "a.jsonl", on_bad_rows="memory://aside/bad")
    assert len(source) == 1 and source.describe()["on_bad_rows"] == "memory://aside/bad"
    system = fsspec.filesystem("memory")
    (path,) = system.find("aside/bad")
    assert json.loads(system.cat_file(path))["text"] == "nope"
    secret = read(tmp_path / "a.jsonl", on_bad_rows="webhdfs://me:secret@127.0.0.1:1/bad")
    assert "secret" not in repr(secret) + json.dumps(secret.describe())
    with pytest.raises(DataError, match=r"webhdfs://me:\*\*\*@127\.0\.0\.1:1/bad was read with a password"):
        worlds.reopen(secret.describe())


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "a.jsonl").write_text(f"{GOOD}\nnope\n")
    (tmp_path / "bad").write_text("a file")
    with pytest.raises(StorageError, match=r"a\.jsonl cannot be set aside in .*bad: .*on_bad_rows='skip'"):
        read(tmp_path / "a.jsonl", on_bad_rows=tmp_path / "bad").parts()


# ---- Errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("a.jsonl", b'{"n": 1}\n\nnope\n', r"line 3 is no JSON \(Expecting value, at character 1\): nope\. Mend it"),
        ("a.jsonl", b'{"n": 1}\nnull\n', "line 2 is no JSON object, whose names would be columns: null"),
        ("a.jsonl", b'null\n{"n": 1}\n', "line 1 is no JSON object.*For another format pass format="),
        ("a.jsonl", b'{"n": 1}\r\n{"n": "x"}', "line 2 does not fit column 'n', int64; here it is \"x\""),
        ("a.jsonl", b'{"n": 1}{"n": 2}\n{"n":\n3}', r"line 1 is no JSON \(Extra data, at character 9\)"),
        ("a.jsonl", b'{"n": 1}\n{"n":\n3}', "line 2 is no JSON"),
        ("a.jsonl", b'{"n": 1, "n": 2}\n', "line 1 is not taken .*specified twice"),
        ("a.jsonl", b'{"n": "\xff"}\n', "line 1 is no UTF-8 text"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "line 3 has 3 fields, expected 2: 1,2,3"),
        ("a.csv", b'a,b\n1,"x\ny"\n1\n', "line 4 has 1 field, expected 2: 1"),
    ],
)
def test_an_error_names_file_line_and_policies(name, body, words, tmp_path):
    (tmp_path / name).write_bytes(body)
    for look in (lambda source: source.head(), lambda source: list(source.tables())):
        with pytest.raises(DamagedData, match=words) as error:
            look(read(tmp_path / name))
        assert str(error.value).count(name) == 1, "the file is named once"
        assert all(policy in str(error.value) for policy in ("'skip'", "'bad/'", "'error'"))


def test_a_file_without_a_good_row_is_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_text("nope\n[1]\n")
    with pytest.raises(DataError, match="no good row in its beginning.*line 1 is no JSON"):
        read(tmp_path / "a.jsonl", on_bad_rows="skip").head()
    (tmp_path / "a.csv").write_text("a,b\n1\n2,3,4\n")
    source = read(tmp_path / "a.csv", on_bad_rows=tmp_path / "bad")
    with pytest.raises(DataError, match=r"a\.csv has no good row; all 2 are bad: line 2 has 1 field, expected 2: 1"):
        source.parts()
    (tmp_path / "b.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="is empty"):
        read(tmp_path / "b.jsonl", on_bad_rows="skip").head()


def test_what_has_no_lines_has_no_bad_ones(tmp_path):
    frame(9).to_parquet(tmp_path / "a.parquet")
    for what in (tmp_path / "a.parquet", frame(9), read(frame(9)), "sqlite:///a.db", [{"a": 1}]):
        with pytest.raises(UsageError, match="on_bad_rows='skip' came with .* for the rows of"):
            read(what, on_bad_rows="skip")


def test_a_policy_is_a_word_or_a_folder_elsewhere(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    with pytest.raises(UnknownName, match="Did you mean 'skip'.* a folder with a slash"):
        read(tmp_path / "a.csv", on_bad_rows="skpi")
    for wrong in (None, True, ""):
        with pytest.raises(UsageError, match="expected 'error', 'skip', or a folder"):
            read(tmp_path / "a.csv", on_bad_rows=wrong)
    for what, folder in ((tmp_path, tmp_path / "bad"), (tmp_path / "*.csv", tmp_path)):
        with pytest.raises(UsageError, match="lies among the files that are read"):
            read(what, on_bad_rows=folder)


# ---- On the way to a feed ---------------------------------------------------------------------------------

PIPELINE = h3.Pipeline(h3.Preprocessor("x", ["n", "price"], StandardScaler()), label="good")


def numbers(path: Path, bad: str = "nope") -> Path:
    body = frame().drop(columns="text").to_json(orient="records", lines=True).splitlines()
    path.write_text("\n".join([*body[:70], bad, bad, *body[70:], bad]))
    return path


@pytest.mark.parametrize("executor", [Here, lambda: Processes(2)], ids=["here", "processes"])
def test_the_report_says_how_many_rows_were_left_out(executor, tmp_path):
    (tmp_path / "in").mkdir()
    numbers(tmp_path / "in" / "a.jsonl")
    numbers(tmp_path / "in" / "b.jsonl", bad=GOOD.replace("1", '"x"'))
    source = read(tmp_path / "in" / "*.jsonl", on_bad_rows=tmp_path / "bad")
    feed = prepare(PIPELINE, source, to=tmp_path / "feed", executor=executor())
    assert len(feed) == 600 and len(aside_of(tmp_path / "bad")) == 6
    for one in (feed, h3.open_feed(tmp_path / "feed"), prepare(PIPELINE, source, to=tmp_path / "feed")):
        report = one.report()
        assert report.bad_rows == {"a.jsonl": 3, "b.jsonl": 3} and report.aside == str(tmp_path / "bad")
        assert "6 bad rows (a.jsonl: 3, b.jsonl: 3); set aside in" in repr(report).replace("\n", " ")
    train, test = read(tmp_path / "in" / "a.jsonl", on_bad_rows="skip").split()
    for side in (train, test):
        report = prepare(PIPELINE, side).report()
        assert report.bad_rows == {"a.jsonl": 3} and "3 bad rows (a.jsonl: 3)\n" in repr(report)
    assert "bad row" not in repr(prepare(PIPELINE, frame()).report())


def test_a_mended_file_is_prepared_again_and_nothing_else(tmp_path):
    path = numbers(tmp_path / "a.jsonl")
    prepare(PIPELINE, read(path, on_bad_rows="skip"), to=tmp_path / "feed")
    path.write_text(path.read_text().replace("nope\nnope", json.dumps({"n": 1, "price": 0.5, "good": True}), 1))
    feed = prepare(PIPELINE, read(path, on_bad_rows="skip"), to=tmp_path / "feed")
    fresh = prepare(PIPELINE, read(path, on_bad_rows="skip"))
    assert len(feed) == 301 and feed.report().bad_rows == {"a.jsonl": 1}
    assert np.array_equal(feed.arrays()[0], fresh.arrays()[0])


def test_the_same_is_learned_on_the_way_as_from_the_good_rows(tmp_path):
    path = numbers(tmp_path / "a.jsonl")
    (tmp_path / "good").mkdir()
    good = tmp_path / "good" / "a.jsonl"
    good.write_text("".join(line + "\n" for line in path.read_text().splitlines() if line != "nope"))
    source = read(path, on_bad_rows="skip")
    assert PIPELINE.plan(source).spec == PIPELINE.plan(read(good)).spec
    guesses = [repr(h3.Pipeline.guess(one, label="good")).splitlines()[1:] for one in (source, good)]
    assert guesses[0] == guesses[1]
    streamed = stream(PIPELINE, source)
    feed = prepare(PIPELINE, source)
    assert np.array_equal(streamed.arrays()[0], feed.arrays()[0]) and streamed.report().bad_rows == {"a.jsonl": 3}
    np.testing.assert_allclose(feed.arrays()[0], prepare(PIPELINE, good).arrays()[0], rtol=1e-12)
    there = signed.loads(signed.dumps(streamed))
    assert there.fingerprint == streamed.fingerprint and np.array_equal(there.arrays()[0], feed.arrays()[0])


def test_bad_rows_of_a_source_that_is_looked_up_are_counted(tmp_path):
    (tmp_path / "planes.csv").write_text("tail,seats\nN1,180\nN2\nN3,95\n")
    rows = pd.DataFrame({"tail": ["N1", "N3"] * 5, "delay": np.arange(10.0)})
    pipeline = h3.Pipeline(h3.Preprocessor("x", ["seats"], StandardScaler(), source="planes"), label="delay")
    both = {"flights": rows, "planes": read(tmp_path / "planes.csv", on_bad_rows="skip")}
    report = prepare(pipeline, both, keys={"planes": "tail"}).report()
    assert report.lookups["planes"]["bad_rows"] == 1 and "1 bad rows, left out of it" in repr(report)
