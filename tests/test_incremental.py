"""Preparing again computes only what changed, gives the bits of a preparation from nothing, and says what it reused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa
from cuts import CutSource, Pickling
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder

import h3lab as h3
from h3lab.errors import DamagedData
from h3lab.joining.joined import join
from h3lab.pipeline import Pipeline, Preprocessor
from h3lab.preparing import landed
from h3lab.preparing.executor import Here
from h3lab.preparing.prepare import prepare
from h3lab.preparing.remembered import FOLDER
from h3lab.sources import sql


def frame(n=240):
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(40)])
    return pd.DataFrame(
        {
            "text": [" ".join(rng.choice(words, 6)) for _ in range(n)],
            "a": np.where(rng.random(n) < 0.1, np.nan, rng.normal(1e6, 1, n)),
            "b": rng.integers(-3, 3, n),
            "city": rng.choice(["Oslo", "Rome", "Bonn"], n),
            "label": rng.choice(["no", "yes"], n),
        }
    )


class Watched(CutSource):
    """Remembers which columns of which part were read."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.reads = []

    def read(self, part, columns=None):
        self.reads.append((part.index, sorted(columns or self.columns)))
        return super().read(part, columns)


CUTS = [60, 120, 180]


def recipe(text=None, **options):
    return Pipeline(
        Preprocessor("text", "text", text or TfidfVectorizer()),
        Preprocessor("numbers", ["a", "b"], SimpleImputer(), StandardScaler()),
        Preprocessor("raw", ["b"]),
        Preprocessor("city", ["city"], OneHotEncoder()),
        label="label",
        **options,
    )


def hashes(feed):
    return [part["hash"] for part in feed.manifest["parts"]]


def check_equal(feed, pipeline, source, folder):
    """The same bits as a preparation from nothing."""
    fresh = prepare(pipeline, source, to=folder)
    assert fresh.manifest["counts"]["reused_blocks"] == {} and fresh.manifest["counts"].get("recalled", {}) == {}
    assert hashes(feed) == hashes(fresh) and feed.pipeline.fingerprint == fresh.pipeline.fingerprint


@pytest.mark.parametrize("options", [{}, {"join": "blocks"}, {"dtype": "float32"}], ids=str)
def test_a_changed_worker_computes_its_block_alone(tmp_path, options):
    source = Watched(frame(), CUTS, version="1")
    prepare(recipe(**options), source, to=tmp_path / "feed")
    source.reads.clear()
    told = []
    changed = recipe(TfidfVectorizer(max_features=10), **options)
    feed = prepare(changed, source, to=tmp_path / "feed", progress=lambda *step: told.append(step[0]))
    # Whole numbers of eight bytes may not survive among floats, so that they are copied from the source again.
    kept = ["numbers", "raw", "city"] if options else ["numbers", "city"]
    assert feed.manifest["counts"]["reused_blocks"] == dict.fromkeys(kept, 4)
    assert feed.manifest["counts"]["recalled"]["numbers"] == 8, "two passes of four parts"
    assert f"writing ({', '.join(kept)} reused)" in told
    report = feed.report()
    assert report.recalled["numbers"] == 8 and report.kept == dict.fromkeys(kept, 4)
    known = "fitted without looking at parts again: "
    line = next(line for line in repr(report).splitlines() if line.startswith(known))
    assert "numbers (8 times, of 4 parts a pass)" in line and "city (4 of 4 parts)" in line and "text" not in line
    assert line in report._repr_mimebundle_()["text/html"]
    # The first two parts are looked at as a whole, for a few of their rows.
    assert len(source.reads) > 2 and all({"a", "city"}.isdisjoint(columns) for _, columns in source.reads[2:])
    check_equal(feed, changed, source, tmp_path / "fresh")


