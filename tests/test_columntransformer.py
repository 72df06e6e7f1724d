"""scikit-learn's ColumnTransformer and Pipeline as a pipeline: the same numbers in the same order."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

import h3lab as h3
from h3lab.errors import NotFittedError, SpecMismatch, UnknownName, UsageError
from h3lab.preparing.prepare import prepare


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = 90
    return pd.DataFrame(
        {
            "price": rng.normal(10, 3, rows),
            "age": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(40, 9, rows)),
            "stars": rng.integers(1, 6, rows),
            "city": rng.choice(["Oslo", "Rome", "Bern"], rows),
            "title": [" ".join(rng.choice(["good", "bad", "film", "plot"], 4)) for _ in range(rows)],
            "rating": rng.choice(["high", "low"], rows),
        }
    )


def inputs(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="rating")


def dense(x: Any) -> np.ndarray:
    return np.asarray(x.toarray() if sparse.issparse(x) else x, dtype=np.float64)


def numbers() -> Pipeline:
    return make_pipeline(SimpleImputer(), StandardScaler())


CONTAINERS = {
    "names": lambda: ColumnTransformer(
        [("n", numbers(), ["price", "age"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["city"])]
    ),
    "one column of text": lambda: ColumnTransformer(
        [("t", TfidfVectorizer(), "title"), ("n", MinMaxScaler(), ["stars"])]
    ),
    "passthrough and drop": lambda: ColumnTransformer(
        [("raw", "passthrough", ["stars", "price"]), ("gone", "drop", ["age"])]
    ),
    "remainder passes": lambda: ColumnTransformer(
        [("c", OrdinalEncoder(), ["city"]), ("gone", "drop", ["title", "age"])], remainder="passthrough"
    ),
    "remainder is transformed": lambda: ColumnTransformer(
        [("c", OrdinalEncoder(), ["city"]), ("gone", "drop", ["title"])], remainder=SimpleImputer()
    ),
    "selectors": lambda: make_column_transformer(
        (numbers(), make_column_selector(dtype_include="number")), (OneHotEncoder(), make_column_selector("ci"))
    ),
    "positions": lambda: ColumnTransformer(
        [("a", numbers(), [1, 0]), ("b", OneHotEncoder(), [-2]), ("c", CountVectorizer(), 4)]
    ),
    "slices": lambda: ColumnTransformer(
        [("a", SimpleImputer(), slice(0, 2)), ("b", "passthrough", slice("age", "stars"))]
    ),
    "a mask": lambda: ColumnTransformer([("a", StandardScaler(), [True, False, True, False, False])]),
    "nothing selected": lambda: ColumnTransformer([("a", StandardScaler(), ["price"]), ("b", OneHotEncoder(), [])]),
    "twice the same": lambda: ColumnTransformer([("a", StandardScaler(), ["price"]), ("b", MinMaxScaler(), ["price"])]),
    "rows of rows": lambda: ColumnTransformer(
        [
            (
                "n",
                make_pipeline(SimpleImputer(), "passthrough", make_pipeline(StandardScaler(), PCA(1))),
                ["price", "age"],
            )
        ]
    ),
    "a union inside": lambda: ColumnTransformer(
        [("n", FeatureUnion([("s", StandardScaler()), ("m", MinMaxScaler())]), ["price", "stars"])]
    ),
    "in a row": lambda: make_pipeline(
        ColumnTransformer([("n", numbers(), ["price", "age"]), ("c", OneHotEncoder(sparse_output=False), ["city"])]),
        StandardScaler(),
        PCA(2),
    ),
    "alone in a row": lambda: make_pipeline(ColumnTransformer([("n", StandardScaler(), ["price"])])),
    "with names as output": lambda: ColumnTransformer([("n", numbers(), ["price", "age"])]).set_output(
        transform="pandas"
    ),
    "text through a function": lambda: ColumnTransformer(
        [
            (
                "t",
                make_pipeline(SimpleImputer(strategy="constant"), FunctionTransformer(np.ravel), CountVectorizer()),
                ["title"],
            )
        ]
    ),
}
each_container = pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)


@each_container
def test_its_outputs_are_those_of_scikit_learn(make: Any, frame: pd.DataFrame) -> None:
    given = make()
    feed = prepare(given, frame, label="rating")
    expected = dense(clone(given).fit_transform(inputs(frame)))
    assert np.allclose(dense(feed.arrays()[0]), expected, rtol=0, atol=1e-12, equal_nan=True)
    assert feed.arrays()[1].tolist() == frame["rating"].tolist()
    again = feed.pipeline.transform(frame.head(7))
    assert np.allclose(dense(again.x), expected[:7], rtol=0, atol=1e-12, equal_nan=True)
    assert not hasattr(given, "transformers_") and not hasattr(given, "feature_names_in_"), "nobody's object is changed"


@each_container
def test_a_fitted_one_is_only_applied(make: Any, frame: pd.DataFrame) -> None:
    fitted = make().fit(inputs(frame))
    others = frame.iloc[::-1].head(40).assign(price=frame["price"] * 2 + 1)
    feed = prepare(fitted, others, label="rating")
    # A product with principal axes rounds by how its rows lie in memory, which a library may decide by the processor.
    expected = dense(fitted.transform(inputs(others)))
    assert np.allclose(dense(feed.arrays()[0]), expected, rtol=0, atol=1e-12, equal_nan=True)
    assert {how["how"] for how in feed.pipeline.state.how} <= {"frozen"}


def test_names_of_outputs_are_scikit_learns(frame: pd.DataFrame) -> None:
    given = CONTAINERS["names"]().fit(inputs(frame))
    assert prepare(given, frame, label="rating").pipeline.feature_names == given.get_feature_names_out().tolist()
    assert prepare(clone(given), frame).pipeline.feature_names == given.get_feature_names_out().tolist()


def test_it_becomes_code_to_edit(frame: pd.DataFrame) -> None:
    pipeline = h3.Pipeline.from_sklearn(CONTAINERS["names"](), frame, label="rating", task="classification")
    assert "h3.Preprocessor('n', ['price', 'age'], SimpleImputer(), StandardScaler())," in str(pipeline)
    namespace: dict[str, Any] = {}
    exec(str(pipeline), namespace)
    assert namespace["pipeline"] == pipeline
    assert h3.Pipeline.from_sklearn(pipeline, frame) is pipeline


def test_steps_that_merge_are_fitted_in_parts(frame: pd.DataFrame) -> None:
    feed = prepare(CONTAINERS["names"](), frame, label="rating")
    assert [how["how"] for how in feed.pipeline.state.how] == ["merged", "merged", "merged"]


def test_what_has_no_counterpart_names_the_step(frame: pd.DataFrame) -> None:
    refused = [
        (
            ColumnTransformer([("n", StandardScaler(), ["pirce"])]),
            UnknownName,
            "'pirce' in the source .step 'n'.*'price'",
        ),
        (ColumnTransformer([("n", StandardScaler(), [17])]), UsageError, r"step 'n' selects \[17\].*Select by name"),
        (
            ColumnTransformer([("n", StandardScaler(), ["price"])], transformer_weights={"n": 2}),
            UsageError,
            "weights=.*'n': 2",
        ),
        (ColumnTransformer([("n", "passthorugh", ["price"])]), UsageError, "step 'n' is 'passthorugh'"),
        (ColumnTransformer([("n", "drop", ["price"])]), UsageError, "keeps no column"),
        (make_pipeline(StandardScaler(), Ridge()), UsageError, r"'ridge' is a Ridge.*is an actor.*pipeline\[:-1\]"),
        (ColumnTransformer([("n", StandardScaler(), [0])]).fit(np.ones((3, 9))), UsageError, "an array of 9 columns"),
        (StandardScaler, UsageError, r"Write StandardScaler\(\) with its parentheses"),
    ]
    for given, error, text in refused:
        with pytest.raises(error, match=text):
            prepare(given, frame, label="rating")
    with pytest.raises(UnknownName, match="'ratign' in the source. Did you mean 'rating'"):
        prepare(CONTAINERS["names"](), frame, label="ratign")


# ---- On an actor ------------------------------------------------------------------------------------------


def row(model: Any) -> Pipeline:
    return make_pipeline(CONTAINERS["names"](), model)


def test_an_actor_takes_it_as_pipeline_unfitted_or_fitted(frame: pd.DataFrame) -> None:
    X, y = inputs(frame), frame["rating"]
    expected = row(LogisticRegression()).fit(X, y)
    given = CONTAINERS["names"]()
    actor = h3.Actor("columns", LogisticRegression(), pipeline=given).fit(X, y)
    assert np.allclose(actor.predict_proba(X), expected.predict_proba(X), atol=1e-9)
    assert actor.score(X, y) == expected.score(X, y) and not hasattr(given, "transformers_")
    assert actor.predict(h3.read(X)).tolist() == expected.predict(X).tolist()

    other = CONTAINERS["names"]().fit(X.head(30))
    applied = h3.Actor("applied", LogisticRegression(), pipeline=other)
    assert clone(applied).pipeline is other, "a clone of a fitted one would have to learn again"
    model = LogisticRegression().fit(other.transform(X), y)
    assert np.allclose(applied.fit(X, y).predict_proba(X), model.predict_proba(other.transform(X)), atol=1e-9)
    at_once = h3.Actor("at once", model, pipeline=other)
    assert np.allclose(at_once.predict_proba(X), model.predict_proba(other.transform(X)), atol=1e-12)
    with pytest.raises(UsageError, match="is a ColumnTransformer, which names no label. Pass .X, y.*from_sklearn"):
        h3.Actor("no label", LogisticRegression(), pipeline=given).fit(frame)


def test_a_whole_scikit_learn_pipeline_is_an_actor_and_learns_from_raw_rows(frame: pd.DataFrame) -> None:
    X, y = inputs(frame), frame["rating"]
    given = row(LogisticRegression(C=0.5))
    actor = h3.Actor("whole", given).fit(X, y)
    expected = clone(given).fit(X, y)
    assert np.allclose(actor.predict_proba(X), expected.predict_proba(X), atol=1e-9)
    assert isinstance(actor.native, LogisticRegression) and actor.native.C == 0.5
    assert np.allclose(actor.to_sklearn().predict_proba(X), expected.predict_proba(X), atol=1e-9)
    boosted = row(HistGradientBoostingRegressor(warm_start=True, max_iter=7))
    records = list(h3.train(h3.Actor("curve", boosted), (X.drop(columns="stars"), X["stars"] * 1.0), validation=0.3))
    assert len(records) == 7 and "val_loss" in records[-1]


@pytest.mark.parametrize("model", [LogisticRegression(), Ridge()], ids=["classifier", "regressor"])
@pytest.mark.parametrize("wrap", [lambda fitted: fitted, FrozenEstimator], ids=["plain", "frozen"])
def test_a_fitted_scikit_learn_pipeline_answers_raw_rows_at_once(
    model: Any, wrap: Any, frame: pd.DataFrame, tmp_path: Any
) -> None:
    X = inputs(frame)
    fitted = row(clone(model)).fit(X, frame["rating"] if isinstance(model, LogisticRegression) else frame["price"])
    actor = h3.Actor("fitted", wrap(fitted))
    for rows in (X, frame, frame.to_dict("records"), h3.read(frame)):
        assert np.array_equal(actor.predict(rows), fitted.predict(X))
    with pytest.raises(UnknownName, match="no column 'age'"):
        actor.predict(X.drop(columns="age"))
    with pytest.raises(UsageError, match="A bare array has no names"):
        actor.predict(X.to_numpy())
    actor.save(tmp_path / "fitted.h3")
    assert np.array_equal(h3.load(tmp_path / "fitted.h3").predict(X), fitted.predict(X))


def test_a_fitted_scikit_learn_pipeline_teaches(frame: pd.DataFrame, tmp_path: Any) -> None:
    fitted = row(LogisticRegression()).fit(inputs(frame), frame["rating"])
    feed = prepare(h3.Pipeline(h3.Preprocessor("n", ["price", "stars"], StandardScaler()), label="rating"), frame)
    students = []
    for teacher in (h3.Actor("teacher", fitted), fitted, lambda rows: fitted.predict_proba(rows)):
        student = h3.Actor("student", LogisticRegression())
        list(h3.train(student, feed, transfer=h3.Distill(teacher, source=frame, soft=1.0, temperature=1.0)))
        students.append(student.predict_proba(frame))
    assert np.allclose(students[0], students[1]) and np.allclose(students[0], students[2], atol=1e-4)


def test_a_feed_of_the_same_container_is_known_by_an_actor_that_has_it(frame: pd.DataFrame) -> None:
    feed = prepare(CONTAINERS["names"](), frame, label="rating")
    h3.Actor("same", LogisticRegression(), pipeline=CONTAINERS["names"]()).fit(feed)
    h3.Actor("whole", row(LogisticRegression())).fit(feed)
    other = ColumnTransformer([("n", StandardScaler(), ["price"])])
    with pytest.raises(SpecMismatch, match="has another pipeline than the feed: its blocks are .'n'."):
        h3.Actor("other", LogisticRegression(), pipeline=other).fit(feed)


def test_frozen_workers_and_models_stay_as_they_are(frame: pd.DataFrame) -> None:
    scaler = StandardScaler().fit(frame[["price"]].head(20))
    pipeline = h3.Pipeline(h3.Preprocessor("n", ["price"], FrozenEstimator(scaler)), label="rating")
    feed = prepare(pipeline, frame)
    x = scaler.transform(frame[["price"]])
    assert np.array_equal(feed.arrays()[0], x)
    model = LogisticRegression().fit(x, frame["rating"])
    actor = h3.Actor("frozen", FrozenEstimator(model))
    assert np.allclose(actor.predict_proba(x), model.predict_proba(x), atol=1e-9)
    list(h3.train(actor, feed))
    assert np.allclose(actor.predict_proba(frame), model.predict_proba(x), atol=1e-9), "training leaves it alone"
    with pytest.raises(NotFittedError):
        h3.Actor("unfitted", LogisticRegression()).predict(x)
