"""Rows over parts: whatever the cut, the same rows come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from h3lab.batch import Batch
from h3lab.feeds.rows import Rows, columns, concatenate, identity, is_sparse


def whole(count: int, form: str) -> Batch:
    rng = np.random.default_rng(count)
    dense = rng.random((count, 3), np.float32)
    thin = sparse.csr_matrix(np.where(dense > 0.5, dense, 0))
    x = {"dense": dense, "sparse": thin, "blocks": {"a": dense.reshape(count, 3, 1), "b": thin}}[form]
    return Batch(x, np.arange(count), rng.random(count), rng.random((count, 2)), np.arange(count, dtype=np.uint64))


def same(one: Batch, two: Batch) -> bool:
    a, b = columns(one), columns(two)
    return list(a) == list(b) and all(
        (a[n] != b[n]).nnz == 0 and a[n].shape == b[n].shape
        if is_sparse(a[n])
        else np.array_equal(a[n], b[n]) and a[n].dtype == b[n].dtype
        for n in a
    )


def cut(batch: Batch, cuts: list[int]) -> Rows:
    edges = [0, *sorted(min(c, len(batch)) for c in cuts), len(batch)]
    return Rows.of([batch.take(slice(a, b)) for a, b in zip(edges, edges[1:])])


INDEX = st.one_of(
    st.tuples(st.integers(-30, 30), st.integers(-30, 30), st.sampled_from([1, 2, 3, -1])).map(lambda t: slice(*t)),
    st.lists(st.integers(0, 10**6), max_size=30),
    st.integers(0, 2**20 - 1),
)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 20), st.lists(st.integers(0, 20), max_size=4), st.sampled_from(["dense", "sparse", "blocks"]), INDEX
)
def test_rows_do_not_depend_on_the_cut(count, cuts, form, index):
    batch = whole(count, form)
    if isinstance(index, list):
        index = [i % count - (count if i % 3 == 0 else 0) for i in index]
    elif isinstance(index, int):
        index = np.array([index >> i & 1 == 1 for i in range(count)])
    rows = cut(batch, cuts)
    at = np.arange(count)[index if isinstance(index, slice) else np.asarray(index, dtype=None if len(index) else int)]
    assert len(rows) == count
    assert same(rows.take(index), batch.take(at))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 20), st.lists(st.integers(0, 20), max_size=4), st.data())
def test_buffers_are_filled_with_the_same_rows(count, cuts, data):
    batch, buffers = whole(count, "blocks"), {}
    rows = cut(batch, cuts)
    for _ in range(3):
        at = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=20)), dtype=np.int64)
        assert same(rows.gather(at, buffers), batch.take(at))


def test_taken_rows_own_their_data():
    batch = whole(6, "dense")
    rows = cut(batch, [3])
    for index in (slice(0, 2), slice(2, 4), [0], slice(None, None, 2)):
        taken = rows.take(index)
        for column in columns(taken).values():
            column[...] = 0
    assert same(rows.take(slice(None)), whole(6, "dense"))


def test_a_run_within_a_part_can_be_a_view():
    rows = cut(whole(6, "dense"), [3])
    assert np.shares_memory(rows.run(3, 5, copy=False).x, rows.parts[1].x)
    assert not np.shares_memory(rows.run(3, 5, copy=True).x, rows.parts[1].x)


@pytest.mark.parametrize(
    ("index", "words"), [([6], "row 6"), ([-7], "row -7"), ([True], "mask of 1"), ([0.5], "float64")]
)
def test_rows_out_of_range_are_named(index, words):
    with pytest.raises(IndexError, match=words):
        cut(whole(6, "dense"), [3]).take(index)


def test_column_reads_one_array_of_all_parts():
    rows = cut(whole(6, "dense"), [1, 1, 4])
    assert rows.column("y").tolist() == list(range(6))
    assert rows.column("no such") is None


def test_identity_tells_rows_types_and_names_apart():
    one = whole(6, "dense")
    assert identity(one) == identity(whole(6, "dense"))
    others = [
        one.take(slice(0, 5)),
        one.take([1, 0, 2, 3, 4, 5]),
        Batch(one.x.astype(np.float64), one.y, one.weight, one.soft, one.keys),
        Batch(one.x, one.y, one.soft, one.weight, one.keys),
        Batch(one.x, one.y, None, one.soft, one.keys),
        Batch({"x": one.x}, one.y, one.weight, one.soft, one.keys),
        whole(6, "sparse"),
    ]
    assert len({identity(batch) for batch in [one, *others]}) == len(others) + 1


def test_large_parts_are_cut_small_ones_kept():
    rows = cut(whole(20, "dense"), [3, 3])
    assert list(rows.cuts(5)) == [(0, 3), (3, 3), (3, 8), (8, 13), (13, 18), (18, 20)]
    assert list(rows.cuts(10)) == [(0, 3), (3, 3), (3, 20)]


def test_concatenate_owns_its_data():
    batch = whole(4, "dense")
    assert not np.shares_memory(concatenate([batch]).x, batch.x)