def test_a_changed_part_alone_is_read_to_fit(tmp_path):
    rows = frame()
    prepare(recipe(), CutSource(rows, CUTS, version="1"), to=tmp_path / "feed")
    rows.loc[70:80, "text"] = "word1 word2 word3"
    rows.loc[70:80, "a"] = 0.0
    source = Watched(rows, CUTS, version="1")
    source.versions[1] = "2"
    feed = prepare(recipe(), source, to=tmp_path / "feed")
    assert feed.manifest["counts"]["recalled"] == {"text": 3, "numbers": 3, "city": 3}, "the first pass of each"
    # Its categories are those that they were, so that the other parts' columns are, too.
    assert feed.manifest["counts"]["reused_blocks"] == {"city": 3}
    again = CutSource(rows, CUTS, version="1")
    again.versions[1] = "2"
    check_equal(feed, recipe(), again, tmp_path / "fresh")


def test_an_added_part_is_the_only_one_that_is_looked_at(tmp_path):
    rows = frame()
    prepare(recipe(), CutSource(rows[:180], CUTS[:2], version="1"), to=tmp_path / "feed", executor=Pickling())
    feed = prepare(recipe(), CutSource(rows, CUTS, version="1"), to=tmp_path / "feed", executor=Pickling())
    assert feed.manifest["counts"]["recalled"] == {"text": 3, "numbers": 3, "city": 3}
    check_equal(feed, recipe(), CutSource(rows, CUTS, version="1"), tmp_path / "fresh")


def test_a_block_more_or_less_leaves_the_others(tmp_path):
    source = CutSource(frame(), CUTS, version="1")
    blocks = recipe().preprocessors
    prepare(Pipeline(*blocks[1:], label="label"), source, to=tmp_path / "feed")
    more = prepare(recipe(), source, to=tmp_path / "feed")
    assert set(more.manifest["counts"]["reused_blocks"]) == {"numbers", "city"}
    check_equal(more, recipe(), source, tmp_path / "more")
    # Dense blocks come back out of a sparse matrix only where the sign of a zero is not lost to a dense one.
    dense = Pipeline(*blocks[1:3], label="label")
    less = prepare(dense, source, to=tmp_path / "feed")
    assert less.manifest["counts"]["reused_blocks"] == {}
    check_equal(less, dense, source, tmp_path / "less")


def test_what_is_not_the_same_is_not_reused(tmp_path):
    rows = frame()
    # A target encoder gives rows that it was fitted on other values than rows that it is applied to.
    source = CutSource(rows, CUTS, version="1")
    crossing = [Preprocessor("city", ["city"], TargetEncoder()), Preprocessor("a", ["b"], StandardScaler())]
    prepare(Pipeline(*crossing, label="label"), source, to=tmp_path / "b")
    changed = Pipeline(crossing[0], Preprocessor("a", ["b"], PCA(1)), label="label")
    feed = prepare(changed, source, to=tmp_path / "b")
    assert feed.manifest["counts"]["reused_blocks"] == {}
    check_equal(feed, changed, source, tmp_path / "fresh")


def test_what_is_remembered_is_bounded_and_checked(tmp_path, monkeypatch):
    source = CutSource(frame(), CUTS, version="1")
    prepare(recipe(), source, to=tmp_path / "feed")
    kept = list((tmp_path / "feed" / FOLDER).iterdir())
    assert kept
    for path in kept:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    changed = recipe(TfidfVectorizer(max_features=10))
    feed = prepare(changed, source, to=tmp_path / "feed")
    assert feed.manifest["counts"]["recalled"] == {}
    check_equal(feed, changed, source, tmp_path / "fresh")
    monkeypatch.setenv("H3LAB_STATES_BYTES", "4000")
    prepare(recipe(TfidfVectorizer(max_features=11)), source, to=tmp_path / "feed")
    assert sum(path.stat().st_size for path in (tmp_path / "feed" / FOLDER).iterdir()) <= 4000


