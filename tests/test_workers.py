"""Every mergeable worker against scikit-learn's own fit on all rows, over random rows and random cuts into parts."""

import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from cuts import CutSource, Pickling
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
)
from sklearn.feature_selection import (
    GenericUnivariateSelect,
    SelectFdr,
    SelectFpr,
    SelectFwe,
    SelectKBest,
    SelectPercentile,
    VarianceThreshold,
    chi2,
    f_classif,
    f_regression,
)
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer
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
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.utils.validation import check_is_fitted

from h3lab import workers, worlds
from h3lab.errors import DataError, UnseenValue
from h3lab.pipeline import Pipeline, Preprocessor
from h3lab.preparing import chain
from h3lab.preparing.prepare import prepare
from h3lab.testing import check_worker
from h3lab.testing.fits import Fits, check_near
from h3lab.workers.tokens import tokenized

EPS = 1e-12


class Case(NamedTuple):
    """A row of workers, the columns they get, how the first of them must be fitted, and the label it learns from."""

    workers: tuple[Any, ...]
    columns: Any
    how: str = "merged"
    label: str | None = None

    def __str__(self) -> str:
        told = " ".join(" ".join(repr(worker).split()) for worker in self.workers)
        return re.sub(r"<function (\w+) at \w+>", r"\1", told)  # processes that share the tests compare names


NUMBERS = ["normal", "offset", "tiny", "constant", "whole", "gaps"]
CATEGORIES = ["city", "whole", "flag", "city_gaps", "whole_gaps"]


CLASSED = ["normal", "hundred", "whole", "drift"]
SPECTRUM = ["s0", "s1", "s2", "s3", "s4", "s5"]


def case(*given: Any, columns: Any = NUMBERS, how: str = "merged", label: str | None = None) -> Case:
    return Case(given, columns, how, label)


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
    case(OneHotEncoder(min_frequency=4, handle_unknown="infrequent_if_exist"), columns=CATEGORIES),
    case(OneHotEncoder(min_frequency=0.2, drop="first", sparse_output=False), columns=CATEGORIES),
    case(OneHotEncoder(max_categories=2), columns=CATEGORIES),
    case(OneHotEncoder(max_categories=3, min_frequency=3, handle_unknown="ignore"), columns=CATEGORIES),
    case(
        OneHotEncoder(categories=[["Oslo", "Rome", "Bonn"]], max_categories=2, handle_unknown="ignore"),
        columns=["city"],
    ),
    case(OrdinalEncoder(), columns=CATEGORIES),
    case(
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
        columns=CATEGORIES,
    ),
    case(OrdinalEncoder(min_frequency=4), columns=CATEGORIES),
    case(OrdinalEncoder(max_categories=3, encoded_missing_value=-2), columns=CATEGORIES),
    case(OrdinalEncoder(min_frequency=0.1, max_categories=2), columns=["city_gaps", "whole"]),
    case(SimpleImputer()),
    case(MissingIndicator(), columns=["normal", "gaps", "whole_gaps"]),
    case(MissingIndicator(features="all", sparse=True), columns=["normal", "gaps"]),
    case(MissingIndicator(missing_values=0, error_on_new=False), columns=["whole", "normal"]),
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
    case(VarianceThreshold(), columns=["normal", "whole", "flag", "gaps", "tiny"]),
    case(VarianceThreshold(0.2), columns=["normal", "constant", "gaps", "offset"]),
    case(CountVectorizer(), VarianceThreshold(0.01), columns="text"),
    case(SelectKBest(f_classif, k=2), columns=CLASSED, label="label"),
    case(SelectKBest(f_classif, k="all"), columns=CLASSED, label="flag"),
    case(SelectKBest(chi2, k=1), columns=["whole", "positive"], label="label"),
    case(SelectPercentile(f_classif, percentile=50), columns=CLASSED, label="label"),
    case(SelectFpr(f_classif, alpha=0.9), columns=CLASSED, label="label"),
    case(SelectFdr(f_classif, alpha=0.99), columns=CLASSED, label="label"),
    case(SelectFwe(f_classif, alpha=0.99), columns=CLASSED, label="label"),
    case(GenericUnivariateSelect(f_classif, mode="k_best", param=2), columns=CLASSED, label="label"),
    case(SelectKBest(f_regression, k=2), columns=CLASSED, label="price"),
    case(SelectPercentile(f_regression, percentile=25), columns=CLASSED, label="price"),
    case(CountVectorizer(), SelectKBest(chi2, k=3), columns="text", label="label"),
    case(MinMaxScaler(), SelectKBest(chi2, k=2), columns=CLASSED, label="label"),
    case(PCA(3), columns=SPECTRUM),
    case(PCA(), columns=SPECTRUM),
    case(PCA(0.9), columns=SPECTRUM),
    case(PCA(2, whiten=True), columns=SPECTRUM),
    case(PCA(4, svd_solver="covariance_eigh"), columns=SPECTRUM),
    case(StandardScaler(), PCA(2), columns=SPECTRUM),
    case(TruncatedSVD(3), columns=SPECTRUM),
    case(TruncatedSVD(2, algorithm="arpack"), columns=SPECTRUM),
    case(CountVectorizer(), TruncatedSVD(1), columns="text"),
    case(Normalizer(), columns=["normal", "whole"], how="applied"),
    case(Binarizer(), columns=["normal", "whole"], how="applied"),
    case(FunctionTransformer(np.negative, feature_names_out="one-to-one"), columns=["normal", "whole"], how="applied"),
    case(HashingVectorizer(n_features=16), columns="text", how="applied"),
]

