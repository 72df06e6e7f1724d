"""X and y as users give them: scikit-learn's conventions, and errors that say what to do."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from h3lab.errors import DataError
from h3lab.feeds.feed import Feed

X = np.arange(12.0).reshape(6, 2)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@pytest.mark.parametrize(
    ("y", "labels"),
    [
        (["b", "a", "b", "a", "c", "a"], ("a", "b", "c")),
        (np.array(["b", "a"] * 3, dtype=object), ("a", "b")),
        (pd.Series(["b", "a"] * 3), ("a", "b")),
        (pd.Series(["b", "a"] * 3, dtype="category"), ("a", "b")),
        (pd.Series([0.5, 1.5] * 3, dtype="category"), (0.5, 1.5)),
        ([True, False] * 3, (False, True)),
        ([3, 1, 3, 1, 2, 2], (1, 2, 3)),
        (np.array([3, 1] * 3, dtype=np.uint8), (1, 3)),
        (np.array([[3], [1]] * 3), (1, 3)),
        ([-1, 1] * 3, (-1, 1)),
    ],
)
def test_strings_booleans_categories_and_integers_are_classes(y, labels):
    feed = Feed.of(X, y)
    assert feed.spec.task == "classification" and feed.spec.labels == labels
    assert feed.spec.classes == feed.spec.outputs == len(labels)
    codes = feed.batch(slice(None)).y
    assert codes.dtype == np.int64 and codes.shape == (6,)
    given = np.asarray(y).ravel()
    decoded = feed.arrays()[1]
    assert decoded.tolist() == given.tolist()
    assert decoded.dtype == given.dtype or given.dtype == object


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@pytest.mark.parametrize("y", [[0.0, 1.0] * 3, np.array([0.5, 1] * 3, np.float32), np.array([[1.0], [2.0]] * 3)])
def test_floats_are_quantities_even_where_they_are_whole(y):
    feed = Feed.of(X, y)
    assert (feed.spec.task, feed.spec.outputs, feed.spec.classes, feed.spec.labels) == ("regression", 1, None, None)
    assert feed.batch(slice(None)).y.tolist() == np.asarray(y).ravel().tolist()


def test_several_targets_are_a_regression():
    feed = Feed.of(X, np.ones((6, 3)))
    assert feed.spec.outputs == 3 and feed.arrays()[1].shape == (6, 3)


def test_task_wins():
    assert Feed.of(X, [1.0, 2.0] * 3, task="classification").spec.labels == (1.0, 2.0)
    assert Feed.of(X, [1, 2] * 3, task="regression").batch(slice(None)).y.dtype == np.float64
    assert Feed.of(X, ["1", "2.5"] * 3, task="regression").arrays()[1].tolist() == [1, 2.5] * 3
    assert Feed.of(X, np.ones((6, 2), int), task="regression").spec.outputs == 2


def test_given_labels_are_the_classes():
    feed = Feed.of(X, ["a", "b"] * 3, labels=["c", "b", "a"])
    assert feed.spec.labels == ("a", "b", "c") and feed.batch(slice(None)).y.tolist() == [0, 1] * 3
    with pytest.raises(DataError, match=r"know: b\."):
        Feed.of(X, ["a", "b"] * 3, labels=["a"])


def test_without_labels_there_is_no_output():
    feed = Feed.of(X)
    assert feed.spec.outputs == 0 and feed.arrays()[1] is None and "no label" in repr(feed)
    known = Feed.of(X, labels=["a", "b"])
    assert (known.spec.task, known.spec.classes, known.batch([0]).y) == ("classification", 2, None)


def test_many_integers_are_doubted():
    with pytest.warns(UserWarning, match="200 different integers"):
        Feed.of(np.zeros((200, 1)), np.arange(200))
    Feed.of(np.zeros((200, 1)), np.arange(200), task="classification")
    Feed.of(np.zeros((100, 1)), np.arange(100))


@pytest.mark.parametrize(
    ("x", "shape", "features", "dtype"),
    [
        (X.tolist(), (2,), 2, "float64"),
        (np.zeros((6, 4, 3, 2), np.uint8), (4, 3, 2), 24, "uint8"),
        (np.zeros((6, 2), bool), (2,), 2, "bool"),
        (np.asfortranarray(X), (2,), 2, "float64"),
        (X.astype(">f4"), (2,), 2, "float32"),
        (X[::-1], (2,), 2, "float64"),
        (X.astype(object), (2,), 2, "float64"),
        (sparse.csr_matrix(X), (2,), 2, "float64"),
        (sparse.coo_array(X), (2,), 2, "float64"),
        (pd.DataFrame(X), (2,), 2, "float64"),
        ({"a": X, "b": sparse.csc_matrix(X)}, (4,), 4, None),
    ],
)
def test_inputs_of_every_form(x, shape, features, dtype):
    feed = Feed.of(x, np.zeros(6))
    assert (feed.spec.shape, feed.spec.features) == (shape, features)
    if dtype:
        assert feed.spec.blocks["x"].dtype == dtype
    seen = feed.batch(slice(None)).x
    seen = seen["a"] if isinstance(seen, dict) else seen
    given = x["a"] if isinstance(x, dict) else x
    given = given.toarray() if sparse.issparse(given) else np.asarray(given, dtype=float)
    assert np.array_equal(seen.toarray() if sparse.issparse(seen) else seen, given)
    assert next(feed.epoch(0)).x is not None


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (X, [1, 2], r"6 rows.*y has 2"),
        (X, np.array([0.5, np.nan] * 3), r"NaN or infinity: 3 values, the first in row 1"),
        (X, np.array([0.5, np.inf] * 3), "NaN or infinity"),
        (X, ["a", None] * 3, "misses 3 of 6 labels, the first in row 1"),
        (X, np.array(["a", np.nan] * 3, dtype=object), "misses 3"),
        (X, ["a", 1] * 3, "mixes text and numbers"),
        (X, np.array(["a", 1] * 3, dtype=object), "mixes text and numbers"),
        (X, np.ones((6, 2), int), "one column a feed"),
        (X, np.ones((6, 2, 2)), r"shape \(6, 2, 2\)"),
        (X, np.ones(6, complex), "complex"),
        (np.zeros((0, 2)), [], "no rows"),
        (np.arange(6.0), np.ones(6), r"reshape\(-1, 1\)"),
        (np.array(3.0), np.ones(6), "scalar"),
        (np.ma.masked_less(X, 1.0), np.ones(6), "X is a masked array with . masked values"),
        (X, np.ma.masked_array([0, 1] * 3, mask=[1, 0] * 3), "y is a masked array with 3 masked values"),
        (np.array([["a", "b"]] * 6), np.ones(6), "Pipeline"),
        (np.array([["a", 1]] * 6, dtype=object), np.ones(6), "Pipeline"),
        ({}, np.ones(6), "at least one block"),
        ({"a": X, "b": X[:3]}, np.ones(6), "different numbers of rows"),
    ],
)
def test_wrong_arrays_are_explained(x, y, words):
    if words is None:  # NumPy itself makes text of such a list
        assert Feed.of(x, y).spec.labels == ("1", "a")
        return
    with pytest.raises(DataError, match=words):
        Feed.of(x, y)


def test_quantities_are_no_classes():
    with pytest.raises(DataError, match="Unknown label type: continuous"):
        Feed.of(X, [0.5, 1] * 3, task="classification")
    with pytest.raises(DataError, match="needs numbers"):
        Feed.of(X, ["a", "b"] * 3, task="regression")


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        ([1.0] * 5, "weight has 5"),
        ([1.0, np.nan] * 3, "missing"),
        ([1.0, -1.0] * 3, "negative"),
        (np.ones((6, 2)), r"\(6, 2\)"),
    ],
)
def test_wrong_weights_are_explained(weight, words):
    with pytest.raises(DataError, match=words):
        Feed.of(X, np.ones(6), weight=weight)


def test_weights_and_keys_come_along():
    feed = Feed.of(X, np.ones(6), weight=np.arange(6), keys=np.arange(6) + 10)
    batch = feed.batch([5, 0])
    assert batch.weight.tolist() == [5, 0] and batch.keys.tolist() == [15, 10] and batch.keys.dtype == np.uint64
