"""Preparing on the engines: the same feed as here, whatever dies meanwhile."""

import os
import shutil
import signal
import threading
import time

import numpy as np
import pandas as pd
import pytest
from registering import install
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import h3lab as h3
from h3lab.cluster.executors import Engines
from h3lab.cluster.processes import alive
from h3lab.errors import DataError, MissingExtra, UnknownName
from h3lab.preparing.workroom import Shared, _opened
from h3lab.testing import EXECUTOR_CHECKS

from .conftest import until


@pytest.fixture
def rows(tmp_path):
    rng = np.random.default_rng(0)
    words = np.array("the a spam free call now win cash hello dear".split())
    frame = pd.DataFrame(
        {
            "text": [" ".join(rng.choice(words, 6)) for _ in range(600)],
            "size": rng.normal(1e6, 0.1, 600),
            "kind": rng.choice(list("abc"), 600),
            "label": rng.choice(["no", "yes"], 600),
        }
    )
    for number in range(6):
        frame[number * 100 : number * 100 + 100].to_parquet(tmp_path / f"rows-{number}.parquet")
    return frame, str(tmp_path / "rows-*.parquet")


def pipeline():
    return h3.Pipeline(
        h3.Preprocessor("text", "text", TfidfVectorizer()),
        h3.Preprocessor("size", ["size"], StandardScaler()),
        h3.Preprocessor("kind", ["kind"], OneHotEncoder()),
        label="label",
    )


def test_it_equals_scikit_learn_on_the_whole_table(lab, rows, tmp_path):
    frame, path = rows
    feed = lab.prepare(pipeline(), path, to=tmp_path / "feed")
    X, y = feed.arrays()
    expected = ColumnTransformer(
        [("text", TfidfVectorizer(), "text"), ("size", StandardScaler(), ["size"]), ("kind", OneHotEncoder(), ["kind"])]
    ).fit_transform(frame)
    expected = expected.toarray() if hasattr(expected, "toarray") else expected
    bound = 1e-12 * (1 + 1e6 / 0.1)
    assert np.abs(X.toarray() - expected).max() <= bound
    assert y.tolist() == frame["label"].tolist()
    assert len(h3.open_feed(tmp_path / "feed")) == 600


def test_an_error_on_an_engine_is_raised_here_with_its_traceback(lab, rows, tmp_path):
    def halve(table):
        return table[::2]

    wrong = h3.Pipeline(h3.Preprocessor("size", ["size"], FunctionTransformer(halve)), label="label")
    with pytest.raises(DataError, match=r"(?s)size.*FunctionTransformer"):
        lab.prepare(wrong, rows[1], to=tmp_path / "feed")
    misspelt = h3.Pipeline(h3.Preprocessor("size", ["sise"], StandardScaler()), label="label")
    with pytest.raises(UnknownName, match="Did you mean 'size'"):
        lab.prepare(misspelt, rows[1], to=tmp_path / "feed")


def suicidal(task):
    """Kills its own worker the first time that it is asked for a task."""
    number, folder = task
    mark = folder / f"{number}"
    if number % 3 == 0 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_a_task_whose_worker_died_is_run_again(lab, tmp_path):
    found = Engines(lab._folder, 2).map(suicidal, [(number, tmp_path) for number in range(8)], "squares")
    assert list(found) == [number * number for number in range(8)]


def test_a_task_that_always_kills_its_worker_is_given_up(lab):
    from h3lab.errors import EngineLost

    def always(task):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(EngineLost, match="SIGKILL"):
        list(Engines(lab._folder, 2).map(always, [1], "doomed"))


@pytest.mark.parametrize("check", EXECUTOR_CHECKS, ids=lambda check: check.__name__)
def test_engines_keep_every_promise_of_an_executor(lab, check):
    check(Engines(lab._folder, 2))


def one_of(lab, kind):
    """A worker that is at work, or the engine of the one that took the most recent task: its process."""
    (job,) = until(lambda: [path for path in lab._folder.jobs.iterdir() if (path / "claims").exists()][:1])
    worker = until(lambda: sorted((job / "claims").iterdir())[-1].read_text())
    if kind == "worker":
        from h3lab.home import read_json

        return until(lambda: read_json(job / "workers" / f"{worker}.start.json"))["pid"]
    return {slot["name"]: slot["pid"] for slot in lab._folder.status["slots"]}[worker.rpartition("-")[0]]