KILLED = """
    import json, os, shutil, signal, sys
    import test_incremental as t
    from h3lab.cluster.preload import WORKER, load
    from h3lab.feeds.feed import open_feed

    load((*WORKER, "pandas", "skops.io", "h3lab.stores.columns", "h3lab.workers"))  # not in each child
    feed, total = sys.argv[1], int(sys.argv[2])
    left = 0

    def counted(call):
        def one(*arguments, **options):
            global left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)
        return one

    os.replace, os.link = counted(os.replace), counted(os.link)
    for left in [total // 2, total - 2, total - 1, total]:
        folder = shutil.copytree(feed, f"{feed}-{left}")
        if not os.fork():
            t.change(folder)
            os._exit(0)
        _, status = os.wait()
        if not os.fork():
            found = open_feed(folder)
            X, y = found.arrays()
            assert X.shape[0] == len(y) == 240
            print(json.dumps([os.waitstatus_to_exitcode(status), t.hashes(found)]), flush=True)
            os._exit(0)
        os.wait()
"""


def change(folder):
    """Another preparation of the same rows."""
    return prepare(recipe(TfidfVectorizer(max_features=10)), CutSource(frame(), CUTS, version="1"), to=folder)


def test_a_writer_killed_between_any_two_files_leaves_the_old_feed_or_the_new_one(tmp_path, monkeypatch):
    """Every file gets its name by a rename or a link: the writer is killed before one of a part, and before each of the
    last, by which the new feed becomes the current one."""
    old = prepare(recipe(), CutSource(frame(), CUTS, version="1"), to=tmp_path / "feed")
    shutil.copytree(tmp_path / "feed", tmp_path / "whole")
    calls = []
    for name in ("replace", "link"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, call=call, **more: (calls.append(given), call(*given, **more))[1])
    new = change(tmp_path / "whole")
    monkeypatch.undo()
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "feed"), str(len(calls))]
    paths = f"{Path(__file__).parent}:{Path(__file__).parent.parent}"
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert found == [[-signal.SIGKILL, hashes(old)]] * 3 + [[0, hashes(new)]]
    # The next preparation tidies up, and gives the same.
    after = tmp_path / f"feed-{len(calls) - 1}"
    assert hashes(change(after)) == hashes(new)
    assert [path.name for path in after.iterdir() if path.name.startswith((".h3lab-work", ".draft"))] == []


# ---- Sources that know no versions ------------------------------------------------------------------------


def test_rows_without_a_version_are_known_by_their_content(tmp_path):
    """Whatever the executor, and wherever the parts begin: the reading alone is done again."""
    rows = frame()
    first = prepare(recipe(), CutSource(rows, CUTS), to=tmp_path / "feed")
    told = []
    source = Watched(rows, CUTS)
    again = prepare(recipe(), source, to=tmp_path / "feed", progress=lambda *step: told.append(step[0]))
    assert told == ["reading"] * 4 + ["reused"] and len(source.reads) == 4, "each part is read once"
    assert again.manifest["number"] == first.manifest["number"] == 1
    assert prepare(recipe(), Watched(rows, CUTS), to=tmp_path / "feed", executor=Pickling()).manifest["number"] == 1
    unused = rows.assign(unused=1.0)
    assert prepare(recipe(), CutSource(unused, CUTS), to=tmp_path / "feed").manifest["number"] == 1
    cut = prepare(recipe(), CutSource(rows, [60, 120]), to=tmp_path / "feed")
    assert cut.manifest["counts"]["recalled"] == {"text": 2, "numbers": 2, "city": 2}
    check_equal(cut, recipe(), CutSource(rows, [60, 120]), tmp_path / "fresh")


def test_without_room_on_the_disk_rows_are_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(landed, "SPARE", 2.0)
    rows = frame()
    source = Watched(rows, CUTS)
    feed = prepare(recipe(), source, to=tmp_path / "feed", executor=Here(1))
    assert len(source.reads) > 8
    assert prepare(recipe(), CutSource(rows, CUTS), to=tmp_path / "feed").manifest["number"] == 1
    monkeypatch.undo()
    check_equal(feed, recipe(), CutSource(rows, CUTS), tmp_path / "fresh")


