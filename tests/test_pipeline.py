"""A pipeline as a value: what it refuses, how it shows itself, how rows become batches, how it is saved."""

import copy
import functools
import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from cuts import CutSource
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from h3lab.errors import DataError, ModelError, NotFittedError, UnknownName, Untrusted, UsageError
from h3lab.pipeline import Pipeline, Preprocessor
from h3lab.preparing.prepare import prepare
from h3lab.serial.codec import pack, unpack


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    words = ["good", "bad", "film", "plot", "actor"]
    return pd.DataFrame(
        {
            "title": [" ".join(rng.choice(words, 3)) for _ in range(60)],
            "body": [" ".join(rng.choice(words, 9)) for _ in range(60)],
            "price": rng.normal(10, 3, 60),
            "stars": rng.integers(1, 6, 60),
            "city": rng.choice(["Oslo", "Rome"], 60),
            "rating": rng.choice(["high", "low", "mid"], 60),
            "trust": rng.random(60),
        }
    )


def recipe(**settings: Any) -> Pipeline:
    return Pipeline(
        Preprocessor("text", ["title", "body"], TfidfVectorizer(), TruncatedSVD(3)),
        Preprocessor("numbers", ["price", "stars"], StandardScaler()),
        Preprocessor("city", ["city"], OneHotEncoder(handle_unknown="ignore")),
        label="rating",
        **settings,
    )


# ---- What is written --------------------------------------------------------------------------------------


def test_the_text_is_the_code_and_says_what_is_cloned() -> None:
    assert repr(recipe(weight="trust", dtype="float32")) == (
        "Pipeline(\n"
        "    # TfidfVectorizer: one for each column\n"
        "    Preprocessor('text', ['title', 'body'], TfidfVectorizer(), TruncatedSVD(n_components=3)),\n"
        "    Preprocessor('numbers', ['price', 'stars'], StandardScaler()),\n"
        "    Preprocessor('city', ['city'], OneHotEncoder(handle_unknown='ignore')),\n"
        "    label='rating', weight='trust', dtype='float32'\n"
        ")"
    )
    again = eval(repr(recipe()))
    assert again.recipe == recipe().recipe


def test_the_card_shows_blocks_workers_and_what_was_fitted(frame: pd.DataFrame) -> None:
    pipeline = Pipeline(Preprocessor("a<b", ["price"], FunctionTransformer(np.log1p)), label="rating")
    bundle = pipeline._repr_mimebundle_()
    assert bundle["text/plain"] == repr(pipeline)
    assert "a&lt;b" in bundle["text/html"] and "not fitted yet" in bundle["text/html"]
    fitted = prepare(pipeline, CutSource(frame)).pipeline
    assert "classification, 3 classes, 1 features" in fitted._repr_mimebundle_()["text/html"]
    assert repr(fitted).endswith("# fitted: classification, 3 classes, 1 features")


class Loose(TransformerMixin):
    def fit(self, X: Any) -> "Loose":
        return self

    def transform(self, X: Any) -> Any:
        return X


