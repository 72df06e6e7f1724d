"""A batch knows its rows in each of its forms."""

import numpy as np
import pytest
from scipy import sparse

from h3lab.batch import Batch, dense, free_memory, rows_of, take
from h3lab.errors import DataError
from h3lab.feeds.rows import batch_of, columns


def forms() -> dict[str, object]:
    dense = np.arange(12.0).reshape(4, 3)
    return {"dense": dense, "sparse": sparse.csr_matrix(dense), "blocks": {"a": dense, "b": sparse.csr_matrix(dense)}}


@pytest.mark.parametrize("form", forms())
def test_rows_are_counted_and_taken(form):
    x = forms()[form]
    batch = Batch(x, np.arange(4), np.ones(4), np.zeros((4, 2)), np.arange(4, dtype=np.uint64))
    assert len(batch) == rows_of(x) == 4
    for index in (slice(1, 3), [3, 0], np.array([True, False, True, False])):
        some = batch.take(index)
        assert len(some) == len(np.arange(4)[index])
        assert np.array_equal(some.y, np.arange(4)[index])
        assert some.soft.shape == (len(some), 2)
        assert np.array_equal(some.keys, some.y.astype(np.uint64))


def test_a_slice_of_a_dense_input_is_a_view():
    x = np.zeros((4, 2))
    take(x, slice(0, 2))[:] = 1
    assert x.sum() == 4


def test_soft_targets_are_added_beside_the_rest():
    batch = Batch(np.zeros((2, 1)), np.array([0, 1]))
    taught = batch.with_soft(np.ones((2, 3)))
    assert taught.soft.shape == (2, 3) and taught.y is batch.y and batch.soft is None


@pytest.mark.parametrize("form", forms())
def test_its_arrays_have_names(form):
    batch = Batch(forms()[form], np.arange(4))
    named = columns(batch)
    assert set(named) == ({"x/a", "x/b", "y"} if form == "blocks" else {"x", "y"})
    again = batch_of(named, total=9)
    assert columns(again).keys() == named.keys() and again.total == 9
    assert all(columns(again)[name] is column for name, column in named.items())


def test_it_is_frozen():
    with pytest.raises(AttributeError):
        Batch(np.zeros((1, 1))).y = None


def test_sparse_inputs_become_dense_and_dense_ones_stay():
    given = np.arange(12.0, dtype=np.float32).reshape(4, 3)
    made = dense({"a": sparse.csr_matrix(given), "b": given})
    assert made["b"] is given and np.array_equal(made["a"], given) and made["a"].dtype == np.float32
    assert dense(given) is given
    assert np.array_equal(dense(sparse.csr_matrix(given), limit_bytes=48), given)


def test_what_does_not_fit_is_said_before_memory_is_taken():
    wide = sparse.csr_matrix((np.ones(1, np.float32), ([0], [0])), shape=(1_000_000, 50_000))
    with pytest.raises(DataError, match="1,000,000 rows of 50,000 sparse columns.*need 186.26 GiB.*TruncatedSVD"):
        dense(wide)
    with pytest.raises(DataError, match="and 0.00 GiB may be used"):
        dense(sparse.csr_matrix(np.eye(4, dtype=np.float32)), limit_bytes=63)
    assert 2**20 < free_memory() < 2**50
