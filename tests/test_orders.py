"""However rows are drawn (in blocks, by class, weight or length), an epoch is the same on every machine, over any
number of ranks and from any start; and each row comes as often as it should."""

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDRegressor
from softmax_model import SoftmaxModel

import h3lab as h3
from h3lab.errors import DataError, UnknownName, UsageError
from h3lab.feeds import orders
from h3lab.feeds.feed import Feed
from h3lab.feeds.rows import Rows


def feed_of(count: int, seed: int = 0, parts: int = 1, view: bool = False) -> Feed:
    """Three classes, one of them rare; column 0 is the row, the others are as often non-zero as the row is long."""
    random = np.random.default_rng(seed)
    x = np.zeros((count, 9), np.float32)
    x[:, 0] = np.arange(1, count + 1)
    x[:, 1:] = np.arange(8) < random.integers(0, 9, count)[:, None]
    y = np.where(np.arange(count) % 10 == 0, 2, np.arange(count) % 2)
    whole = Feed.of(x, y, weight=random.integers(0, 4, count) + (np.arange(count) == 0), labels=[0, 1, 2])
    if parts > 1:
        cuts = np.linspace(0, count, parts + 1).astype(int)
        whole = Feed(Rows.of([whole.batch(slice(a, b)) for a, b in zip(cuts, cuts[1:])]), whole.spec)
    return whole.select(random.permutation(count)[: max(1, count // 2)]) if view else whole


def rows_of(batches) -> list[int]:
    return [int(row) - 1 for batch in batches for row in batch.x[:, 0]]


WAYS = st.fixed_dictionaries(
    {
        "shuffle": st.sampled_from(["rows", "blocks"]),
        "sampling": st.sampled_from([None, "balanced", "weighted"]),
        "bucket": st.sampled_from([None, True, "x"]),
    }
)
SHAPE = {
    "count": st.integers(1, 90),
    "parts": st.integers(1, 3),
    "view": st.booleans(),
    "batch_size": st.integers(1, 20),
    "way": WAYS,
    "number": st.integers(0, 3),
    "seed": st.integers(0, 3),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of some rows and windows of some blocks, as a feed larger than memory has."""
    monkeypatch.setattr(orders, "BLOCK_BYTES", 200)
    monkeypatch.setattr(orders, "WINDOW_BYTES", 900)
    monkeypatch.setattr(orders, "BUCKET_BATCHES", 3)


@settings(deadline=None, max_examples=80)
@given(**SHAPE, ranks=st.integers(1, 4), start=st.integers(0, 30))
def test_any_order_is_shared_and_resumed_without_gap_or_overlap(
    count, parts, view, batch_size, way, number, seed, ranks, start
):
    feed = feed_of(count, seed, parts, view)
    assume(way["sampling"] != "weighted" or feed.batch(slice(None)).weight.any())  # else an error: see below
    options = {"batch_size": batch_size, "seed": seed, **way}
    whole = [rows_of([batch]) for batch in feed.epoch(number, **options)]
    assert [len(batch) for batch in whole[:-1]] == [batch_size] * (len(whole) - 1)
    assert len(whole) == feed.steps(batch_size) and sum(map(len, whole)) == len(feed)
    assert [rows_of([b]) for b in feed.epoch(number, start=start, **options)] == whole[start:]
    shares = [list(feed.epoch(number, rank=r, ranks=ranks, start=start, **options)) for r in range(ranks)]
    for step, rows in enumerate(whole[start:]):
        assert sum((rows_of([share[step]]) for share in shares), []) == rows
        assert all(share[step].total == len(rows) for share in shares)


@settings(deadline=None, max_examples=60)
@given(**SHAPE)
def test_without_sampling_every_row_comes_once(count, parts, view, batch_size, way, number, seed):
    feed = feed_of(count, seed, parts, view)
    seen = rows_of(feed.epoch(number, batch_size=batch_size, seed=seed, **(way | {"sampling": None})))
    assert sorted(seen) == sorted(rows_of([feed.batch(slice(None))]))


@settings(deadline=None, max_examples=60)
@given(**SHAPE)
def test_a_drawn_row_comes_as_often_as_its_weight_says(count, parts, view, batch_size, way, number, seed):
    feed, sampling = feed_of(count, seed, parts, view), way["sampling"] or "balanced"
    batch = feed.batch(slice(None))
    assume(sampling != "weighted" or batch.weight.any())
    weights = batch.weight if sampling == "weighted" else 1 / np.bincount(batch.y, minlength=3)[batch.y]
    expected = len(feed) * weights / weights.sum()
    seen = rows_of(feed.epoch(number, batch_size=batch_size, seed=seed, **(way | {"sampling": sampling})))
    rows = rows_of([batch])
    counts = np.bincount(seen, minlength=count)[rows]
    assert (counts >= np.floor(expected - 1e-9)).all() and (counts <= np.ceil(expected + 1e-9)).all()


def test_over_epochs_the_draws_are_unbiased_and_independent():
    """Counts of 400 epochs against their expectation: a fixed seed, so the bound of five deviations holds for good."""
    weights = np.random.default_rng(1).random(50) * 3
    feed, epochs = Feed.of(np.arange(1, 51.0)[:, None]), 400
    counts = np.array([np.bincount(rows_of(feed.epoch(n, sampling=weights)), minlength=50) for n in range(epochs)])
    expected = 50 * weights / weights.sum()
    spread = np.sqrt(np.maximum(expected % 1 * (1 - expected % 1), 1e-9) / epochs)
    assert (np.abs(counts.mean(axis=0) - expected) < 5 * spread + 1e-9).all()
    together = np.corrcoef(counts[:, expected % 1 > 0.1].T)
    off = together[~np.eye(len(together), dtype=bool)]
    # Fixed sums alone make correlations of about -1 / rows.
    assert np.abs(off).max() < 5 / np.sqrt(epochs) and abs(off.mean() + 1 / len(together)) < 0.02


def test_balanced_classes_come_equally_often():
    feed = feed_of(200)
    for number in range(5):
        y = np.concatenate([batch.y for batch in feed.epoch(number, sampling="balanced")])
        assert np.ptp(np.bincount(y)) <= 1
    one = feed.select(feed.targets() != 2)  # a class without rows
    assert np.bincount(np.concatenate([b.y for b in one.epoch(0, sampling="balanced")])).tolist() == [90, 90]


def test_rows_drawn_by_their_weight_bring_none_along():
    feed = feed_of(30)
    assert all(batch.weight is None for batch in feed.epoch(0, sampling="weighted"))
    assert all(batch.weight is not None for batch in feed.epoch(0, sampling="balanced"))


def test_a_block_shuffle_mixes_windows_of_whole_blocks():
    order = orders.in_blocks(1000, block=10, window=5, number=0, seed=0)
    assert sorted(order) == list(range(1000))
    for begin in range(0, 900, 50):
        # The rows of a window are some runs of the feed: at most six pieces, the first and last block may be short.
        window = np.sort(order[begin : begin + 40])
        assert (np.diff(window) > 10).sum() <= 8
    again = orders.in_blocks(1000, block=10, window=5, number=1, seed=0)
    assert (order != again).any() and (np.diff(order) == 1).mean() < 0.1


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 6), st.integers(0, 9), st.integers(0, 9))
def test_blocks_are_a_permutation_whatever_their_size(count, block, window, number, seed):
    assert sorted(orders.in_blocks(count, block, window, number, seed)) == list(range(count))


def test_batches_of_a_bucket_are_of_similar_length(monkeypatch):
    monkeypatch.setattr(orders, "BUCKET_BATCHES", 64)
    x = sparse.random(2000, 300, 0.1, "csr", random_state=0)
    feed = Feed.of(x, np.arange(2000.0))
    lengths = np.diff(x.indptr)

    def spread(**options) -> float:
        return float(np.mean([np.ptp(lengths[b.y.astype(int)]) for b in feed.epoch(0, batch_size=20, **options)]))

    assert spread(bucket=True) < 0.1 * spread() and spread(bucket="x") == spread(bucket=lengths) == spread(bucket=True)
    shuffled = [lengths[b.y.astype(int)].mean() for b in feed.epoch(0, batch_size=20, bucket=True)]
    assert abs(np.corrcoef(shuffled, np.arange(len(shuffled)))[0, 1]) < 0.5, "short and long batches take turns"


def test_lengths_of_one_block_among_several():
    ones = np.tri(20, 20)
    feed = Feed.of({"words": ones, "other": np.ones((20, 2))}, np.arange(20.0))
    batches = [sorted(b.y.astype(int)) for b in feed.epoch(0, batch_size=5, bucket="words")]
    assert sorted(batches) != batches or all(np.ptp(rows) < 12 for rows in batches)
    with pytest.raises(UnknownName, match="words"):
        feed.epoch(0, bucket="wrods")


def test_a_stored_feed_larger_than_memory_says_that_it_is_shuffled_in_blocks(tmp_path, monkeypatch):
    memory = feed_of(90)
    stored = memory.store(tmp_path)
    monkeypatch.setenv("H3LAB_SHUFFLE_BYTES", "1000")
    with pytest.warns(UserWarning, match="shuffled in blocks: runs of .* rows .*shuffle='rows'"):
        rows = rows_of(stored.epoch(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rows == rows_of(stored.epoch(0, shuffle="blocks")) != rows_of(stored.epoch(0, shuffle="rows"))
        assert rows_of(memory.epoch(0)) == rows_of(stored.epoch(0, shuffle="rows")), "rows in memory need no blocks"
        monkeypatch.setenv("H3LAB_SHUFFLE_BYTES", "1e9")
        assert rows_of(stored.epoch(0)) == rows_of(stored.epoch(0, shuffle="rows"))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"shuffle": "row"}, UnknownName, "rows"),
        ({"sampling": "balance"}, UnknownName, "balanced"),
        ({"sampling": [1.0, 2.0]}, DataError, "2 weights came for 30 rows"),
        ({"sampling": np.zeros(30)}, DataError, "all weights"),
        ({"sampling": -np.ones(30)}, DataError, "negative"),
        ({"bucket": [1, 2]}, DataError, "a length a row"),
        ({"bucket": "pixels"}, UnknownName, "pixels"),
        ({"shuffle": False, "sampling": "balanced"}, UsageError, "shuffle=False"),
    ],
)
def test_wrong_orders_are_refused_at_once(options, error, match):
    with pytest.raises(error, match=match):
        feed_of(30).epoch(0, **options)


def test_what_a_feed_has_not_cannot_be_drawn_by():
    with pytest.raises(UsageError, match="no classes"):
        Feed.of(np.ones((3, 1)), [0.5, 1.5, 2.5]).epoch(0, sampling="balanced")
    with pytest.raises(UsageError, match="no weights"):
        Feed.of(np.ones((3, 1))).epoch(0, sampling="weighted")


# ---- Training


class Seen(SoftmaxModel):
    """Keeps which rows each step was given."""

    def step(self, batch, settings):
        self.__dict__.setdefault("seen", []).append(batch)
        return super().step(batch, settings)


def test_a_training_draws_as_its_settings_say():
    feed = feed_of(200)
    training = h3.train(h3.Actor("a", Seen()), feed, epochs=2, batch_size=16, sampling="balanced")
    records = list(training)
    classes = np.bincount(np.concatenate([batch.y for batch in training.model.seen]))
    assert len(records) == 2 * 13 and np.ptp(classes) <= 2
    expected = [rows_of([b]) for n in (1, 2) for b in feed.epoch(n, batch_size=16, sampling="balanced")]
    assert [[int(key) for key in b.keys] for b in training.model.seen] == [
        feed.batch(np.array(rows)).keys.tolist() for rows in expected
    ]


@pytest.mark.parametrize(
    "options",
    [{"sampling": "weighted"}, {"sampling": "balanced"}, {"bucket": True}, {"shuffle": "blocks"}, {"shuffle": False}],
    ids=str,
)
def test_a_training_goes_on_in_the_same_order(options):
    def training():
        return h3.train(h3.Actor("a", SoftmaxModel()), feed_of(120), epochs=3, batch_size=16, **options)

    def plain(records):
        return [{name: value for name, value in record.items() if name != "seconds"} for record in records]

    whole = plain(training())
    first, second = training(), training()
    before = [next(first) for _ in range(13)]
    second.restore(first.snapshot())
    assert plain(before) + plain(second) == whole


def test_a_snapshot_remembers_how_rows_were_shuffled(tmp_path, monkeypatch):
    """The machine that continues may have another memory, and must draw the rows that are left."""
    stored = feed_of(120).store(tmp_path)

    def training():
        return h3.train(h3.Actor("a", Seen()), stored, epochs=1, batch_size=16)

    monkeypatch.setenv("H3LAB_SHUFFLE_BYTES", "1000")
    with pytest.warns(UserWarning, match="in blocks"):
        first = training()
    for _ in range(3):
        next(first)
    tree = first.snapshot()
    monkeypatch.setenv("H3LAB_SHUFFLE_BYTES", "1e9")
    second = training()
    second.restore(tree)
    list(second)
    assert sorted(rows_of([*first.model.seen, *second.model.seen])) == list(range(120))


def training_of(feed: Feed, **options):
    return h3.train(h3.Actor("a", Seen()), feed, **{"epochs": 2, "batch_size": 16, "seed": 3} | options)


def after(steps: int, feed: Feed, **options) -> tuple[list[int], dict]:
    """(the rows that a training has seen after so many steps, its snapshot then)"""
    first = training_of(feed, **options)
    for _ in range(steps):
        next(first)
    return rows_of(first.model.seen), first.snapshot()


OTHERS = [{"batch_size": 20}, {"seed": 4}, {"sampling": "balanced"}, {"bucket": True}, {"shuffle": False}]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_within_an_epoch_no_row_is_left_out_by_another_order(other):
    feed = feed_of(120)
    _, tree = after(3, feed)
    ((name, value),) = other.items()
    with pytest.raises(UsageError, match=rf"this training has {name}={value!r}.* after batch 3 of 8 of epoch 1"):
        training_of(feed, **other).restore(tree)
    _, tree = after(3, feed, **other)
    with pytest.raises(UsageError, match=rf"of one with {name}={value!r}: rows would be left out"):
        training_of(feed).restore(tree)


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_after_an_epoch_the_next_may_come_in_another_order(other):
    feed = feed_of(120)
    before, tree = after(8, feed)
    second = training_of(feed, **other)
    second.restore(tree)
    records = list(second)
    assert sorted(before) == list(range(120)), "all rows of the first epoch"
    alone = feed.epoch(2, **{"batch_size": 16, "seed": 3} | other)
    assert rows_of(second.model.seen) == rows_of(alone), "and the second as it is drawn by itself"
    assert [record["epoch"] for record in records] == [2] * feed.steps(other.get("batch_size", 16))
    assert records[0]["step"] == 9


def test_other_rows_are_refused_though_they_are_as_many(tmp_path):
    feed = feed_of(120)
    for other in (feed_of(120, seed=1), feed_of(120, parts=2)):
        with pytest.raises(UsageError, match="other rows.*with as many rows.*start="):
            training_of(other).restore(after(3, feed)[1])
    view, same = (feed.select(slice(0, 100)) for _ in range(2))
    training_of(same).restore(after(3, view)[1])
    with pytest.raises(UsageError, match="other rows"):
        training_of(feed.select(slice(20, 120))).restore(after(3, view)[1])
    stored = feed.store(tmp_path)
    training_of(h3.open_feed(tmp_path)).restore(after(3, stored)[1])


def test_a_model_of_all_rows_has_no_order_to_keep():
    def training(**options):
        return h3.train(h3.Actor("f", RandomForestClassifier(4)), feed_of(60), **options)

    first, second = training(batch_size=16), training(batch_size=20)
    next(first)
    second.restore(first.snapshot())
    assert second.step == 1 and len(list(second)) == len(list(first))


def test_trainings_refuse_what_makes_no_sense():
    actor, feed = h3.Actor("a", SoftmaxModel()), feed_of(60)
    with pytest.raises(UsageError, match="count twice"):
        h3.train(actor, feed, sampling="balanced", class_weight="balanced")
    with pytest.raises(UsageError, match="feed.epoch"):
        h3.train(actor, feed, sampling=np.ones(60))
    with pytest.raises(UnknownName, match="balanced"):
        h3.train(actor, feed, sampling="balancd")
    with pytest.raises(UsageError, match="all rows at once"):
        h3.train(h3.Actor("b", LogisticRegression()), feed, sampling="balanced")
    with pytest.raises(UsageError, match="no classes"):
        h3.train(h3.Actor("c", SGDRegressor()), Feed.of(np.ones((9, 1)), np.arange(9.0)), sampling="balanced")
