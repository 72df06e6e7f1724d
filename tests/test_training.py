"""The loop: what its records hold, that it can be stopped, steered and continued, and what it refuses."""

import itertools
import os

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import f1_score
from threadpoolctl import threadpool_info, threadpool_limits
from torch import nn

from h3lab.actor import Actor
from h3lab.backends._torch import TorchModel
from h3lab.errors import DataError, NonFiniteLoss, SpecMismatch, UnknownName, UsageError
from h3lab.feeds.feed import Feed
from h3lab.serial import codec
from h3lab.training.loop import train

DIGITS, CLASSES = load_digits(return_X_y=True)
X, y = (DIGITS[:300] / 16).astype(np.float32), CLASSES[:300]


def network(spec):
    return nn.Sequential(nn.Linear(spec.features, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, spec.outputs))


def actor(name="digits", **settings):
    return Actor(name, TorchModel(network, lr=0.01), **{"epochs": 3, **settings})


def timeless(records):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def same(one, two):
    return one.keys() == two.keys() and all(np.array_equal(value, two[name]) for name, value in one.items())


# ---- Records


def test_a_record_a_step_and_validation_in_the_last_of_an_epoch():
    training = train(actor(), (X, y), batch_size=64, validation=0.2, metrics=["f1_macro"])
    records = list(training)
    steps = len(records) // 3
    assert steps == -(-len(training.feed) // 64) and training.total_steps == len(records)
    assert [record["step"] for record in records] == list(range(1, 3 * steps + 1))
    assert [record["epoch"] for record in records] == [epoch for epoch in (1, 2, 3) for _ in range(steps)]
    seconds = [record["seconds"] for record in records]
    assert seconds == sorted(seconds) and seconds[0] > 0
    for record in records:
        assert {"loss", "accuracy"} <= record.keys()
        measured = {"val_loss", "val_accuracy", "val_f1_macro"}
        assert record.keys() & measured == (measured if record["step"] % steps == 0 else set())
        assert all(type(value) in (int, float) for value in record.values())
    assert records[-1]["val_loss"] < records[steps - 1]["val_loss"]
    assert next(training, None) is None


def test_validation_measures_what_the_actor_says():
    held = (X[200:], y[200:])
    last = list(train(one := actor(), (X[:200], y[:200]), validation=held, metrics=[f1]))[-1]
    assert last["val_accuracy"] == pytest.approx(one.score(*held))
    p = one.predict_proba(held[0])
    assert last["val_loss"] == pytest.approx(-np.log(p[np.arange(100), held[1]]).mean(), rel=1e-5)
    assert last["val_f1"] == pytest.approx(f1(held[1], one.predict(held[0])))
    assert one.evaluate(*held)["loss"] == pytest.approx(last["val_loss"])


def f1(y, predicted):
    return f1_score(y, predicted, average="macro")


def test_a_regression_is_validated_by_its_squared_error():
    target = X.sum(1)
    last = list(train(one := actor(), (X, target), validation=(X, target), metrics=["r2"]))[-1]
    assert last["val_loss"] == pytest.approx(np.mean((one.predict(X) - target) ** 2), rel=1e-5)
    assert last["val_r2"] == pytest.approx(one.score(X, target), rel=1e-5) and "val_accuracy" not in last


def smooth(outputs, y):
    return nn.functional.cross_entropy(outputs, y, label_smoothing=0.3, reduction="none")


@pytest.mark.parametrize("loss", [smooth, nn.CrossEntropyLoss(label_smoothing=0.3), "hinge"])
def test_validation_measures_the_loss_that_is_trained(loss):
    still = Actor(
        "still", TorchModel(lambda spec: nn.Linear(64, 10), lr=0.0, loss=loss), epochs=1, metrics=["accuracy"]
    )
    (record,) = train(still, (X, y), batch_size=300, validation=(X, y))
    assert record["val_loss"] == pytest.approx(record["loss"], rel=1e-5)
    assert still.evaluate(X, y)["loss"] == pytest.approx(record["loss"], rel=1e-5)
    assert record["val_accuracy"] == pytest.approx(record["accuracy"])


def test_weights_of_validation_rows_count():
    weight = np.where(np.arange(300) < 100, 0.0, 1.0)
    last = list(train(one := actor(), (X, y), validation=Feed.of(X, y, weight=weight)))[-1]
    assert last["val_accuracy"] == pytest.approx(one.score(X[100:], y[100:]))


# ---- Equal bits


def test_the_same_seed_gives_the_same_bits_and_another_gives_others():
    one, two, other = actor(), actor(), actor(seed=1)
    runs = [timeless(train(each, (X, y), validation=0.2)) for each in (one, two, other)]
    assert runs[0] == runs[1] != runs[2]
    assert same(one.model_.parameters(), two.model_.parameters())


def test_a_stored_feed_gives_the_same_bits(tmp_path):
    feed = Feed.of(X, y)
    one, two = actor(), actor()
    assert timeless(train(one, feed)) == timeless(train(two, feed.store(tmp_path / "feed")))
    assert same(one.model_.parameters(), two.model_.parameters())


def test_two_trainings_in_turn_are_as_two_alone():
    alone = [timeless(train(actor(), (X, y), lr=lr)) for lr in (0.01, 0.1)]
    turns = zip(train(actor("a"), (X, y), lr=0.01), train(actor("b"), (X, y), lr=0.1), strict=True)
    assert [timeless(each) for each in zip(*turns, strict=True)] == alone


@pytest.mark.parametrize("at", [1, 4, 5, 7, 11, 12])
def test_it_goes_on_from_a_snapshot_as_if_it_had_not_stopped(at):
    settings = {"validation": 0.2, "patience": 2, "batch_size": 60, "class_weight": "balanced", "epochs": 3}
    data = (X, y, np.linspace(0.5, 1.5, len(y)))
    whole = timeless(train(full := actor(), data, **settings))
    first = train(actor(), data, **settings)
    before = timeless(itertools.islice(first, at))
    tree = codec.unpack(codec.pack(first.snapshot()))
    first.stop()
    second = train(resumed := actor(), data, **settings)
    second.restore(tree)
    assert before + timeless(second) == whole
    assert same(full.model_.parameters(), resumed.model_.parameters())
    assert second.step == len(whole) == 12 and first.stopped_at == (at if at < 12 else None)


def test_a_snapshot_keeps_settings_and_time():
    first = train(actor(), (X, y))
    next(first)
    first.settings = first.settings.replace(lr=0.5)
    last = next(first)
    second = train(actor(), (X, y))
    second.restore(first.snapshot())
    assert second.settings.lr == 0.5
    assert next(second)["seconds"] >= last["seconds"]


def test_a_snapshot_fits_its_rows_and_a_new_training_alone():
    first = train(actor(), (X, y))
    next(first)
    with pytest.raises(UsageError, match="300 rows; this feed has 299"):
        train(actor(), (X[1:], y[1:])).restore(first.snapshot())
    with pytest.raises(UsageError, match="has begun"):
        first.restore(first.snapshot())


def test_start_continues_with_what_another_learned():
    taught = actor().fit(X, y)
    fresh = next(train(actor(), (X, y)))
    begun = next(train(other := actor(seed=5), (X, y), start=taught))
    assert begun["loss"] < fresh["loss"] - 0.3 and other.model_ is not taught.model_
    list(train(taught, (X, y), start=taught))
    with pytest.raises(UsageError, match="expected an actor that has learned"):
        next(train(actor(), (X, y), start=actor()))


# ---- Steering


def test_settings_are_read_once_a_step_and_frozen():
    training = train(actor(), (X, y))
    before = (next(training), training.model.parameters())[1]
    training.settings = training.settings.replace(lr=0.0)
    next(training)
    assert same(before, training.model.parameters())
    with pytest.raises(AttributeError):
        training.settings.lr = 1.0
    with pytest.raises(UnknownName, match="Did you mean 'lr'"):
        training.settings.replace(Ir=1.0)


def test_before_step_may_change_the_settings_of_that_step():
    rates, told = [], []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    def steer(training):
        told.append(training.step)
        if training.step == 2:
            training.settings = training.settings.replace(lr=0.5)

    model = TorchModel(network, lr=0.1, optimizer=lambda parameters, lr: Watched(parameters, lr=lr))
    training = train(Actor("watched", model), (X, y), epochs=1)
    training.before_step = steer
    list(training)
    assert told == [0, 1, 2, 3, 4] and rates == [0.1, 0.1, 0.5, 0.5, 0.5]


def test_stopping_keeps_what_was_learned():
    training = train(one := actor(), (X, y), epochs=1000)
    for record in training:
        if record["step"] == 30:
            break
    assert one.score(X, y) > 0.5  # the actor answers in mid-training
    kept = training.model.parameters()
    training.stop()
    training.close()
    assert training.stopped_at == 30 and "stopped at epoch 6" in repr(training)
    assert next(training, None) is None and same(kept, one.model_.parameters())


def test_stopping_before_the_first_step():
    training = train(one := actor(), (X, y))
    training.stop()
    assert list(training) == [] and training.stopped_at == 0 and not one.learned


def test_its_repr_says_how_to_iterate_it():
    training = train(actor(), (X, y))
    assert repr(training) == "Training of 'digits': 3 epochs of 5 steps. Iterate it: for record in training: ..."
    next(training)
    assert repr(training).startswith("Training of 'digits': training at epoch 1 of 3 epochs of 5 steps, step 1, loss ")
    list(training)
    assert "finished at epoch 3" in repr(training)


# ---- Patience


def test_with_patience_the_best_epoch_is_kept():
    training = train(one := actor(), (X[:60], y[:60]), validation=(X[60:], y[60:]), epochs=60, lr=0.3, patience=3)
    values = [record["val_loss"] for record in training if "val_loss" in record]
    best = int(np.argmin(values))
    assert best < len(values) - 1 and len(values) == min(best + 1 + 3, 60)
    assert one.evaluate(X[60:], y[60:])["loss"] == pytest.approx(values[best], rel=1e-6)
    assert training.stopped_at is None


def test_patience_with_a_metric_that_rises_and_one_that_is_not_there():
    settings = {"validation": 0.3, "epochs": 40, "lr": 0.2}
    scores = [
        r["val_accuracy"]
        for r in train(actor(), (X, y), monitor="val_accuracy", patience=2, **settings)
        if "val_loss" in r
    ]
    assert len(scores) < 40 and max(scores) == scores[-3] and max(scores) > scores[0]
    with pytest.raises(UnknownName, match="Did you mean 'val_accuracy'"):
        list(train(actor(), (X, y), monitor="val_acuracy", patience=2, **settings))
    with pytest.raises(UsageError, match="no rows to validate on"):
        train(actor(), (X, y), patience=2)
    falling = [r["loss"] for r in train(actor(), (X, y), monitor="loss", patience=1, epochs=500, batch_size=300)]
    assert len(falling) < 500


# ---- Models that see all rows at once


def test_a_whole_fit_is_one_record():
    (record,) = train(one := Actor("whole", LogisticRegression(max_iter=1000)), (X, y), validation=0.2, epochs=7)
    assert (record["step"], record["epoch"]) == (1, 1) and record["val_accuracy"] > 0.8
    assert one.native.coef_.shape == (10, 64)


@pytest.mark.parametrize(("epochs", "expected"), [(None, 6), (4, 4)])
def test_an_ensemble_grows_to_its_own_end_unless_epochs_are_given(epochs, expected):
    forest = RandomForestClassifier(6, warm_start=True, random_state=0)
    given = {} if epochs is None else {"epochs": epochs}
    records = list(train(one := Actor("forest", forest), (X, y), validation=0.2, **given))
    assert [(record["step"], record["epoch"]) for record in records] == [(n, n) for n in range(1, expected + 1)]
    assert all("val_loss" in record for record in records) and len(one.native.estimators_) == expected


def test_descent_by_scikit_learn_goes_the_same_way():
    records = list(train(Actor("descent", SGDClassifier(loss="log_loss")), (X, y), epochs=4, validation=0.2))
    assert [record["step"] for record in records] == list(range(1, len(records) + 1)) and records[-1]["epoch"] == 4


# ---- Weights and ranks


def test_class_weights_are_scikit_learns():
    rare = np.where(y == 3, 1, 0)
    training = train(actor(), (X, rare), class_weight="balanced")
    weights = training._schedule.class_weight
    assert weights == pytest.approx([300 / (2 * (rare == 0).sum()), 300 / (2 * (rare == 1).sum())])
    by_label = train(actor(), (X, np.array(["no", "yes"])[rare]), class_weight={"yes": 50.0})
    list(by_label)
    assert by_label.actor.predict(X[rare == 1]).tolist().count("yes") == (rare == 1).sum()


def test_a_rank_gets_its_share_of_every_batch():
    seen = []

    def spy(module, batch):
        seen.append((len(batch), batch.total))
        return module(batch.x).square().mean()

    model = TorchModel(network, step=spy)
    for rank in (0, 1):
        list(train(Actor("shared", model), (X[:100], y[:100]), batch_size=30, epochs=1, rank=rank, ranks=2))
    assert seen == [(15, 30)] * 3 + [(5, 10)] + [(15, 30)] * 3 + [(5, 10)]
    with pytest.raises(UsageError, match="trains in one process alone"):
        train(Actor("forest", RandomForestClassifier()), (X, y), ranks=2)


# ---- Metrics that live on a device


class Device(TorchModel):
    """As on an accelerator: a step's metrics are tensors that nobody has waited for."""

    @property
    def capabilities(self):
        from dataclasses import replace

        return replace(super().capabilities, asynchronous=True)

    def step(self, batch, settings):
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in super().step(batch, settings).items()}