class Slowly(FunctionTransformer):
    """Says that a part is being worked on, and goes on when it may."""

    def __init__(self, folder=None):
        super().__init__()
        self.folder = folder

    def transform(self, X):
        if "H3LAB_SLOT" not in os.environ:
            return X  # the first rows go through the notebook
        (self.folder / f"begun-{os.getpid()}-{time.monotonic_ns()}").touch()
        while not (self.folder / "go").exists():
            time.sleep(0.01)
        return X


def slow_pipeline(folder):
    return h3.Pipeline(
        h3.Preprocessor("size", ["size"], StandardScaler(), Slowly(folder)),
        h3.Preprocessor("text", "text", TfidfVectorizer()),
        label="label",
    )


@pytest.mark.parametrize("kind", ["worker", "engine"])
def test_a_feed_is_the_same_whatever_is_killed_in_the_middle(lab, rows, tmp_path, kind):
    found = []
    preparing = threading.Thread(
        target=lambda: found.append(lab.prepare(slow_pipeline(tmp_path), rows[1], to=tmp_path / "killed"))
    )
    preparing.start()
    until(lambda: list(tmp_path.glob("begun-*")), what="a part is worked on")
    os.kill(one_of(lab, kind), signal.SIGKILL)
    (tmp_path / "go").touch()
    preparing.join(60)
    whole = lab.prepare(slow_pipeline(tmp_path), rows[1], to=tmp_path / "whole")
    assert [part["hash"] for part in found[0].manifest["parts"]] == [part["hash"] for part in whole.manifest["parts"]]
    assert found[0].pipeline == whole.pipeline


def test_ctrl_c_ends_the_work_on_the_engines_and_leaves_the_old_feed(lab, rows, tmp_path):
    first = lab.prepare(pipeline(), rows[1], to=tmp_path / "feed")

    def interrupt():
        until(lambda: list(tmp_path.glob("begun-*")), what="a part is worked on")
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        lab.prepare(slow_pipeline(tmp_path), rows[1], to=tmp_path / "feed")
    pids = {int(path.name.split("-")[1]) for path in tmp_path.glob("begun-*")}
    assert pids
    until(lambda: not any(alive(pid) for pid in pids), 10, "nobody works for a cell that is over")
    assert list(lab._folder.jobs.iterdir()) == []
    assert [path.name for path in (tmp_path / "feed").iterdir() if path.name.startswith(".h3lab-work")] == []
    assert np.array_equal(h3.open_feed(tmp_path / "feed").arrays()[0].toarray(), first.arrays()[0].toarray())


def test_a_path_that_engines_cannot_see_is_named_with_the_slot(lab, rows, tmp_path):
    source = h3.read(rows[1])
    list(source.parts())
    shutil.move(tmp_path / "rows-3.parquet", tmp_path / "elsewhere")  # as a disk that the engine's machine has not
    with pytest.raises(DataError, match=r"slot\d on \S+ does not see \S*rows-3.parquet.*all engines see"):
        lab.prepare(pipeline(), source, to=tmp_path / "feed")


class Elsewhere(Shared):
    """What all tasks share, put down in a folder that engines do not see."""

    def __reduce__(self):
        _, (path,) = super().__reduce__()
        path.unlink()
        return _opened, (path,)


def test_a_folder_to_prepare_to_that_engines_cannot_see_is_named_with_the_slot(lab, tmp_path):
    task = Elsewhere("shared", tmp_path / "work" / "write")
    task.path.parent.mkdir()
    with pytest.raises(DataError, match=r"slot\d on \S+ does not see \S*work/write\. .*all engines see"):
        list(Engines(lab._folder, 2).map(repr, [task], "writing"))


def test_a_registered_worker_is_merged_on_engines_that_have_its_package(other_home, tmp_path, monkeypatch):
    package = install(tmp_path / "centring", monkeypatch)
    frame = pd.DataFrame({"x": np.arange(300.0) ** 2})
    with h3.Lab(engines=1) as lab:
        feed = lab.prepare(h3.Pipeline(h3.Preprocessor("n", ["x"], package.Centre())), frame)
    assert (
        feed.pipeline.state.how[0]["how"] == "merged" and type(feed.pipeline.state.stages["n"][0][0]) is package.Centre
    )
    np.testing.assert_array_equal(feed.arrays()[0], package.Centre().fit_transform(frame))


def test_a_registered_package_that_engines_lack_is_named(lab, tmp_path, monkeypatch):
    package = install(tmp_path / "centring", monkeypatch)
    pipeline = h3.Pipeline(h3.Preprocessor("n", ["x"], package.Centre()))
    with pytest.raises(MissingExtra, match=r"'centring' is not installed, and the work on slot\d needs it"):
        lab.prepare(pipeline, pd.DataFrame({"x": np.arange(300.0)}))