WORDS = ["red", "Blue", "green", "I", "straße", "ÉMILE", "ΟΔΟΣ", "İstanbul", "don't", "日本語", "x_1", "٣٤", "a"]


@st.composite
def rows(draw: Any) -> tuple[pd.DataFrame, list[int]]:
    """A table with what makes a merge go wrong (large means, tiny spreads, a part of nothing but gaps), and cuts into
    parts, some empty."""
    count = draw(st.integers(12, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cuts = sorted(draw(st.lists(st.integers(0, count), max_size=5)))
    missing = rng.random(count) < draw(st.sampled_from([0.1, 0.6]))
    if cuts and draw(st.booleans()):
        missing[cuts[0] : cuts[1] if len(cuts) > 1 else count] = True
    missing[rng.integers(count)] = False
    whole = rng.integers(0, draw(st.integers(1, 6)), count)
    city = rng.choice(["Rome", "Oslo", "Łódź", "", "New York"], count)
    label, flag = rng.choice(["yes", "no"], count), rng.random(count) < 0.5
    label[:2], flag[:2] = ["yes", "no"], [True, False]  # each half has two classes
    normal = rng.normal(size=count)
    if draw(st.booleans()):
        whole, normal = np.sort(whole), np.sort(normal)
    frame = pd.DataFrame(
        {
            "normal": normal,
            "offset": rng.normal(1e6, 0.01, count),
            "tiny": rng.normal(1.0, 1e-9, count),
            "constant": np.full(count, 0.1),
            "whole": whole,
            "gaps": np.where(missing, np.nan, rng.normal(5.0, 2.0, count)),
            "city": city,
            "flag": flag,
            "city_gaps": pd.Series(city, dtype="str").where(~missing),
            "whole_gaps": np.where(missing, np.nan, whole),
            "text": [" ".join(rng.choice(WORDS, rng.integers(1, 8))) + " red" for _ in range(count)],
            "hundred": rng.normal(100, 1, count),
            "drift": rng.normal(size=count) + 2.0 * (label == "yes"),
            "positive": rng.exponential(size=count),
            "price": 2 * normal + rng.normal(size=count),
            "label": label,
        }
    )
    frame[SPECTRUM] = spectrum(rng, count, *draw(st.sampled_from([(0.0, 1.0), (10.0, 1.0), (1e-7, 1e-8), (0.0, 1e9)])))
    return frame, cuts


def spectrum(rng: np.random.Generator, count: int, offset: float, scale: float) -> np.ndarray:
    """(count, 6) with singular values that are apart, before and after their mean of ``offset`` is taken away."""
    left = np.linalg.qr(np.column_stack([np.ones(count), rng.normal(size=(count, 6))]))[0][:, 1:]
    right = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    return np.asarray(scale * np.sqrt(count) * left * [9, 5, 3, 2, 1, 0.5] @ right + offset)


def dense(x: Any) -> np.ndarray:
    return np.asarray(x.toarray() if sparse.issparse(x) else x)


def check_equal(case: Case, frame: pd.DataFrame, cuts: list[int]) -> None:
    """Each worker against its own fit on all that the ones before it give; then the feed against all of them."""
    # Whole numbers with gaps come as Arrow integers with nulls, and are floats for scikit-learn.
    table = CutSource(frame).table
    at = table.column_names.index("whole_gaps")
    given = table.set_column(at, "whole_gaps", table.column(at).cast("int64"))
    table = table if table.column(at).null_count else given
    block = Preprocessor("block", case.columns, *case.workers)
    feed = prepare(Pipeline(block, label=case.label), CutSource(given, cuts))
    assert feed.pipeline.state.how[0]["how"] == case.how
    x = block.cells(table)
    y = None if case.label is None else frame[case.label].to_numpy()
    for worker, (mine,), how in zip(
        case.workers, feed.pipeline.state.stages["block"], feed.pipeline.state.how, strict=True
    ):
        fits = Fits(worker, x, y)
        check_near(mine, fits.whole(), fits, f"parts that begin at {cuts}")
        assert how.get("bound", str(fits.bound)) == str(fits.bound)
        if mine.__sklearn_tags__().requires_fit:
            check_is_fitted(mine)
        x = chain.transform(mine, x, "all rows")
    assert dense(feed.arrays()[0]).dtype == dense(x).dtype
    np.testing.assert_allclose(dense(feed.arrays()[0]), dense(x), rtol=1e-12, atol=1e-15 * abs(dense(x)).max(initial=0))


def drawn_by(count: int) -> Any:
    return settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        phases=[Phase.generate],
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=str)
@drawn_by(5)
@given(drawn=rows())
def test_a_fit_in_parts_equals_scikit_learn_on_all_rows(case: Case, drawn: tuple[pd.DataFrame, list[int]]) -> None:
    check_equal(case, *drawn)


MERGED = [case for case in CASES if case.how == "merged" and len(case.workers) == 1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", MERGED, ids=str)
@drawn_by(2)
@given(drawn=rows(), seed=st.integers(0, 2**32 - 1))
def test_every_family_keeps_its_promises(case: Case, drawn: tuple[pd.DataFrame, list[int]], seed: int) -> None:
    frame, _ = drawn
    check_worker(case.workers[0], frame[case.columns], frame[case.label] if case.label else None, seed=seed)


@pytest.mark.filterwarnings("ignore")
@drawn_by(2)
@given(drawn=rows(), seed=st.integers(0, 2**32 - 1))
def test_families_keep_their_promises_for_what_an_earlier_worker_gives(
    drawn: tuple[pd.DataFrame, list[int]], seed: int
) -> None:
    frame, _ = drawn
    counts = CountVectorizer().fit_transform(frame["text"])
    for worker in (TfidfTransformer(), StandardScaler(with_mean=False), MaxAbsScaler(), VarianceThreshold(0.01)):
        check_worker(worker, counts.astype(float), seed=seed)
    check_worker(SelectKBest(chi2, k=2), counts, frame["label"], seed=seed)
    numbers = frame[NUMBERS].to_numpy()
    for worker in (StandardScaler(), MinMaxScaler(), MaxAbsScaler(), SimpleImputer(), MissingIndicator()):
        check_worker(worker, numbers, seed=seed)
        check_worker(worker, numbers.astype("float32"), seed=seed)
    check_worker(PCA(2), frame[SPECTRUM].to_numpy("float32"), seed=seed)


def classes() -> list[Any]:
    """A worker of each class of the table."""
    return [worlds.load(":".join(name.rpartition(".")[::2]))() for name in workers.FAMILIES]


def test_every_class_of_the_table_is_merged_in_a_case() -> None:
    assert {type(worker) for worker in classes()} == {type(worker) for case in MERGED for worker in case.workers} | {
        TfidfTransformer
    }


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


@drawn_by(10)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_unseen_categories_are_encoded_as_asked(seed: int, at: int) -> None:
    rng = np.random.default_rng(seed)
    train = pd.DataFrame({"c": rng.choice(["a", "b", "c"], 20), "k": rng.integers(0, 3, 20)})
    test = pd.DataFrame({"c": rng.choice(["b", "zzz", "", None], 9), "k": rng.integers(0, 9, 9)})
    for worker in (
        OneHotEncoder(handle_unknown="ignore"),
        OneHotEncoder(handle_unknown="ignore", drop="first", sparse_output=False),
        OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=6),
        OneHotEncoder(handle_unknown="warn", max_categories=2),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, max_categories=2),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = prepare(Pipeline(Preprocessor("c", ["c", "k"], worker)), CutSource(train, [at])).pipeline
            expected = dense(clone(worker).fit(train).transform(test))
            np.testing.assert_array_equal(dense(fitted.transform(test).x), expected)


def test_rare_categories_of_one_count_are_grouped_as_by_scikit_learn() -> None:
    """Ties are broken by the order of the categories, whichever part has seen them first."""
    frame = pd.DataFrame({"c": list("fedcba") * 3 + list("aab"), "k": [3, 1, 2] * 7})
    for most in range(1, 8):
        worker = OneHotEncoder(max_categories=most)
        fitted = prepare(Pipeline(Preprocessor("c", ["c", "k"], worker)), CutSource(frame, [2, 9])).pipeline
        (mine,) = fitted.state.stages["c"][0]
        their = clone(worker).fit(frame)
        assert repr(mine.infrequent_categories_) == repr(their.infrequent_categories_)


def test_an_unknown_category_is_named_with_block_worker_column_row_and_part() -> None:
    train = pd.DataFrame({"c": ["a", "b"], "k": [1, 2]})
    fitted = prepare(Pipeline(Preprocessor("cats", ["c", "k"], OneHotEncoder())), CutSource(train)).pipeline
    where = r"block 'cats', worker OneHotEncoder: column 'c' has a value that was not there when it was fitted: 'z'; "
    hint = r'Write OneHotEncoder\(handle_unknown="ignore"\)'
    with pytest.raises(UnseenValue, match=where + "first in row 1 of these rows. " + hint) as caught:
        fitted.transform(pd.DataFrame({"c": ["a", "z"], "k": [1, 1]}))
    assert caught.value.row == 1 and isinstance(caught.value.__cause__, ValueError)
    rows = pd.DataFrame({"c": ["a"] * 7 + ["z"], "k": 1})
    with pytest.raises(UnseenValue, match=where + r"first in row 2 of part 3 \('rows', rows from 5\)"):
        prepare(fitted, CutSource(rows, [3, 5]), executor=Pickling())
    ordinal = prepare(Pipeline(Preprocessor("cats", ["c", "k"], OrdinalEncoder())), CutSource(train)).pipeline
    with pytest.raises(DataError, match=r"column 'k' has 2 values .*: 8\.0, None; first in row 0 .*use_encoded_value"):
        ordinal.transform(pd.DataFrame({"c": ["a", "a"], "k": [8, None]}))


@pytest.mark.parametrize("worker", [VarianceThreshold(), StandardScaler(), SimpleImputer(), MinMaxScaler()], ids=repr)
def test_infinity_is_refused_in_scikit_learns_words(worker: Any) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, np.inf]})
    with pytest.raises(DataError, match=f"block 'x', worker {type(worker).__name__}: Input X contains infinity"):
        prepare(Pipeline(Preprocessor("x", ["x"], worker)), CutSource(frame, [2]))