@pytest.mark.parametrize(
    ("write", "error", "says"),
    [
        (lambda: Preprocessor("x", ["a"], StandardScaler), UsageError, r"Write StandardScaler\(\) with its parenth"),
        (lambda: Preprocessor("x", ["a"], "scale"), UsageError, "no scikit-learn transformer"),
        (lambda: Preprocessor("x", ["a"], Loose()), UsageError, "Loose cannot be cloned.*BaseEstimator"),
        (lambda: Preprocessor("x", StandardScaler()), UsageError, "columns are a name or a list of names"),
        (lambda: Preprocessor("x", []), UsageError, "columns are a name or a list of names"),
        (lambda: Preprocessor("", ["a"]), UsageError, "block's name"),
        (lambda: Preprocessor("a__b", ["a"]), UsageError, "'__' separates"),
        (lambda: Pipeline(), UsageError, "at least one block"),
        (lambda: Pipeline(StandardScaler()), UsageError, "made of Preprocessors; a StandardScaler came"),
        (lambda: Pipeline(Preprocessor("x", ["a"]), Preprocessor("x", ["b"])), UsageError, "of its own name"),
        (lambda: Pipeline(Preprocessor("x", ["a"]), label="a"), UsageError, "label 'a' is also a column"),
        (lambda: Pipeline(Preprocessor("x", ["a"]), weight="a"), UsageError, "weight 'a' is also a column"),
        (lambda: Pipeline(Preprocessor("x", ["a"]), task="clasification"), UnknownName, "mean 'classification'"),
        (lambda: Pipeline(Preprocessor("x", ["a"]), join="block"), UnknownName, "mean 'blocks'"),
        (lambda: Pipeline(Preprocessor("x", ["a"]), dtype="str"), UsageError, "a type of numbers"),
        (lambda: Pipeline(Preprocessor("x", ["a"])).replace(lable="y"), UnknownName, "mean 'label'"),
    ],
)
def test_what_is_written_wrong_is_said_at_once(write: Any, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        write()


def test_a_partial_is_told_by_what_it_holds() -> None:
    def by(**given: Any) -> str:
        return Pipeline(
            Preprocessor("x", ["a"], FunctionTransformer(functools.partial(lambda x, k: x, **given)))
        ).recipe

    assert by(k=1) != by(k=2)


def test_before_fitting_it_says_how_to_fit() -> None:
    pipeline = recipe()
    assert not pipeline.fitted
    for use in (lambda: pipeline.spec, lambda: pipeline.transform({"price": [1.0]}), lambda: pipeline.feature_names):
        with pytest.raises(NotFittedError, match=r"feed = lab.prepare\(pipeline, rows\)"):
            use()


def test_the_recipe_tells_what_differs() -> None:
    def half(x: Any) -> Any:
        return x / 2

    def third(x: Any) -> Any:
        return x / 3

    def by(function: Any) -> str:
        return Pipeline(Preprocessor("x", ["a"], FunctionTransformer(function))).recipe

    assert recipe().recipe == recipe().recipe
    assert recipe().recipe != recipe(seed=1).recipe
    assert by(half) == by(half) != by(third)
    assert Pipeline(Preprocessor("x", "a")).recipe != Pipeline(Preprocessor("x", ["a"])).recipe


# ---- Rows -------------------------------------------------------------------------------------------------


def test_it_is_a_column_transformer(frame: pd.DataFrame) -> None:
    pipeline = Pipeline(
        Preprocessor("t", "title", CountVectorizer()),
        Preprocessor("n", ["price", "stars"], SimpleImputer(), StandardScaler()),
        Preprocessor("c", ["city"], OneHotEncoder()),
        Preprocessor("raw", ["trust"]),
    )
    theirs = ColumnTransformer(
        [
            ("t", CountVectorizer(), "title"),
            ("n", make_pipeline(SimpleImputer(), StandardScaler()), ["price", "stars"]),
            ("c", OneHotEncoder(), ["city"]),
            ("raw", "passthrough", ["trust"]),
        ]
    ).fit(frame)
    feed = prepare(pipeline, CutSource(frame, [10, 45]))
    x = feed.arrays()[0]
    assert sparse.issparse(x)
    np.testing.assert_allclose(x.toarray(), _dense(theirs.transform(frame)), rtol=1e-12, atol=1e-12)
    assert feed.pipeline.feature_names == list(theirs.get_feature_names_out())
    assert (feed.pipeline.transform(frame).x != x).nnz == 0


def _dense(x: Any) -> np.ndarray:
    return x.toarray() if sparse.issparse(x) else np.asarray(x)


def test_a_list_of_text_columns_is_vectorised_column_by_column(frame: pd.DataFrame) -> None:
    feed = prepare(Pipeline(Preprocessor("t", ["title", "body"], CountVectorizer())), CutSource(frame, [20]))
    x = feed.arrays()[0].toarray()
    expected = np.hstack([CountVectorizer().fit_transform(frame[name]).toarray() for name in ("title", "body")])
    np.testing.assert_array_equal(x, expected)
    assert feed.pipeline.feature_names[0] == "t__title__actor" and feed.pipeline.feature_names[-1] == "t__body__plot"
    assert feed.pipeline.state.how[0]["clones"] == 2


def test_rows_come_in_any_form(frame: pd.DataFrame) -> None:
    pipeline = prepare(recipe(), CutSource(frame)).pipeline
    x = pipeline.transform(frame).x.toarray()
    table = pa.Table.from_pandas(frame)
    for rows in (table, table.to_batches()[0], CutSource(table, [7]), frame.to_dict("records"), frame[::-1][::-1]):
        np.testing.assert_array_equal(pipeline.transform(rows).x.toarray(), x)
    extra = frame.assign(more=1)[["more", *frame.columns[::-1]]]
    np.testing.assert_array_equal(pipeline.transform(extra).x.toarray(), x)


def test_the_label_may_be_absent_and_is_coded_where_it_is_there(frame: pd.DataFrame) -> None:
    pipeline = prepare(recipe(), CutSource(frame)).pipeline
    assert pipeline.spec.labels == ("high", "low", "mid")
    np.testing.assert_array_equal(pipeline.spec.decode(pipeline.transform(frame).y), frame["rating"])
    assert pipeline.transform(frame.drop(columns="rating")).y is None
    with pytest.raises(DataError, match="1 rows have labels that the model does not know: best"):
        pipeline.transform(frame.assign(rating=["best", *frame["rating"][1:]]))
    with pytest.raises(DataError, match="'rating' is missing in 2 of 60 rows"):
        pipeline.transform(frame.assign(rating=[None, None, *frame["rating"][2:]]))


def test_wrong_columns_are_named(frame: pd.DataFrame) -> None:
    pipeline = prepare(recipe(), CutSource(frame)).pipeline
    with pytest.raises(UnknownName, match="no column 'price'.*Did you mean 'prize'"):
        pipeline.transform(frame.rename(columns={"price": "prize"}))
    with pytest.raises(DataError, match="column 'price' is large_string.*fitted on double"):
        pipeline.transform(frame.assign(price="cheap"))
    with pytest.raises(DataError, match="column 'city' is int64.*fitted on large_string"):
        pipeline.transform(frame.assign(city=1))
    with pytest.raises(UsageError, match=r"a ndarray of shape \(60, 2\) came.*no names"):
        pipeline.transform(frame[["price", "stars"]].to_numpy())
    with pytest.raises(DataError, match="mixes types"):
        pipeline.transform(frame.astype({"price": object}).assign(price=["x", 1.0] * 30))
    with pytest.raises(DataError, match="no rows came"):
        pipeline.transform(frame.head(0))


def test_an_array_serves_a_pipeline_that_was_fitted_on_arrays() -> None:
    x, y = np.arange(12.0).reshape(6, 2), np.array([0, 1] * 3)
    feed = prepare(Pipeline(Preprocessor("n", ["x0", "x1"], StandardScaler()), label="y"), (x, y))
    np.testing.assert_array_equal(feed.pipeline.transform(x).x, StandardScaler().fit_transform(x))
    np.testing.assert_array_equal(feed.arrays()[1], y)


def test_a_column_of_all_nulls_fits_any_type(frame: pd.DataFrame) -> None:
    pipeline = prepare(Pipeline(Preprocessor("n", ["price"], SimpleImputer())), CutSource(frame)).pipeline
    x = pipeline.transform([{"price": None}, {"price": None}]).x
    np.testing.assert_allclose(x, [[frame["price"].mean()]] * 2)


def test_blocks_can_stay_apart_in_their_own_type(frame: pd.DataFrame) -> None:
    batch = prepare(recipe(join="blocks", dtype="float32"), CutSource(frame)).pipeline.transform(frame)
    assert {name: (block.shape[1], str(block.dtype)) for name, block in batch.x.items()} == {
        "text": (3, "float32"),
        "numbers": (2, "float32"),
        "city": (2, "float32"),
    }
    assert sparse.issparse(batch.x["city"]) and not sparse.issparse(batch.x["text"])


def test_weights_are_read_and_checked(frame: pd.DataFrame) -> None:
    pipeline = prepare(recipe(weight="trust"), CutSource(frame)).pipeline
    np.testing.assert_array_equal(pipeline.transform(frame).weight, frame["trust"])
    assert pipeline.transform(frame.drop(columns="trust")).weight is None
    with pytest.raises(DataError, match="weight column 'trust' has missing, infinite or negative"):
        pipeline.transform(frame.assign(trust=-1.0))


def test_columns_of_vectors_are_tables_of_numbers() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), 6)
    for column in (fixed, pa.array(pixels.tolist(), pa.list_(pa.uint8()))):
        table = pa.table({"pixels": column, "n": [1.0, 2.0, 3.0, 4.0]})
        raw = prepare(Pipeline(Preprocessor("p", "pixels")), CutSource(table, [1]))
        assert raw.arrays()[0].dtype == np.uint8
        np.testing.assert_array_equal(raw.arrays()[0], pixels)
        scaled = prepare(Pipeline(Preprocessor("p", "pixels", StandardScaler())), CutSource(table, [1]))
        np.testing.assert_allclose(scaled.arrays()[0], StandardScaler().fit_transform(pixels.astype(float)))
        assert scaled.pipeline.state.how[0]["how"] == "merged"
    ragged = pa.table({"pixels": [[1, 2], [3]]})
    with pytest.raises(DataError, match="'pixels' has lists of different lengths, up to 2"):
        prepare(Pipeline(Preprocessor("p", "pixels")), CutSource(ragged))