def test_rows_that_change_while_they_are_prepared_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(landed, "SPARE", 2.0)
    source = CutSource(frame(), CUTS)

    def change(what, done, total):
        if (what, done) == ("reading", total):
            source.table = source.table.set_column(1, "a", pa.array([0.0] * 240))

    with pytest.raises(DamagedData, match="part 0 .*column 'a' has changed since the preparing began"):
        prepare(recipe(), source, to=tmp_path / "feed", progress=change)


def test_a_changed_column_computes_the_blocks_that_use_it(tmp_path):
    rows = frame()
    prepare(recipe(), CutSource(rows, CUTS), to=tmp_path / "feed")
    rows.loc[70, "text"] = "word1 word2"
    feed = prepare(recipe(), CutSource(rows, CUTS), to=tmp_path / "feed")
    counts = feed.manifest["counts"]
    assert counts["reused_blocks"] == {"numbers": 4, "city": 4}
    # A worker behind a worker that is the same, on rows that are, has nothing new to learn.
    assert counts["recalled"] == {"text": 3, "numbers": 8, "city": 4}
    assert counts["again"]["text"] == "text has other values in 1 of 4 parts; it has learned other numbers"
    assert "it cannot be taken out" in counts["again"]["raw"]
    report = repr(feed.report())
    assert "used again as stored: numbers (4 of 4 parts), city (4 of 4 parts)" in report
    assert "text was computed again: text has other values in 1 of 4 parts" in report
    check_equal(feed, recipe(), CutSource(rows, CUTS), tmp_path / "fresh")


def test_the_side_of_a_split_is_not_taken_for_the_other(tmp_path):
    train, test = CutSource(frame(), CUTS).split(0.5, seed=1)
    pipeline = prepare(recipe(), train, to=tmp_path / "feed").pipeline
    held = prepare(pipeline, test, to=tmp_path / "feed")
    assert held.manifest["number"] == 2 and held.manifest["counts"]["reused"] == 0
    assert len(held) + len(prepare(pipeline, train)) == 240
    assert (
        prepare(pipeline, CutSource(frame(), CUTS).split(0.5, seed=1)[1], to=tmp_path / "feed").manifest["number"] == 2
    )


def test_nor_is_the_side_of_a_split_of_rows_that_look_something_up(tmp_path):
    joined = join({"trips": CutSource(trips(), [50]), "weather": weather()}, {"weather": "place"}, "error", "error")
    train, test = joined.split(0.5, seed=1)
    pipeline = prepare(looking_up(), train, to=tmp_path / "feed").pipeline
    held = prepare(pipeline, test, to=tmp_path / "feed")
    assert held.manifest["number"] == 2 and held.manifest["counts"]["reused"] == 0
    assert hashes(held) == hashes(prepare(pipeline, test, to=tmp_path / "fresh"))


def test_a_corrected_label_leaves_the_columns(tmp_path):
    rows = frame()
    prepare(recipe(), CutSource(rows, CUTS), to=tmp_path / "feed")
    rows.loc[70, "label"] = "no" if rows.loc[70, "label"] == "yes" else "yes"
    feed = prepare(recipe(), CutSource(rows, CUTS), to=tmp_path / "feed")
    assert feed.manifest["counts"]["reused"] == 3, "the fitted pipeline is the same"
    assert feed.manifest["counts"]["reused_blocks"] == {"text": 1, "numbers": 1, "city": 1}
    assert feed.arrays()[1][70] == rows.loc[70, "label"]
    check_equal(feed, recipe(), CutSource(rows, CUTS), tmp_path / "fresh")


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path):
    return f"sqlite:///{tmp_path}/a.db" if request.param == "sqlite" else request.getfixturevalue("postgres")


