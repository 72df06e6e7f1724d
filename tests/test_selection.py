"""Selection by score, fitted in parts: what it must not do. That it is scikit-learn's own is shown in test_workers."""

import warnings

import numpy as np
import pandas as pd
import pytest
from cuts import CutSource
from sklearn.feature_selection import SelectKBest, chi2, f_classif, mutual_info_classif
from sklearn.preprocessing import MinMaxScaler

from h3lab.errors import DataError
from h3lab.pipeline import Pipeline, Preprocessor
from h3lab.preparing.prepare import prepare

COLUMNS = ["a", "b", "c", "d"]


def test_a_score_that_does_not_merge_gets_the_whole_column():
    frame = pd.DataFrame({"a": np.arange(20.0), "b": np.arange(20.0) % 3, "y": np.arange(20) % 2})
    pipeline = Pipeline(Preprocessor("n", ["a", "b"], SelectKBest(mutual_info_classif, k=1)), label="y")
    assert prepare(pipeline, CutSource(frame, [7])).pipeline.state.how[0]["how"] == "column"


def test_scores_stay_exact_where_sums_of_squares_lose_every_digit():
    rng = np.random.default_rng(0)
    y = np.arange(3000) % 2
    near = rng.normal(size=(3000, 2)) + y[:, None] * [1.0, 0.0]
    far = near + 2.0**27  # exact in binary, so the true scores are those of `near`
    frame = pd.DataFrame({"a": far[:, 0], "b": far[:, 1], "y": y})
    pipeline = Pipeline(Preprocessor("n", ["a", "b"], SelectKBest(f_classif, k=1)), label="y")
    feed = prepare(pipeline, CutSource(frame, [1000, 2100]))
    (mine,) = feed.pipeline.state.stages["n"][0]
    true = f_classif(far - 2.0**27, y)[0]
    np.testing.assert_allclose(mine.scores_, true, rtol=1e-9)
    assert abs(f_classif(far, y)[0] / true - 1).max() > 1e-4, "scikit-learn has become exact: say so less proudly"


def test_what_cannot_be_scored_is_named():
    frame = pd.DataFrame({"a": [-1.0, 2.0, 3.0, 4.0], "y": list("abab")})
    with pytest.raises(DataError, match=r"block 'n', worker SelectKBest.*learns from labels"):
        prepare(Pipeline(Preprocessor("n", ["a"], SelectKBest(f_classif, k=1))), frame)
    with pytest.raises(DataError, match=r"block 'n', worker SelectKBest.*non-negative"):
        prepare(Pipeline(Preprocessor("n", ["a"], SelectKBest(chi2, k=1)), label="y"), frame)
    with pytest.raises(DataError, match=r"block 'n'.*NaN"):
        prepare(Pipeline(Preprocessor("n", ["a"], SelectKBest(f_classif, k=1)), label="y"), frame.assign(a=np.nan))


def test_any_cut_gives_the_same_choice_after_scaling():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(rng.normal(size=(500, 4)), columns=COLUMNS).assign(y=rng.integers(0, 3, 500))
    pipeline = Pipeline(Preprocessor("n", COLUMNS, MinMaxScaler(), SelectKBest(chi2, k=2)), label="y")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [prepare(pipeline, CutSource(frame, cuts)).arrays()[0] for cuts in ([], [100], [0, 3, 250, 499])]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