def test_blocks_of_different_rows_are_named(frame: pd.DataFrame) -> None:
    pipeline = prepare(recipe(), CutSource(frame)).pipeline
    blocks = {"text": np.ones((4, 3)), "numbers": np.ones((3, 2)), "city": np.ones((4, 2))}
    with pytest.raises(DataError, match="blocks have different rows: 'text' has 4, 'numbers' has 3, 'city' has 4"):
        pipeline.joined(blocks, pa.table({}))


class Dropping(TransformerMixin, BaseEstimator):
    def fit(self, X: Any, y: Any = None) -> "Dropping":
        return self

    def transform(self, X: Any) -> Any:
        return np.asarray(X)[:-1]


def test_a_worker_that_changes_the_rows_is_named(frame: pd.DataFrame) -> None:
    pipeline = Pipeline(Preprocessor("short", ["price"], Dropping()))
    with pytest.raises(DataError, match="block 'short', worker Dropping: 60 rows came in and 59 came out"):
        prepare(pipeline, CutSource(frame))


def test_text_at_the_end_of_a_block_says_what_is_missing(frame: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="column 'city' is large_string; numbers were expected"):
        prepare(Pipeline(Preprocessor("c", ["city"])), CutSource(frame))
    imputed = Pipeline(Preprocessor("c", ["city"], SimpleImputer(strategy="most_frequent")))
    with pytest.raises(DataError, match=r"block 'c' ends with values of type object.*OneHotEncoder\(\)"):
        prepare(imputed, CutSource(frame))