def test_metrics_on_a_device_are_fetched_in_blocks_and_none_is_lost():
    expected = timeless(train(actor(), (X, y), validation=0.2, batch_size=4))
    training = train(Actor("device", Device(network, lr=0.01), epochs=3), (X, y), validation=0.2, batch_size=4)
    ahead, records = [], []
    for record in training:
        ahead.append(training.step - record["step"])
        records.append(record)
    assert timeless(records) == expected
    assert max(ahead) > 5 and all(type(value) in (int, float) for record in records for value in record.values())


@pytest.mark.parametrize("at", [3, 64, 70])
def test_a_snapshot_holds_the_records_that_were_not_given_out_yet(at):
    def fresh():
        return train(Actor("device", Device(network, lr=0.01), epochs=3), (X, y), batch_size=4)

    whole = timeless(fresh())
    first = fresh()
    before = timeless(itertools.islice(first, at))
    second = fresh()
    second.restore(codec.unpack(codec.pack(first.snapshot())))
    assert before + timeless(second) == whole


# ---- Threads


def test_threads_are_set_for_the_steps_alone():
    seen = []

    def spy(module, batch):
        seen.append(torch.get_num_threads())
        return module(batch.x).square().mean()

    with threadpool_limits(2):
        outside = {library["num_threads"] for library in threadpool_info()}
        training = train(Actor("threads", TorchModel(network, step=spy)), (X, y), epochs=1, threads=1)
        next(training)
        between = {library["num_threads"] for library in threadpool_info()}
        list(training)
    assert set(seen) == {1} and between == outside == {2}