@pytest.mark.parametrize(
    ("worker", "columns"),
    [
        (RobustScaler(), ["a"]),
        (QuantileTransformer(n_quantiles=10), ["a"]),
        (PowerTransformer(), ["a"]),
        (KBinsDiscretizer(3, strategy="kmeans"), ["a"]),
        (SimpleImputer(strategy="median"), ["a"]),
        (KNNImputer(), ["a"]),
        (TargetEncoder(), ["c"]),
        (SplineTransformer(), ["a"]),
    ],
    ids=repr,
)
def test_what_needs_its_whole_column_says_so_and_stands_in_the_table(worker: Any, columns: list[str]) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=40), "c": rng.choice(list("ab"), 40), "y": np.arange(40) % 2})
    feed = prepare(Pipeline(Preprocessor("n", columns, worker), label="y"), CutSource(frame, [13]))
    assert feed.pipeline.state.how[0]["how"] == "column"
    (told,) = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if "gets its whole column" in line]
    assert f"`{type(worker).__name__}" in told


PAGE = Path(__file__).resolve().parent.parent / "docs" / "your-own-worker.md"


def test_the_page_has_the_table_of_bounds() -> None:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    cells = [re.split(r"(?<!\\)\|", line)[1:4] for line in lines]
    told = {name.strip(): bound.strip().replace("\\|", "|") for name, _, bound in cells}
    assert len(told) == len(workers.FAMILIES)
    for worker in [*classes(), *(case.workers[0] for case in MERGED)]:
        bound = workers.family(worker).bound(worker)
        promised = told[f"`{type(worker).__name__}`"].split("; ")
        assert any(one.startswith(str(bound)) for one in promised), worker
