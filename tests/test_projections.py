"""PCA and TruncatedSVD from merged moments, against scikit-learn's exact solvers on all rows."""

import numpy as np
import pandas as pd
import pytest
from cuts import CutSource
from scipy import sparse
from sklearn.base import clone
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import StandardScaler

from h3lab.errors import DataError
from h3lab.pipeline import Pipeline, Preprocessor
from h3lab.preparing.prepare import prepare
from h3lab.workers import projections

COLUMNS = list("abcdef")
CUTS = [[], [1], [0, 40, 41, 300], sorted(np.random.default_rng(0).integers(0, 400, 9))]


def table(rows: int = 400, offset: float = 0.0, dtype: str = "float64") -> pd.DataFrame:
    """Six columns with singular values that are apart."""
    rng = np.random.default_rng(rows)
    mixed = rng.normal(size=(rows, 6)) * [9, 5, 3, 2, 1, 0.5] @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    return pd.DataFrame((mixed + offset).astype(dtype), columns=COLUMNS)


def fitted(frame, cuts, worker, *before):
    feed = prepare(Pipeline(Preprocessor("n", COLUMNS, *before, worker)), CutSource(frame, cuts))
    assert feed.pipeline.state.how[len(before)]["how"] == "merged"
    return feed.arrays()[0], feed.pipeline.state.stages["n"][len(before)][0]


def check(mine, their, frame, out, tolerance=1e-7):
    expected = their.transform(frame)
    assert out.dtype == expected.dtype
    np.testing.assert_allclose(out, expected, atol=tolerance * their.singular_values_[0])
    names = {n for n in vars(their) if n.endswith("_") and not n.endswith("__")}
    assert {n for n in vars(mine) if n.endswith("_") and not n.endswith("__")} == names
    for name in names:
        a, b = getattr(mine, name), getattr(their, name)
        if isinstance(b, np.ndarray) and b.dtype.kind == "f":
            scale = max(1e-300, float(abs(b).max()))
            np.testing.assert_allclose(a, b, atol=max(tolerance, 1e-6 * (b.dtype == np.float32)) * scale, err_msg=name)
        elif isinstance(b, float | np.floating):
            assert a == pytest.approx(b, rel=1e-5, abs=1e-9), name
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize(
    "worker", [PCA(3), PCA(), PCA(0.9), PCA(2, whiten=True), PCA(4, svd_solver="covariance_eigh")], ids=repr
)
def test_pca_in_parts_is_the_exact_one(worker, cuts):
    frame = table()
    out, mine = fitted(frame, cuts, worker)
    their = clone(worker).set_params(svd_solver="full").fit(frame)
    check(mine, their, frame, out)


def test_pca_keeps_single_precision():
    frame = table(dtype="float32")
    out, mine = fitted(frame, [100], PCA(3))
    check(mine, PCA(3, svd_solver="full").fit(frame), frame, out, 1e-5)


def test_pca_of_fewer_rows_than_columns():
    frame = table(rows=4)
    out, mine = fitted(frame, [2], PCA(2))
    check(mine, PCA(2, svd_solver="full").fit(frame), frame, out)


def test_a_large_offset_costs_no_digits():
    frame = table(offset=1e6)
    out, mine = fitted(frame, [7, 150], PCA(3))
    their = PCA(3, svd_solver="full").fit(frame - 1e6)
    np.testing.assert_allclose(abs(out), abs(their.transform(frame - 1e6)), atol=1e-6)


def test_pca_after_another_worker():
    frame = table()
    out, mine = fitted(frame, [50], PCA(3), StandardScaler())
    scaled = StandardScaler().fit_transform(frame)
    np.testing.assert_allclose(out, PCA(3, svd_solver="full").fit_transform(scaled), atol=1e-9)


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize("algorithm", ["arpack", "randomized"])
def test_truncated_svd_in_parts_is_the_exact_one(algorithm, cuts):
    frame = table(offset=1.0)
    out, mine = fitted(frame, cuts, TruncatedSVD(3, algorithm=algorithm, random_state=0))
    their = TruncatedSVD(3, algorithm="arpack", random_state=0).fit(frame)
    check(mine, their, frame, out)


def test_truncated_svd_of_sparse_words():
    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(30)]
    share = np.arange(1, 31) ** -1.0
    texts = [" ".join(rng.choice(words, 12, p=share / share.sum())) for _ in range(500)]
    frame = pd.DataFrame({"t": texts})
    feed = prepare(Pipeline(Preprocessor("t", "t", CountVectorizer(), TruncatedSVD(4))), CutSource(frame, [10, 200]))
    assert feed.pipeline.state.how[1]["how"] == "merged"
    counts = CountVectorizer().fit_transform(texts)
    assert sparse.issparse(counts)
    expected = TruncatedSVD(4, algorithm="arpack", random_state=0).fit_transform(counts.astype(float))
    np.testing.assert_allclose(feed.arrays()[0], expected, atol=1e-7 * abs(expected).max())


def test_many_columns_get_the_whole_column_and_say_so(monkeypatch):
    monkeypatch.setattr(projections, "MOST_COLUMNS", 5)
    feed = prepare(Pipeline(Preprocessor("n", COLUMNS, PCA(2))), CutSource(table(), [100]))
    assert feed.pipeline.state.how[0]["how"] == "column"


def test_incremental_pca_is_streamed_and_says_so():
    feed = prepare(Pipeline(Preprocessor("n", COLUMNS, IncrementalPCA(2))), CutSource(table(), [100, 250]))
    assert feed.pipeline.state.how[0]["how"] == "streamed"


def test_what_cannot_be_projected_is_named():
    with pytest.raises(DataError, match=r"block 'n', worker PCA.*n_components=6 must be between 0"):
        prepare(Pipeline(Preprocessor("n", COLUMNS, PCA(6))), table(rows=4))
    with pytest.raises(DataError, match=r"block 'n', worker PCA.*NaN"):
        prepare(Pipeline(Preprocessor("n", COLUMNS, PCA(2))), table().assign(a=np.nan))
