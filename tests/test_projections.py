"""PCA and TruncatedSVD from merged moments where rows are few, words or far from 0; test_workers draws the others."""

import numpy as np
import pandas as pd
import pytest
from cuts import CutSource
from scipy import sparse
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import StandardScaler

from h3lab.errors import DataError
from h3lab.pipeline import Pipeline, Preprocessor
from h3lab.preparing.cells import Cells, as_table
from h3lab.preparing.prepare import prepare
from h3lab.testing.fits import Fits, check_near
from h3lab.workers import projections

COLUMNS = list("abcdef")


def table(rows: int = 400, offset: float = 0.0, dtype: str = "float64") -> pd.DataFrame:
    """Six columns with singular values that are apart."""
    rng = np.random.default_rng(rows)
    mixed = rng.normal(size=(rows, 6)) * [9, 5, 3, 2, 1, 0.5] @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    return pd.DataFrame((mixed + offset).astype(dtype), columns=COLUMNS)


def fitted(frame, cuts, worker, *before):
    feed = prepare(Pipeline(Preprocessor("n", COLUMNS, *before, worker)), CutSource(frame, cuts))
    assert feed.pipeline.state.how[len(before)]["how"] == "merged"
    return feed.arrays()[0], feed.pipeline.state.stages["n"][len(before)][0]


@pytest.mark.parametrize("worker", [PCA(2), PCA(0.9), TruncatedSVD(2)], ids=repr)
@pytest.mark.parametrize(("rows", "dtype"), [(4, "float64"), (13, "float32")])
def test_few_rows_and_single_precision(worker, rows, dtype):
    frame = table(rows, offset=1.0, dtype=dtype)
    _, mine = fitted(frame, [2], worker)
    fits = Fits(worker, Cells(as_table(frame)), None)
    check_near(mine, fits.whole(), fits, "two parts")


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