# ---- Saving -----------------------------------------------------------------------------------------------


class Halving(TransformerMixin, BaseEstimator):
    def fit(self, X: Any, y: Any = None) -> "Halving":
        self.half_ = 0.5
        return self

    def transform(self, X: Any) -> Any:
        return np.asarray(X) * self.half_


def reopened(pipeline: Pipeline, types: Any = ()) -> Pipeline:
    return Pipeline.from_document(unpack(pack(pipeline.to_document())), types)


def test_a_saved_pipeline_gives_the_same_bits(frame: pd.DataFrame) -> None:
    logs = Pipeline(Preprocessor("p", ["trust"], FunctionTransformer(np.log1p)))
    for pipeline in (
        recipe(weight="trust", seed=3),
        prepare(logs, CutSource(frame)).pipeline,
        prepare(recipe(), CutSource(frame)).pipeline,
    ):
        again = reopened(pipeline)
        assert repr(again) == repr(pipeline)
        assert (again.recipe, again.fingerprint) == (pipeline.recipe, pipeline.fingerprint)
    assert (again.transform(frame).x != pipeline.transform(frame).x).nnz == 0
    assert again.state.stages["text"][0][0].vocabulary_ == pipeline.state.stages["text"][0][0].vocabulary_
    assert again.spec == pipeline.spec and again.feature_names == pipeline.feature_names


def test_copies_are_the_same_pipeline(frame: pd.DataFrame) -> None:
    pipeline = prepare(recipe(), CutSource(frame)).pipeline
    for again in (copy.deepcopy(pipeline), pickle.loads(pickle.dumps(pipeline))):
        assert (again.recipe, again.fingerprint, again.spec) == (pipeline.recipe, pipeline.fingerprint, pipeline.spec)
        assert (again.transform(frame).x != pipeline.transform(frame).x).nnz == 0


def test_types_of_ones_own_are_named_before_they_are_loaded(frame: pd.DataFrame) -> None:
    pipeline = prepare(Pipeline(Preprocessor("h", ["price"], Halving())), CutSource(frame)).pipeline
    with pytest.raises(Untrusted, match=r"Halving.*types=\[Halving\]"):
        reopened(pipeline)
    again = reopened(pipeline, [Halving])
    np.testing.assert_array_equal(again.transform(frame).x.ravel(), frame["price"] / 2)


def test_a_lambda_cannot_be_saved_and_opening_says_so(frame: pd.DataFrame) -> None:
    worker = FunctionTransformer(lambda x: x * 2)
    pipeline = prepare(Pipeline(Preprocessor("twice", ["price"], worker)), CutSource(frame)).pipeline
    document = unpack(pack(pipeline.to_document()))
    with pytest.raises(ModelError, match="block 'twice'.*<lambda> has no name.*in place of lambdas"):
        Pipeline.from_document(document)


def test_the_users_workers_stay_as_they_are(frame: pd.DataFrame) -> None:
    scaler, svd = StandardScaler(), TruncatedSVD(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frozen = FrozenEstimator(StandardScaler().fit(frame[["price"]] * 2))
    pipeline = Pipeline(
        Preprocessor("n", ["price"], scaler),
        Preprocessor("t", "title", CountVectorizer(), svd),
        Preprocessor("f", ["price"], frozen),
    )
    before = pipeline.recipe
    feed = prepare(pipeline, CutSource(frame, [30]))
    assert not hasattr(scaler, "mean_") and svd.random_state is None and pipeline.recipe == before
    assert [entry["how"] for entry in feed.pipeline.state.how] == ["merged", "merged", "merged", "frozen"]
    np.testing.assert_array_equal(feed.arrays()[0][:, 3], frozen.transform(frame[["price"]])[:, 0])
