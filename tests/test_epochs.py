"""Every epoch is an exact permutation, the same on every machine, in any number of ranks, from any start."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from h3lab.feeds import epochs, orders
from h3lab.feeds.feed import Feed


def feed_of(count: int, form: str = "dense") -> Feed:
    x = np.stack([np.arange(count), -np.arange(count)], axis=1).astype(np.float32)
    if form == "sparse":
        x = sparse.csr_matrix(x)
    if form == "blocks":
        x = {"a": x, "b": sparse.csr_matrix(x)}
    return Feed.of(x, np.arange(count).astype(float), weight=np.arange(count))


def order(batches) -> list[int]:
    """The rows of batches; checks that x, weight and keys are of the same rows."""
    found = []
    for batch in batches:
        x = batch.x["b"] if isinstance(batch.x, dict) else batch.x
        x = x.toarray() if sparse.issparse(x) else x
        assert x[:, 0].tolist() == batch.y.tolist() == batch.weight.tolist() == (-x[:, 1]).tolist()
        if isinstance(batch.x, dict):
            assert np.array_equal(batch.x["a"], x)
        found += batch.y.astype(int).tolist()
    return found


SHAPE = {
    "count": st.integers(1, 60),
    "batch_size": st.integers(1, 25),
    "seed": st.integers(0, 5),
    "number": st.integers(0, 5),
    "form": st.sampled_from(["dense", "sparse", "blocks"]),
    "shuffle": st.booleans(),
    "copy": st.booleans(),
}


@pytest.fixture(autouse=True, params=[1, 100, 1 << 20], ids="chunk{}".format)
def chunk(request, monkeypatch):
    """Rows are gathered some batches at a time; the epoch must not know how many."""
    monkeypatch.setattr(epochs, "CHUNK_BYTES", request.param)


@settings(deadline=None, max_examples=40)
@given(**SHAPE)
def test_an_epoch_sees_each_row_once(count, batch_size, seed, number, form, shuffle, copy):
    feed = feed_of(count, form)
    batches = feed.epoch(number, batch_size=batch_size, shuffle=shuffle, seed=seed, copy=copy)
    sizes, seen = [], []
    for batch in batches:
        sizes.append(len(batch))
        assert batch.total == len(batch)
        seen += order([batch])
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number]))).permutation(count)
    assert seen == (expected.tolist() if shuffle else list(range(count)))
    assert len(sizes) == feed.steps(batch_size) and all(size == batch_size for size in sizes[:-1])


@settings(deadline=None, max_examples=40)
@given(**SHAPE, start=st.integers(0, 70))
def test_resumed_anywhere_it_goes_on_as_if_never_stopped(count, batch_size, seed, number, form, shuffle, copy, start):
    feed = feed_of(count, form)
    options = {"batch_size": batch_size, "seed": seed, "shuffle": shuffle, "copy": copy}
    whole = order(feed.epoch(number, **options))
    assert order(feed.epoch(number, start=start, **options)) == whole[start * batch_size :]


@settings(deadline=None, max_examples=40)
@given(**SHAPE, ranks=st.integers(1, 7))
def test_shares_are_disjoint_complete_and_contiguous(count, batch_size, seed, number, form, shuffle, copy, ranks):
    feed = feed_of(count, form)
    options = {"batch_size": batch_size, "seed": seed, "shuffle": shuffle}
    whole = [order([b]) for b in feed.epoch(number, **options)]
    shares = [list(feed.epoch(number, rank=r, ranks=ranks, **options)) for r in range(ranks)]
    reused = [[order([b]) for b in feed.epoch(number, rank=r, ranks=ranks, copy=copy, **options)] for r in range(ranks)]
    assert [len(share) for share in shares] == [len(whole)] * ranks
    for step, rows in enumerate(whole):
        lengths = [len(share[step]) for share in shares]
        assert sum((order([share[step]]) for share in shares), []) == rows
        assert sum((share[step] for share in reused), []) == rows
        assert max(lengths) - min(lengths) <= 1
        assert all(share[step].total == len(rows) for share in shares)


def test_seeds_and_epochs_differ():
    feed = feed_of(50)
    orders = {tuple(order(feed.epoch(n, seed=s))) for n in range(4) for s in range(4)}
    assert len(orders) == 16


def test_the_order_is_the_same_in_any_version():
    # From a run of its own: another order would make old runs irreproducible.
    assert orders.permutation(10, number=3, seed=7).tolist() == [3, 5, 4, 7, 8, 0, 9, 2, 1, 6]


@pytest.mark.parametrize("shuffle", [True, False])
def test_public_batches_own_their_data(shuffle):
    feed = feed_of(20)
    for batch in (batches := list(feed.epoch(0, batch_size=4, shuffle=shuffle))):
        batch.x[:] = 0
        batch.y[:] = -1
    assert all((batch.x == 0).all() for batch in batches)
    assert sorted(order(feed.epoch(0))) == list(range(20))


@pytest.mark.parametrize("shuffle", [True, False])
def test_reused_batches_are_writable_and_leave_the_rows_alone(shuffle, tmp_path):
    stored = feed_of(20).store(tmp_path)
    for batch in stored.epoch(0, batch_size=8, shuffle=shuffle, copy=False):
        assert batch.x.flags.writeable and batch.y.flags.writeable and batch.weight.flags.writeable


def test_a_view_is_iterated_in_its_own_order():
    view = feed_of(20).select([7, 3, 11])
    assert order(view.epoch(0, shuffle=False)) == [7, 3, 11]
    assert sorted(order(view.epoch(0, batch_size=2))) == [3, 7, 11]
