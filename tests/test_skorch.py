"""A net of skorch inside an actor: its own epochs, callbacks and split, as records to steer and to continue."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_regression
from torch import nn

from h3lab.actor import Actor, load
from h3lab.backends._skorch import SkorchModel
from h3lab.errors import ModelError
from h3lab.settings import Settings
from h3lab.testing import check_model
from h3lab.training.loop import train

pytest.importorskip("skorch")
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback

DIGITS, CLASSES = load_digits(return_X_y=True)
X, y = DIGITS[:600] / 16, CLASSES[:600]


class Probabilities(nn.Module):
    """As in skorch's own examples: softmax at the end, for the criterion that a classifier has by default."""

    def __init__(self, hidden=32, dropout=0.2):
        super().__init__()
        self.hidden, self.output = nn.Linear(64, hidden), nn.Linear(hidden, 10)
        self.dropout = nn.Dropout(dropout)

    def forward(self, X):
        return torch.softmax(self.output(self.dropout(torch.relu(self.hidden(X)))), -1)


def net(**arguments):
    return NeuralNetClassifier(Probabilities, **{"max_epochs": 5, "lr": 0.2, "batch_size": 32, **arguments})


def timeless(records):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def linear(**arguments):
    given = {"module__in_features": 4, "module__out_features": 3, "criterion": nn.CrossEntropyLoss, "lr": 0.1}
    return NeuralNetClassifier(nn.Linear, **given, max_epochs=60, **arguments)


def test_it_keeps_the_promises_of_a_model():
    check_model(lambda: SkorchModel(linear()), random=True)


def test_a_record_is_one_of_its_own_epochs_with_what_its_history_tells():
    given = net()
    actor = Actor("digits", given, seed=1)
    told = list(train(actor, (X, y), validation=(DIGITS[600:900] / 16, CLASSES[600:900])))
    assert [record["epoch"] for record in told] == [1, 2, 3, 4, 5]
    assert {"train_loss", "valid_loss", "valid_acc", "loss", "accuracy", "val_accuracy"} <= told[0].keys()
    assert told[-1]["val_accuracy"] > told[0]["val_accuracy"]
    native = actor.native
    assert type(native) is NeuralNetClassifier and (native.max_epochs, native.verbose, len(native.history)) == (5, 1, 5)
    np.testing.assert_array_equal(native.predict(X.astype(np.float32)), actor.predict(X))
    np.testing.assert_allclose(native.predict_proba(X.astype(np.float32)), actor.predict_proba(X), atol=1e-6)
    assert not getattr(given, "initialized_", False)


def test_it_learns_as_skorch_alone_does():
    torch.manual_seed(0)
    alone = net(train_split=None, module__dropout=0.0, verbose=0).fit(X.astype(np.float32), y)
    actor = Actor("digits", clone(alone)).fit(X, y)
    actor.model_.build(actor.spec_, 0)
    torch.manual_seed(0)
    again = clone(alone).initialize()
    actor.model_.load_parameters({name: value.numpy() for name, value in again.module_.state_dict().items()})
    batch = train(actor, (X, y)).feed.batch(slice(None))
    for _ in range(5):
        actor.model_.step(batch, Settings(actor.model_.settings))
    for name, value in alone.module_.state_dict().items():
        np.testing.assert_array_equal(actor.model_.parameters()[name], value.numpy())


def test_the_same_seed_gives_the_same_bits_and_the_users_stream_is_left_alone():
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    one, two = (timeless(train(Actor("digits", net()), (X, y), seed=3)) for _ in range(2))
    assert one == two and torch.equal(torch.rand(2), expected)
    assert timeless(train(Actor("digits", net()), (X, y), seed=4)) != one


def test_a_snapshot_goes_on_bit_equal():
    def training():
        return train(Actor("digits", net(optimizer=torch.optim.Adam, lr=0.01)), (X, y))

    whole, first, again = timeless(training()), training(), training()
    for _ in range(2):
        next(first)
    again.restore(first.snapshot())
    assert timeless(again) == whole[2:]
    assert len(again.actor.native.history) == 5


def test_its_callbacks_are_called_and_a_rate_is_steered_without_a_new_optimizer():
    seen = []

    class Watching(Callback):
        def on_batch_begin(self, net, **_):
            seen.append((id(net.optimizer_), net.optimizer_.param_groups[0]["lr"]))

    training = train(Actor("digits", net(callbacks=[Watching()], train_split=None, batch_size=-1)), (X, y))
    next(training)
    training.settings = training.settings.replace(lr=0.02)
    for _ in training:
        pass
    assert [round(rate, 9) for _, rate in seen] == [0.2, 0.02, 0.02, 0.02, 0.02]
    assert len({optimizer for optimizer, _ in seen}) == 1


def test_labels_may_be_words_and_images_keep_their_shape():
    words = np.array(list("abcdefghij"))[y]
    actor = Actor("words", net(max_epochs=8)).fit(X, words)
    assert set(actor.predict(X)) <= set("abcdefghij") and actor.score(X, words) > 0.6

    class Image(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))

        def forward(self, X):
            return self.layers(X)

    images = X.reshape(-1, 1, 8, 8)
    actor = Actor("images", NeuralNetClassifier(Image, criterion=nn.CrossEntropyLoss, max_epochs=6, lr=0.2))
    assert actor.fit(images, y).score(images, y) > 0.6


def test_two_classes_with_one_output_and_regressions():
    two = Actor("two", NeuralNetBinaryClassifier(nn.Sequential(nn.Linear(64, 1), nn.Flatten(0)), lr=0.5, max_epochs=20))
    assert two.fit(X, y > 4).score(X, y > 4) > 0.8
    rows, target = make_regression(200, 5, noise=1, random_state=0)
    line = NeuralNetRegressor(nn.Linear, module__in_features=5, module__out_features=1, lr=0.05, max_epochs=60)
    assert Actor("line", line).fit(rows, target).score(rows, target) > 0.95


def test_a_trained_one_answers_at_once_travels_and_is_kept_in_a_file(tmp_path):
    actor = Actor("digits", net()).fit(X, y)
    there = pickle.loads(pickle.dumps(actor))
    np.testing.assert_array_equal(there.logits(X), actor.logits(X))
    actor.save(tmp_path / "digits.h3")
    with pytest.raises(ModelError, match=r"h3\.load\(path, build=net\)"):
        load(tmp_path / "digits.h3")
    np.testing.assert_array_equal(load(tmp_path / "digits.h3", build=net()).logits(X), actor.logits(X))
    wrong = net(module__hidden=8)
    with pytest.raises(ModelError, match="do not fit the net's module"):
        load(tmp_path / "digits.h3", build=wrong)