def written(url, name, rows, **options):
    """A table with the primary key ``id``."""
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text(f"DROP TABLE IF EXISTS {name}"))
        kinds = ", ".join(f"{c} {'TEXT' if rows[c].dtype.kind not in 'if' else 'FLOAT'}" for c in rows.columns)
        connection.execute(sa.text(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, {kinds})"))
        rows.to_sql(name, connection, if_exists="append", index_label="id", **options)


def execute(url, statement):
    with sa.create_engine(url, poolclass=sa.pool.NullPool).begin() as connection:
        connection.execute(sa.text(statement))


def test_a_table_as_the_first_source(database, tmp_path, monkeypatch):
    """Whatever happens to it, the bits are those of a preparation from nothing."""
    monkeypatch.setattr(sql, "PART_ROWS", 32)
    rows = frame().set_index(pd.RangeIndex(0, 480, 2))
    written(database, "rows", rows)
    told = []

    def again(pipeline=None):
        told.clear()
        table = h3.read(database, table="rows")
        feed = prepare(pipeline or recipe(), table, to=tmp_path / "feed", progress=lambda *step: told.append(step[0]))
        return feed, len(table.parts())

    feed, parts = again()
    assert feed.manifest["number"] == 1 and parts > 5
    assert again()[0].manifest["number"] == 1 and set(told) == {"reading", "reused"}
    written(database, "rows", rows.sample(frac=1, random_state=0))
    execute(database, "ALTER TABLE rows ADD COLUMN unused FLOAT")
    assert again()[0].manifest["number"] == 1 and set(told) == {"reading", "reused"}
    execute(database, "INSERT INTO rows (id, text, a, b, city, label) VALUES (201, 'word1', 1, 2, 'Oslo', 'no')")
    feed, parts = again()
    assert feed.manifest["counts"]["recalled"]["text"] >= parts - 2, "a cut may be another one"
    assert feed.manifest["counts"]["reused_blocks"]["city"] >= parts - 2
    check_equal(feed, recipe(), h3.read(database, table="rows"), tmp_path / "more")
    execute(database, "UPDATE rows SET a = 7 WHERE id = 100")
    feed, parts = again()
    assert feed.manifest["counts"]["reused_blocks"] == {"text": parts, "raw": parts, "city": parts}
    assert feed.manifest["counts"]["again"]["numbers"].startswith(f"a has other values in 1 of {parts} parts")
    check_equal(feed, recipe(), h3.read(database, table="rows"), tmp_path / "changed")


# ---- What is looked up ------------------------------------------------------------------------------------


def weather(n=60):
    return pd.DataFrame({"place": [f"p{i}" for i in range(n)], "temp": np.arange(n) / 3, "wind": np.arange(n) % 7 / 2})


def trips(n=200):
    at = np.arange(n)
    return pd.DataFrame({"place": [f"p{i % 50}" for i in at], "far": at * 1.5, "late": np.sin(at)})


def looking_up(**options):
    return Pipeline(
        Preprocessor("far", ["far"], StandardScaler()),
        Preprocessor("temp", ["temp"], StandardScaler(), source="weather"),
        Preprocessor("wind", ["wind"], SimpleImputer(), source="weather"),
        label="late",
        **options,
    )


def put(kind, folder, rows, request):
    """A lookup in any store, new in each call; the parts of the first source begin where a place does."""
    if kind == "csv":
        rows.to_csv(folder / "weather.csv", index=False)
        return h3.read(folder / "weather.csv")
    if kind in ("sqlite", "postgres"):
        url = f"sqlite:///{folder}/w.db" if kind == "sqlite" else request.getfixturevalue("postgres")
        written(url, "weather", rows)
        return h3.read(url, table="weather")
    return rows if kind == "frame" else h3.read(iter(rows.to_dict("records")))


@pytest.mark.parametrize("kind", ["csv", "sqlite", "postgres", "frame", "iterator"])
def test_a_changed_lookup_computes_the_blocks_that_look_up_in_it(kind, tmp_path, request):
    told = []

    def again(rows, on_missing="error", folder="feed"):
        told.clear()
        given = {
            "trips": CutSource(trips(), [50, 100, 150], version="1"),
            "weather": put(kind, tmp_path, rows, request),
        }
        choices = {"keys": {"weather": "place"}, "on_missing": on_missing}
        step = lambda *step: told.append(step[0])  # noqa: E731
        return prepare(looking_up(), given, to=tmp_path / folder, progress=step, **choices)

    first = again(weather())
    assert first.manifest["number"] == 1
    assert again(weather()).manifest["number"] == 1 and told == ["reused"]
    assert again(weather().assign(unused="x")).manifest["number"] == 1 and told == ["reused"]
    changed = weather()
    changed.loc[3, "temp"] = 100.0
    feed = again(changed)
    assert feed.manifest["counts"]["reused_blocks"] == {"far": 4, "wind": 4}
    assert list(feed.manifest["counts"]["again"]) == ["temp"] and "writing (far, wind reused)" in told
    assert "weather.temp has other values in 4 of 4 parts" in repr(feed.report())
    fresh = again(changed, folder="fresh")
    assert hashes(feed) == hashes(fresh)
    # Nobody looks these up: the counts are others, and not a part is written.
    surplus = again(
        pd.concat([changed, pd.DataFrame({"place": ["far away"], "temp": [9.0], "wind": [0.0]})], ignore_index=True)
    )
    assert surplus.manifest["counts"]["reused"] == 4 and hashes(surplus) == hashes(fresh)
    assert surplus.manifest["counts"]["lookups"]["weather"]["surplus"] == 11
    assert "used again as stored: far (4 of 4 parts), temp (4" in repr(surplus.report())
    # Rows that find nothing are left out: of these parts everything is another one.
    dropped = again(weather()[1:], on_missing="drop")
    assert dropped.manifest["counts"]["reused_blocks"] == {} and len(dropped) == 196
    assert hashes(dropped) == hashes(again(weather()[1:], on_missing="drop", folder="less"))


def test_a_part_that_looks_up_the_same_is_not_written_again(tmp_path):
    """The worker has been fitted before, so that other parts are the same, too."""
    fitted = prepare(looking_up(), {"trips": trips(), "weather": weather()}, keys={"weather": "place"}).pipeline

    def again(rows):
        given = {"trips": CutSource(trips(50), [10, 20, 30], version="1"), "weather": rows}
        return prepare(fitted, join(given, {"weather": "place"}, "error", "error"), to=tmp_path)

    again(weather())
    changed = weather()
    changed.loc[12, "temp"] = 100.0
    feed = again(changed)
    assert feed.manifest["counts"]["reused"] == 3
    assert feed.manifest["counts"]["reused_blocks"] == {"far": 1, "wind": 1}
    assert feed.manifest["counts"]["again"] == {"temp": "weather.temp has other values in 1 of 4 parts"}


def test_a_label_that_is_looked_up_counts_for_all_blocks(tmp_path):
    pipeline = Pipeline(Preprocessor("far", ["far"], TargetMean()), label="weather.temp", task="regression")

    def again(rows, folder):
        given = {"trips": CutSource(trips(), [50], version="1"), "weather": rows}
        return prepare(pipeline, given, keys={"weather": "place"}, to=tmp_path / folder)

    again(weather(), "feed")
    changed = weather().assign(temp=lambda rows: rows["temp"] * 2)
    feed = again(changed, "feed")
    assert hashes(feed) == hashes(again(changed, "fresh"))
    assert np.allclose(feed.arrays()[0][:, 0], trips()["far"] - 2 * weather()["temp"][:50].mean())


def test_rows_in_another_place_are_described_anew(tmp_path):
    """Equal content from elsewhere is not computed again, and the feed says where its rows are now."""
    keys = {"weather": "place"}
    for name in ("old", "new"):
        weather().to_csv(tmp_path / f"{name}.csv", index=False)
        given = {"trips": CutSource(trips(), [50], version="1"), "weather": tmp_path / f"{name}.csv"}
        feed = prepare(looking_up(), given, keys=keys, to=tmp_path / "feed")
    assert feed.manifest["number"] == 2 and feed.manifest["counts"]["reused"] == 2
    assert feed.pipeline.state.lookups["sources"]["weather"]["what"] == [str(tmp_path / "new.csv")]


class TargetMean(TransformerMixin, BaseEstimator):
    """Numbers less the mean of their labels."""

    def fit(self, X, y):
        self.mean_ = float(np.mean(y))
        return self

    def transform(self, X):
        return np.asarray(X) - self.mean_
