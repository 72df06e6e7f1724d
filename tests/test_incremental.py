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
import pytest
from cuts import CutSource, Pickling
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder

from h3lab.pipeline import Pipeline, Preprocessor
from h3lab.preparing.prepare import prepare
from h3lab.preparing.remembered import FOLDER


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
    unversioned = CutSource(rows, CUTS)
    prepare(recipe(), unversioned, to=tmp_path / "a")
    assert prepare(recipe(seed=1), unversioned, to=tmp_path / "a").manifest["counts"]["reused_blocks"] == {}
    assert list((tmp_path / "a" / FOLDER).iterdir()) == []
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