def test_threads_are_one_or_what_the_environment_says(monkeypatch):
    for value, expected in ((None, 1), ("3", 3), ("2,1", 2), ("many", 1)):
        monkeypatch.delenv("OMP_NUM_THREADS") if value is None else monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert train(actor(), (X, y)).options.threads == expected
    assert os.environ["OMP_NUM_THREADS"] == "many"


# ---- Bad input


def test_a_lost_loss_says_where_and_keeps_the_last_good_parameters():
    bad = X.copy()
    bad[123, 7] = np.inf
    feed = Feed.of(bad, y)
    key = feed.batch([123]).keys[0]
    training = train(one := actor(), feed, batch_size=1, epochs=1)
    records = []
    with pytest.raises(
        NonFiniteLoss, match=rf"'digits': the loss became nan at epoch 1, step \d+, rows with keys {key}"
    ):
        records.extend(training)
    assert "still finite, and kept" in str(_error(training, feed))
    assert np.isfinite(one.predict_proba(X)).all() and "failed" in repr(training)


def _error(training, feed):
    with pytest.raises(NonFiniteLoss) as caught:
        list(train(actor(), feed, batch_size=1, epochs=1))
    assert caught.value.step == training.step
    return caught.value


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"epoch": 3}, UnknownName, "Did you mean 'epochs'"),
        ({"learning_rate": 3}, UnknownName, "lr"),
        ({"lr": "x"}, UsageError, "lr='x' came; expected a number"),
        ({"lr": float("nan")}, UsageError, "lr=nan"),
        ({"epochs": 0}, UsageError, "epochs=0 came; expected a whole number from 1"),
        ({"batch_size": 2.5}, UsageError, "batch_size=2.5"),
        ({"seed": -1}, UsageError, "seed=-1"),
        ({"threads": True}, UsageError, "threads=True"),
        ({"validation": 1.5}, UsageError, "fraction between 0 and 1"),
        ({"validation": "x"}, UsageError, "expected a fraction, a Feed"),
        ({"metrics": ["f1_macr"]}, UnknownName, "Did you mean 'f1_macro'"),
        ({"metrics": 3}, UsageError, "metrics=3"),
        ({"monitor": 3, "patience": 1}, UsageError, "monitor=3"),
        ({"class_weight": "even"}, UsageError, "expected 'balanced'"),
        ({"class_weight": {"9a": 1.0}}, UnknownName, "class '9a'"),
        ({"validation": (X, np.where(y == 9, 77, y))}, DataError, "77"),
        ({"validation": (X[:, :5], y)}, SpecMismatch, "5 features"),
        ({"validation": Feed.of(X, y % 2)}, SpecMismatch, "Prepare both with the same fitted"),
    ],
)
def test_settings_that_make_no_sense(settings, error, message):
    with pytest.raises(error, match=message):
        train(actor(), (X, y), **settings)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X, "expected a Feed, .X, y."),
        ((X, None), "the target y is None"),
        (Feed.of(X), "no label"),
        ((X, y[:10]), "300 rows, y has 10"),
        ((X, y, -np.ones(300)), "Negative values"),
    ],
)
def test_data_that_makes_no_sense(data, message):
    with pytest.raises(ValueError, match=message):
        train(actor(), data)


def test_arguments_of_another_kind():
    with pytest.raises(UsageError, match=r"expected h3.Distill\(teacher\)"):
        train(actor(), (X, y), transfer=actor())
    with pytest.raises(UsageError, match=r"expected training.settings.replace"):
        train(actor(), (X, y)).settings = {"lr": 1.0}


def test_numpy_numbers_are_numbers():
    training = train(actor(seed=np.int64(3), epochs=np.int32(1)), (X, y), lr=np.float32(0.5), batch_size=np.uint8(50))
    assert training.settings.lr == 0.5 and training.total_steps == 6
