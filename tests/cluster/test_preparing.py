"""Preparing on the engines: the same feed as here, whatever dies meanwhile."""

import os
import signal

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import h3lab as h3
from h3lab.cluster.executors import Engines
from h3lab.errors import DataError, UnknownName


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
