"""Selection by score, fitted in parts, against scikit-learn's own on all rows."""

import warnings

import numpy as np
import pandas as pd
import pytest
from cuts import CutSource
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_selection import (
    GenericUnivariateSelect,
    SelectFdr,
    SelectFpr,
    SelectFwe,
    SelectKBest,
    SelectPercentile,
    chi2,
    f_classif,
    f_regression,
    mutual_info_classif,
)
from sklearn.preprocessing import MinMaxScaler

from h3lab.errors import DataError
from h3lab.pipeline import Pipeline, Preprocessor
from h3lab.preparing.prepare import prepare

COLUMNS = ["a", "b", "c", "d"]
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "phases": [Phase.generate]}

CASES = [
    (SelectKBest(f_classif, k=2), "city"),
    (SelectKBest(f_classif, k="all"), "city"),
    (SelectKBest(f_classif, k=2), "flag"),
    (SelectPercentile(f_classif, percentile=50), "city"),
    (SelectFpr(f_classif, alpha=0.9), "city"),
    (SelectFdr(f_classif, alpha=0.99), "city"),
    (SelectFwe(f_classif, alpha=0.99), "city"),
    (GenericUnivariateSelect(f_classif, mode="k_best", param=2), "city"),
    (SelectKBest(f_regression, k=2), "price"),
    (SelectPercentile(f_regression, percentile=25), "price"),
]


@st.composite
def rows(draw):
    count = draw(st.integers(12, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    city = rng.choice(["Rome", "Oslo", "Łódź"], count)
    city[:3] = ["Rome", "Oslo", "Łódź"]
    frame = pd.DataFrame(
        {
            "a": rng.normal(size=count) + (city == "Rome"),
            "b": rng.normal(100, 1, size=count),
            "c": rng.integers(0, 5, count) + 3.0 * (city == "Oslo"),
            "d": rng.exponential(size=count),
            "city": city,
            "flag": np.arange(count) % 2 == 0,
        }
    )
    frame["price"] = frame["a"] * 2 + rng.normal(size=count)
    frame["text"] = [" ".join(rng.choice(["red", "blue", c], 5)) for c in city]
    return frame, draw(st.lists(st.integers(0, count), max_size=4))


@pytest.mark.parametrize(
    "worker, label", CASES, ids=[f"{type(w).__name__}-{w.score_func.__name__}-{n}" for n, (w, _) in enumerate(CASES)]
)
@settings(max_examples=10, **QUIET)
@given(drawn=rows())
def test_the_scores_and_the_choice_are_scikit_learns(worker, label, drawn):
    frame, cuts = drawn
    pipeline = Pipeline(Preprocessor("block", COLUMNS, worker), label=label)
    feed = prepare(pipeline, CutSource(frame, cuts))
    (mine,) = feed.pipeline.state.stages["block"][0]
    their = clone(worker).fit(frame[COLUMNS], frame[label])
    assert feed.pipeline.state.how[0]["how"] == "merged"
    np.testing.assert_allclose(mine.scores_, their.scores_, rtol=1e-7)
    np.testing.assert_allclose(mine.pvalues_, their.pvalues_, rtol=1e-6, atol=1e-300)
    np.testing.assert_array_equal(mine.get_support(), their.get_support())
    np.testing.assert_array_equal(feed.arrays()[0], their.transform(frame[COLUMNS]))
    assert feed.pipeline.feature_names == [f"block__{name}" for name in their.get_feature_names_out()]
    assert {n for n in vars(mine) if n.endswith("_")} == {n for n in vars(their) if n.endswith("_")}


@settings(max_examples=10, **QUIET)
@given(drawn=rows())
def test_words_are_chosen_by_chi2_as_scikit_learn_chooses_them(drawn):
    frame, cuts = drawn
    pipeline = Pipeline(Preprocessor("text", "text", CountVectorizer(), SelectKBest(chi2, k=3)), label="city")
    feed = prepare(pipeline, CutSource(frame, cuts))
    counts = CountVectorizer().fit_transform(frame["text"])
    their = SelectKBest(chi2, k=3).fit(counts, frame["city"])
    (mine,) = feed.pipeline.state.stages["text"][1]
    np.testing.assert_allclose(mine.scores_, their.scores_, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(feed.arrays()[0].toarray(), their.transform(counts).toarray())


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
