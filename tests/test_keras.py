"""A Keras 3 model on the torch backend is a torch module, with habits of its own that do not surprise."""

import os
import random

import numpy as np
import pytest
from sklearn.datasets import load_digits

from h3lab import worlds
from h3lab.actor import Actor, load
from h3lab.backends._torch import TorchModel
from h3lab.errors import ModelError
from h3lab.testing import check_model
from h3lab.training.loop import train

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "torch":
    pytest.skip("Keras was imported with another backend", allow_module_level=True)
layers = keras.layers
# Keras 3.15 converts tensors in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

DIGITS, CLASSES = load_digits(return_X_y=True)
X, y = (DIGITS[:500] / 16).astype(np.float32), CLASSES[:500]
IMAGES = X.reshape(-1, 8, 8, 1)


def network(spec):
    return keras.Sequential(
        [keras.Input(spec.shape), layers.Dense(24, "relu"), layers.Dropout(0.2), layers.Dense(spec.outputs)]
    )


def convolutions():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def timeless(records):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def test_it_keeps_the_promises_of_a_model():
    check_model(lambda: TorchModel(network, lr=0.02), noisy=True, random=True)


def test_a_model_is_copied_with_its_weights_and_comes_back_trained():
    module = convolutions()
    before = [np.array(value) for value in module.get_weights()]
    actor = Actor("digits", module, epochs=6, seed=1)
    told = list(train(actor, (IMAGES, y)))
    assert told[-1]["accuracy"] > 0.85
    for value, kept in zip(module.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, kept)
    native = actor.native
    assert type(native) is keras.Sequential
    np.testing.assert_allclose(native.predict(IMAGES, verbose=0), actor.logits(IMAGES), rtol=1e-4, atol=1e-5)
    moving = native.layers[1].moving_mean.value
    assert float(moving.abs().sum()) > 0  # batch normalisation learned: it was told that it trains


def test_dropout_drops_in_training_alone():
    actor = Actor("digits", TorchModel(network, lr=0.0)).fit(X, y)
    batch = train(actor, (X, y)).feed.batch(slice(0, 64))
    losses = {actor.model_.step(batch, _settings(actor))["loss"] for _ in range(3)}
    assert len(losses) == 3
    np.testing.assert_array_equal(actor.logits(X), actor.logits(X))


def _settings(actor):
    return train(actor, (X, y)).settings


def test_the_same_seed_gives_the_same_bits_and_pythons_random_numbers_are_left_alone():
    random.seed(4)
    expected = random.random()
    random.seed(4)
    one, two = (timeless(train(Actor("digits", TorchModel(network)), (X, y), epochs=2)) for _ in range(2))
    assert one == two and random.random() == expected
    assert timeless(train(Actor("digits", TorchModel(network)), (X, y), epochs=2, seed=1)) != one


def test_a_snapshot_goes_on_bit_equal():
    def training():
        return train(Actor("digits", TorchModel(network)), (X, y), epochs=2)

    whole, first, again = timeless(training()), training(), training()
    for _ in range(3):
        next(first)
    again.restore(first.snapshot())
    assert timeless(again) == whole[3:]


def test_a_model_without_shapes_learns_them_from_the_data():
    module = keras.Sequential([layers.Dense(16, "relu"), layers.Dense(10)])
    assert Actor("digits", TorchModel(module, lr=0.02), epochs=10).fit(X, y).score(X, y) > 0.8


@pytest.mark.parametrize("last", [layers.Dense(10, activation="softmax"), layers.Softmax()])
def test_probabilities_at_the_end_are_refused_with_the_line_to_type(last):
    module = keras.Sequential([keras.Input((64,)), layers.Dense(10), last])
    with pytest.raises(ModelError, match=r"Leave it out: Dense\(10\).*model\.layers\[-1\]\.activation"):
        Actor("digits", module).fit(X, y)


def test_what_compile_was_told_is_said_to_be_unused():
    module = keras.Sequential([keras.Input((64,)), layers.Dense(10)])
    module.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.warns(UserWarning, match=r"what model\.compile was told is not used here: say TorchModel\(model, lr="):
        Actor("digits", module, epochs=1).fit(X, y)


def test_a_class_of_ones_own_goes_in_by_a_function():
    class Own(keras.Model):
        def __init__(self, outputs=10):
            super().__init__()
            self.dense = layers.Dense(outputs)

        def call(self, x):
            return self.dense(x)

    with pytest.raises(ModelError, match=r"Keras cannot copy this Own.*TorchModel\(build\)"):
        Actor("own", Own()).fit(X, y)
    actor = Actor("own", TorchModel(lambda spec: Own(spec.outputs), lr=0.05), epochs=5).fit(X, y)
    assert actor.score(X, y) > 0.8 and isinstance(actor.native, Own)


def test_it_is_kept_in_a_file_and_opened_with_its_function(tmp_path):
    actor = Actor("digits", TorchModel(network), epochs=2).fit(X, y)
    actor.save(tmp_path / "keras.h3")
    np.testing.assert_array_equal(load(tmp_path / "keras.h3", build=network).logits(X), actor.logits(X))


def test_it_is_wrapped_by_its_class_and_another_backend_says_what_to_set():
    assert worlds.wraps(convolutions()).endswith("TorchModel")

    class Elsewhere:
        __module__ = "keras.src.models.sequential"

        def fit(self): ...

        def predict(self): ...

    with pytest.raises(worlds.UsageError, match="KERAS_BACKEND=torch"):
        worlds.wrap(Elsewhere())
