"""Every mergeable worker against scikit-learn's own fit on all rows, over random rows and random cuts into parts."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from cuts import CutSource, Pickling
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
)
from sklearn.feature_selection import VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    StandardScaler,
)
from sklearn.utils.validation import check_is_fitted

from h3lab import workers, worlds
from h3lab.errors import DataError
from h3lab.pipeline import Pipeline, Preprocessor
from h3lab.preparing.cells import Cells
from h3lab.preparing.prepare import prepare
from h3lab.workers.tokens import tokenized

EPS = 1e-12


class Case(NamedTuple):
    """A row of workers, the columns they get, and how the first of them must be fitted."""

    workers: tuple[Any, ...]
    columns: Any
    how: str = "merged"

    def __str__(self) -> str:
        return " ".join(" ".join(repr(worker).split()) for worker in self.workers)


NUMBERS = ["normal", "offset", "tiny", "constant", "whole", "gaps"]
CATEGORIES = ["city", "whole", "flag", "city_gaps", "whole_gaps"]


def case(*given: Any, columns: Any = NUMBERS, how: str = "merged") -> Case:
    return Case(given, columns, how)


CASES = [
    case(StandardScaler()),
    case(StandardScaler(with_mean=False)),
    case(StandardScaler(with_std=False)),
    case(StandardScaler(with_mean=False, with_std=False)),
    case(MinMaxScaler()),
    case(MinMaxScaler((-1, 2), clip=True)),
    case(MaxAbsScaler()),
    case(OneHotEncoder(), columns=CATEGORIES),
    case(OneHotEncoder(sparse_output=False, drop="first"), columns=CATEGORIES),
    case(OneHotEncoder(drop="if_binary", dtype=np.float32), columns=CATEGORIES),
    case(OneHotEncoder(handle_unknown="ignore"), columns=["city", "whole"]),
    case(OneHotEncoder(min_frequency=4, handle_unknown="infrequent_if_exist"), columns=["city"], how="column"),
    case(OneHotEncoder(max_categories=2), columns=["city", "whole"], how="column"),
    case(OrdinalEncoder(), columns=CATEGORIES),
    case(
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
        columns=CATEGORIES,
    ),
    case(SimpleImputer()),
    case(SimpleImputer(add_indicator=True), columns=["gaps", "normal", "whole_gaps"]),
    case(SimpleImputer(strategy="most_frequent"), columns=["whole", "whole_gaps", "gaps"]),
    case(SimpleImputer(strategy="most_frequent"), OrdinalEncoder(), columns=["city", "city_gaps"]),
    case(SimpleImputer(strategy="constant", fill_value=7), columns=["whole_gaps", "gaps"]),
    case(SimpleImputer(strategy="constant"), OrdinalEncoder(), columns=["city_gaps"]),
    case(SimpleImputer(strategy="median"), columns=["gaps"], how="column"),
    case(SimpleImputer(), StandardScaler(), PolynomialFeatures(2)),
    case(SimpleImputer(strategy="most_frequent"), OneHotEncoder(), columns=["city_gaps"]),
    case(StandardScaler(), MinMaxScaler(), MaxAbsScaler()),
    case(CountVectorizer(), columns="text"),
    case(CountVectorizer(binary=True, min_df=2, max_df=0.9), columns="text"),
    case(CountVectorizer(max_features=3), columns="text"),
    case(CountVectorizer(stop_words=["red", "émile"], lowercase=False), columns="text"),
    case(CountVectorizer(ngram_range=(1, 2)), columns="text"),
    case(CountVectorizer(analyzer="char_wb", ngram_range=(2, 3), strip_accents="unicode"), columns="text"),
    case(CountVectorizer(token_pattern=r"\w+", dtype=np.float32), columns="text"),
    case(CountVectorizer(vocabulary=["red", "blue"]), columns="text"),
    case(CountVectorizer(analyzer=str.split), columns="text", how="column"),
    case(CountVectorizer(), TfidfTransformer(), columns="text"),
    case(CountVectorizer(), TfidfTransformer(norm=None, smooth_idf=False, sublinear_tf=True), columns="text"),
    case(CountVectorizer(), StandardScaler(with_mean=False), columns="text"),
    case(CountVectorizer(), MaxAbsScaler(), columns="text"),
    case(TfidfVectorizer(), columns="text"),
    case(TfidfVectorizer(max_features=4, dtype=np.float32, sublinear_tf=True), columns="text"),
    case(TfidfVectorizer(use_idf=False, norm="l1", binary=True), columns="text"),
    case(TfidfVectorizer(vocabulary={"blue": 0, "red": 1}), columns="text"),
    case(PolynomialFeatures(2), columns=["normal", "whole"]),
    case(KBinsDiscretizer(3, strategy="uniform", subsample=None), columns=["normal", "whole"]),
    case(KBinsDiscretizer(3, strategy="uniform", encode="ordinal", subsample=None), columns=["normal"]),
    case(KBinsDiscretizer(3, strategy="quantile", quantile_method="linear"), columns=["normal"], how="column"),
    case(VarianceThreshold(), columns=["normal", "whole", "constant", "flag", "gaps"]),
    case(VarianceThreshold(0.2), columns=["normal", "constant", "gaps"]),
    case(CountVectorizer(), VarianceThreshold(0.01), columns="text"),
    case(Normalizer(), columns=["normal", "whole"], how="applied"),
    case(Binarizer(), columns=["normal", "whole"], how="applied"),
    case(FunctionTransformer(np.negative, feature_names_out="one-to-one"), columns=["normal", "whole"], how="applied"),
    case(HashingVectorizer(n_features=16), columns="text", how="applied"),
]

#: Families with labels or with projections have tests of their own: test_selection, test_projections.
ELSEWHERE = {name for name, family in workers.FAMILIES.items() if "Scored" in family or "projections" in family}

WORDS = ["red", "Blue", "green", "I", "straße", "ÉMILE", "ΟΔΟΣ", "İstanbul", "don't", "日本語", "x_1", "٣٤", "a"]


@st.composite
def rows(draw: Any) -> tuple[pd.DataFrame, list[int]]:
    """A table with what makes a merge go wrong, and cuts into parts, some empty."""
    count = draw(st.integers(5, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    missing = rng.random(count) < draw(st.sampled_from([0.1, 0.6]))
    missing[rng.integers(count)] = False
    whole = rng.integers(0, draw(st.integers(1, 6)), count)
    city = rng.choice(["Rome", "Oslo", "Łódź", "", "New York"], count)
    sorted_first = draw(st.booleans())
    frame = pd.DataFrame(
        {
            "normal": np.sort(rng.normal(size=count)) if sorted_first else rng.normal(size=count),
            "offset": rng.normal(1e6, 0.01, count),
            "tiny": rng.normal(1.0, 1e-9, count),
            "constant": np.full(count, 0.1),
            "whole": np.sort(whole) if sorted_first else whole,
            "gaps": np.where(missing, np.nan, rng.normal(5.0, 2.0, count)),
            "city": city,
            "flag": rng.random(count) < 0.5,
            "city_gaps": pd.Series(city, dtype="str").where(~missing),
            "whole_gaps": np.where(missing, np.nan, whole),
            "text": [" ".join(rng.choice(WORDS, rng.integers(1, 8))) + " red" for _ in range(count)],
            "label": rng.choice(["yes", "no"], count),
        }
    )
    return frame, draw(st.lists(st.integers(0, count), max_size=5))


def reference(case: Case, frame: pd.DataFrame) -> ColumnTransformer:
    chain = make_pipeline(*map(clone, case.workers)) if len(case.workers) > 1 else clone(case.workers[0])
    return ColumnTransformer([("block", chain, case.columns)]).fit(frame)


def dense(x: Any) -> np.ndarray:
    return np.asarray(x.toarray() if sparse.issparse(x) else x)


def check_equal(case: Case, frame: pd.DataFrame, cuts: list[int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # whole numbers with gaps come as Arrow integers with nulls, and as floats to scikit-learn
        table = CutSource(frame).table
        at = table.column_names.index("whole_gaps")
        table = table.set_column(at, "whole_gaps", table.column(at).cast("int64"))
        frame = table.to_pandas()
        expected = reference(case, frame)
        feed = prepare(Pipeline(Preprocessor("block", case.columns, *case.workers)), CutSource(table, cuts))
        ours, theirs = feed.arrays()[0], expected.transform(frame)
    assert ours.shape == theirs.shape
    assert feed.pipeline.state.how[0]["how"] == case.how
    if all(hasattr(worker, "get_feature_names_out") for worker in case.workers):
        assert feed.pipeline.feature_names == list(expected.get_feature_names_out())
    one = expected.named_transformers_["block"]
    fitted = list(one) if len(case.workers) > 1 else [one]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spread = conditioning(case, frame, dense(ours).shape[1])
    for (mine,), their in zip(feed.pipeline.state.stages["block"], fitted, strict=True):
        compare_attributes(mine, their, spread)
        if their.__sklearn_tags__().requires_fit:
            check_is_fitted(mine)
    x, y = dense(ours), dense(theirs)
    assert x.dtype == y.dtype
    precision = EPS if x.dtype != np.float32 else 1e-6
    assert (np.nan_to_num(abs(x - y)).max(axis=0) <= precision * (1 + spread)).all()
    assert (np.isnan(x) == np.isnan(y)).all()


def conditioning(case: Case, frame: pd.DataFrame, width: int) -> Any:
    """|mean|/sd a column where a scaler divides by a spread, else 0: equal to rounding."""
    if not isinstance(case.workers[0], StandardScaler | MinMaxScaler | SimpleImputer) or case.columns != NUMBERS:
        return 0.0
    part = frame[case.columns].astype(float)
    ratio = (part.abs().max() / part.std(ddof=0).where(part.nunique() > 1, 1.0)).to_numpy()
    return ratio if width == len(ratio) else ratio.max() ** 2


def compare_attributes(mine: Any, their: Any, spread: Any) -> None:
    names = {name for name in vars(their) if name.endswith("_") and not name.endswith("__")}
    assert {name for name in vars(mine) if name.endswith("_") and not name.endswith("__")} == names
    for name in names:
        a, b = getattr(mine, name), getattr(their, name)
        if isinstance(b, list):
            assert all(x.dtype == y.dtype for x, y in zip(a, b, strict=True))
            assert repr(a) == repr(b)  # NaN is not equal to itself among objects
        elif isinstance(b, np.ndarray) and b.dtype == object and isinstance(b[0], np.ndarray):  # edges of bins
            for one, other in zip(a, b, strict=True):
                np.testing.assert_array_equal(one, other, err_msg=name)
        elif isinstance(b, np.ndarray) and b.dtype.kind == "f":
            rtol = EPS * (1 + np.max(spread)) if b.dtype == np.float64 else 1e-6
            np.testing.assert_allclose(a, b, rtol=rtol, atol=EPS, err_msg=name)
        elif name != "indicator_":
            np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(
    max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=[Phase.generate]
)
@given(drawn=rows())
def test_a_fit_in_parts_equals_scikit_learn_on_all_rows(case: Case, drawn: tuple[pd.DataFrame, list[int]]) -> None:
    check_equal(case, *drawn)


def test_the_table_names_every_family_and_its_bound() -> None:
    """Each class of the table is fitted by merging in a case above, and says what it promises."""
    merged = {
        f"{type(worker).__module__}.{type(worker).__qualname__}"
        for case in CASES
        if case.how == "merged"
        for worker in case.workers
    }
    assert set(workers.FAMILIES) <= merged | ELSEWHERE
    for name in workers.FAMILIES:
        family = workers.mergeable(worlds.load(f"{name.rpartition('.')[0]}:{name.rpartition('.')[2]}")())
        assert family is not None and ("identical" in family.bound or "1e-" in family.bound), name


def test_a_subclass_is_not_taken_for_its_base() -> None:
    class Mine(StandardScaler):
        pass

    assert workers.mergeable(Mine()) is None


@pytest.mark.parametrize("parts", [2, 5, 40])
def test_precision_survives_large_offsets_over_many_rows(parts: int) -> None:
    rng = np.random.default_rng(parts)
    x = np.stack([rng.normal(1e6, 0.01, 30_000), rng.normal(-3e8, 1.0, 30_000), rng.normal(0, 1, 30_000)], axis=1)
    frame = pd.DataFrame(np.sort(x, axis=0), columns=["a", "b", "c"])
    cuts = sorted(rng.integers(0, len(frame), parts - 1))
    feed = prepare(Pipeline(Preprocessor("n", ["a", "b", "c"], StandardScaler())), CutSource(frame, cuts))
    exact = frame.to_numpy(np.longdouble)
    exact = (exact - exact.mean(axis=0)) / exact.std(axis=0)
    ratio = (frame.abs().mean() / frame.std()).to_numpy()
    assert (abs(feed.arrays()[0] - exact).max(axis=0) <= EPS * (1 + ratio)).all()
    sk = StandardScaler().fit_transform(frame)
    assert (abs(feed.arrays()[0] - sk).max(axis=0) <= EPS * (1 + ratio)).all()


def test_any_executor_gives_the_same_bits() -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"x": rng.normal(5, 2, 500), "t": [" ".join(rng.choice(WORDS, 4)) for _ in range(500)]})
    pipeline = Pipeline(Preprocessor("x", ["x"], StandardScaler()), Preprocessor("t", "t", TfidfVectorizer()))
    source = CutSource(frame, [7, 7, 100, 350])
    here, there = prepare(pipeline, source), prepare(pipeline, source, executor=Pickling())
    assert here.pipeline.fingerprint == there.pipeline.fingerprint
    assert (here.arrays()[0] != there.arrays()[0]).nnz == 0


def test_ties_of_max_features_break_as_in_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    words = np.array([f"w{i:03d}" for i in range(300)])
    frame = pd.DataFrame({"t": [" ".join(rng.choice(words, 6)) for _ in range(400)]})
    for worker in (CountVectorizer(max_features=90), TfidfVectorizer(max_features=90), TfidfVectorizer(max_df=8)):
        feed = prepare(Pipeline(Preprocessor("t", "t", worker)), CutSource(frame, [13, 200, 201]))
        theirs = clone(worker).fit(frame["t"])
        assert feed.pipeline.state.stages["t"][0][0].vocabulary_ == theirs.vocabulary_
        assert (feed.arrays()[0] != theirs.transform(frame["t"])).nnz == 0


def test_more_parts_than_are_merged_at_a_time() -> None:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"x": rng.normal(size=500), "c": rng.choice(list("abcdef"), 500)})
    pipeline = Pipeline(Preprocessor("x", ["x"], StandardScaler()), Preprocessor("c", ["c"], OneHotEncoder()))
    many = prepare(pipeline, CutSource(frame, range(10, 500, 10)))
    np.testing.assert_allclose(many.arrays()[0].toarray()[:, 0], StandardScaler().fit_transform(frame[["x"]])[:, 0])


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=12), st.booleans(), st.integers(0, 3))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_tokens_are_those_of_scikit_learn(texts: list[str], lowercase: bool, start: int) -> None:
    import pyarrow as pa

    analyze = CountVectorizer(lowercase=lowercase).build_analyzer()
    found, counts = tokenized(pa.array(texts, pa.string()).slice(start), lowercase)
    expected = [analyze(text) for text in texts[start:]]
    assert found.to_pylist() == [token for row in expected for token in row]
    assert counts.tolist() == [len(row) for row in expected]


def test_tokens_of_a_slice_and_of_more_bytes_than_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa

    from h3lab.workers import tokens

    texts = ["Ein Wort", "", "zwei  Wörter-drei", "x", "IJ ß"] * 20
    expected = [CountVectorizer().build_analyzer()(text) for text in texts[3:]]
    monkeypatch.setattr(tokens, "SLICE_BYTES", 16)
    found, counts = tokenized(pa.array(texts).slice(3), True)
    assert found.to_pylist() == [token for row in expected for token in row]
    assert counts.tolist() == [len(row) for row in expected]


def test_unseen_categories_are_encoded_as_asked() -> None:
    train = pd.DataFrame({"c": ["a", "b", "a", "c"], "k": [1, 2, 1, 2]})
    test = pd.DataFrame({"c": ["b", "zzz", None], "k": [2, 9, 1]})
    for worker in (
        OneHotEncoder(handle_unknown="ignore"),
        OneHotEncoder(handle_unknown="ignore", drop="first", sparse_output=False),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = prepare(Pipeline(Preprocessor("c", ["c", "k"], worker)), CutSource(train, [2])).pipeline
            expected = dense(clone(worker).fit(train).transform(test))
            np.testing.assert_array_equal(dense(fitted.transform(test).x), expected)


def test_an_unknown_category_is_named_with_block_worker_and_column() -> None:
    train = pd.DataFrame({"c": ["a", "b"], "k": [1, 2]})
    fitted = prepare(Pipeline(Preprocessor("cats", ["c", "k"], OneHotEncoder())), CutSource(train)).pipeline
    with pytest.raises(DataError, match=r"block 'cats', worker OneHotEncoder: Found unknown categories \['z'\].*'c'"):
        fitted.transform(pd.DataFrame({"c": ["z"], "k": [1]}))


class Doubling(TransformerMixin, BaseEstimator):
    """A worker of a third party."""

    def fit(self, X: Any, y: Any = None) -> "Doubling":
        raise AssertionError("the plug-in's family fits it")

    def transform(self, X: Any) -> Any:
        return np.asarray(X) * self.factor_


class DoublingFamily:
    """What a third party would register under h3lab.workers."""

    wraps, bound, kept = Doubling, "identical", None

    def takes(self, worker: Any, x: Any) -> bool:
        return isinstance(x, Cells)

    def digest(self, worker: Any, x: Any) -> Any:
        return x

    def partial(self, worker: Any, x: Any) -> Any:
        return {"rows": x.shape[0]}

    def merge(self, states: Any) -> Any:
        return {"rows": sum(state["rows"] for state in states)}

    def finish(self, worker: Any, state: Any, x: Any) -> None:
        worker.factor_ = state["rows"]

    def transform(self, worker: Any, x: Any) -> Any:
        return worker.transform(x.native())


def test_third_parties_join_through_the_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "plugged", lambda group: iter([DoublingFamily()] if group == "workers" else []))
    workers._of.cache_clear()
    try:
        frame = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
        feed = prepare(Pipeline(Preprocessor("x", ["x"], Doubling())), CutSource(frame, [1]))
    finally:
        workers._of.cache_clear()
    assert feed.arrays()[0].ravel().tolist() == [3.0, 6.0, 9.0]
    assert feed.pipeline.state.how[0]["how"] == "merged"
