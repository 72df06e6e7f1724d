"""What every Model promises, as checks that its author can run.

They know the Model protocol and data whose answers can be derived; they do not know frameworks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from h3lab.batch import Batch
from h3lab.errors import H3labError, ModelError, NotFittedError, UsageError, guided
from h3lab.feeds.feed import Feed
from h3lab.model import Capabilities, Model
from h3lab.serial import codec, signed
from h3lab.settings import Setting
from h3lab.spec import Task
from h3lab.testing.subject import Factory, Subject, easy_feed, floats, teacher_of
from h3lab.training.answers import log_softmax


@guided
def check_model(
    factory: Factory,
    feed: Feed | None = None,
    *,
    task: Task = "classification",
    batch_size: int = 30,
    epochs: int = 25,
    noisy: bool = False,
    random: bool = False,
) -> None:
    """Run every check of MODEL_CHECKS; AssertionError says which promise is broken and how.

    ``factory()`` makes the model, unbuilt. ``feed``: None is :func:`easy_feed` of ``task``. The others: see
    :class:`Subject`.
    """
    if not callable(factory):
        raise UsageError(
            f"a {type(factory).__name__} came; expected a function that makes the model: lambda: MyModel()."
        )
    subject = Subject(factory, easy_feed(task) if feed is None else feed, batch_size, epochs, noisy, random)
    for check in MODEL_CHECKS:
        check(subject)


def check_declarations(subject: Subject) -> None:
    """Capabilities and settings are known before anything is built; defaults are valid; a clone is the same model."""
    from sklearn.base import clone

    model = subject.factory()
    # isinstance would ask for the values, and a model that was not built has no ``native``.
    lacking = [name for name in vars(Model) if not name.startswith("_") and not hasattr(type(model), name)]
    assert not lacking, f"{type(model).__name__} lacks {lacking} of the protocol Model"
    assert isinstance(model.capabilities, Capabilities)
    for setting in model.settings:
        assert setting.check(setting.default) == setting.default, f"the default of {setting} is none of its values"
        assert Setting.from_json(setting.to_json()) == setting
    copy = clone(model, safe=False)
    copy.build(subject.feed.spec, 7)
    subject.trained(copy, 2)
    other = subject.built()
    subject.trained(other, 2)
    _same(copy.parameters(), other.parameters(), "a clone learns something else than its original")


def check_unbuilt(subject: Subject) -> None:
    """Answers before anything was learned raise NotFittedError."""
    model = subject.factory()
    for ask in (lambda: model.logits(subject.x), model.parameters, lambda: model.native):
        _raises(NotFittedError, ask, "a model that was not built")


def check_seeds(subject: Subject) -> None:
    """The same seed gives the same bits; where chance plays a part, another seed gives others."""
    one, two, other = subject.built(7), subject.built(7), subject.built(8)
    assert subject.trained(one) == subject.trained(two), "metrics differ with the same seed"
    _same(one.parameters(), two.parameters(), "parameters differ with the same seed")
    assert np.array_equal(one.logits(subject.x), two.logits(subject.x)), "logits differ with the same seed"
    if subject.random:
        subject.trained(other)
        assert codec.pack(one.parameters()) != codec.pack(other.parameters()), "the seed changes nothing"


def check_logits(subject: Subject) -> None:
    """(rows, outputs) finite floats; a row's answer does not depend on the others; asking changes no training."""
    asked, silent = subject.built(), subject.built()
    for step, batch in enumerate(subject.batches(asked, 6)):
        told = [floats(model.step(batch, subject.settings(model))) for model in (asked, silent)]
        assert told[0] == told[1], "asking for logits changed the training"
        z = asked.logits(subject.x)
        again = asked.logits(subject.x)
        assert z.shape == (len(subject.feed), subject.feed.spec.outputs), f"logits have shape {z.shape}"
        assert z.dtype.kind == "f" and np.isfinite(z).all(), "logits are not finite"
        assert np.array_equal(z, again), f"the same question has two answers after step {step + 1}"
    few = asked.logits(subject.feed.batch(slice(0, 5)).x)
    assert np.allclose(few, z[:5], rtol=1e-4, atol=1e-5), "a row's logits depend on the other rows"
    assert np.array_equal(silent.logits(subject.x), z), "asking for logits changed the training"


def check_learning(subject: Subject) -> None:
    """Every step tells its loss; it falls on an easy problem, whose rows are answered well in the end."""
    model = subject.built()
    records = subject.trained(model)
    assert all("loss" in record for record in records), "a step told no loss"
    first, last = records[0]["loss"], records[-1]["loss"]
    assert len(records) == 1 or last < max(first, 0.1), f"the loss went from {first} to {last}"
    z = model.logits(subject.x)
    if subject.feed.spec.task == "classification":
        right = float((z.argmax(1) == subject.y).mean())
        assert right >= 0.9, f"only {right:.0%} of three far classes are right after {len(records)} steps"
    else:
        rest = float(np.mean((z[:, 0] - subject.y) ** 2) / np.var(subject.y))
        assert rest <= 0.2, f"{rest:.0%} of the variance is left after {len(records)} steps"


def check_loss(subject: Subject) -> None:
    """The loss is cross entropy or mean squared error of the batch, weighted by row, before or after the step."""
    if subject.noisy:
        return
    model = subject.built()
    subject.trained(model, 2)
    for batch in subject.batches(model, 1, start=2 if model.capabilities.learns != "whole" else 0):
        if model.capabilities.weights:
            batch = replace(batch, weight=np.linspace(0.5, 1.5, len(batch)))
        before = _loss(model.logits(batch.x), batch, subject.feed.spec.task)
        told = floats(model.step(batch, subject.settings(model)))["loss"]
        after = _loss(model.logits(batch.x), batch, subject.feed.spec.task)
        near = any(np.isclose(told, value, rtol=1e-3, atol=1e-6) for value in (before, after))
        assert near, f"the step told a loss of {told}; it was {before} before and {after} after"


def check_state(subject: Subject) -> None:
    """A training goes on bit-equal from a state that went through the codec, in a model built anew."""
    one = subject.built()
    subject.trained(one, 3)
    two = subject.built(seed=99)
    two.load_state(codec.unpack(codec.pack(one.state())))
    assert np.array_equal(one.logits(subject.x), two.logits(subject.x)), "logits differ after load_state"
    assert subject.trained(one, 5, start=3) == subject.trained(two, 5, start=3), "metrics differ after load_state"
    _same(one.parameters(), two.parameters(), "parameters differ after load_state")
    assert np.array_equal(one.logits(subject.x), two.logits(subject.x)), "logits differ when it went on"


def check_parameters(subject: Subject) -> None:
    """Named copies; loaded into a model built anew they give the same answers; what does not fit is listed."""
    one = subject.built()
    subject.trained(one, 5)
    kept, before = one.parameters(), one.logits(subject.x)
    assert kept and all(isinstance(value, np.ndarray) for value in kept.values())
    two = subject.built(seed=99)
    two.load_parameters(codec.unpack(codec.pack(kept)))
    assert np.array_equal(before, two.logits(subject.x)), "logits differ after load_parameters"
    subject.trained(one, 2, start=5)
    _same(two.parameters(), kept, "parameters are not a copy: they changed with the training")
    _raises(ModelError, lambda: two.load_parameters({}), "no parameters at all")
    _raises(ModelError, lambda: two.load_parameters({**kept, "nonsense": np.zeros(1)}), "a name that is not there")
    assert np.array_equal(before, two.logits(subject.x)), "parameters that were refused changed something"


def check_weights(subject: Subject) -> None:
    """Rows of weight zero teach nothing, even where they lie."""
    model = subject.built()
    if not model.capabilities.weights:
        return
    for batch in subject.batches(model):
        assert batch.y is not None
        lie = np.arange(len(batch)) % 5 < 2
        other = (batch.y + 1) % 3 if subject.feed.spec.task == "classification" else batch.y + 10.0
        mixed = replace(batch, y=np.where(lie, other, batch.y), weight=np.where(lie, 0.0, 1.0))
        model.step(mixed, subject.settings(model))
    z = model.logits(subject.x)
    if subject.feed.spec.task == "classification":
        assert (z.argmax(1) == subject.y).mean() >= 0.9, "rows of weight zero were learned"
    else:
        assert np.mean((z[:, 0] - subject.y) ** 2) <= 0.3 * np.var(subject.y), "rows of weight zero were learned"


def check_soft_targets(subject: Subject) -> None:
    """A teacher's answers are learned at a temperature, and the student is as sure as the teacher in the end;
    ``loss = soft * soft_loss + hard * hard_loss``, with T² in ``soft_loss``."""
    model = subject.built()
    classifies = subject.feed.spec.task == "classification"
    if "kl" not in model.capabilities.soft_targets:
        return
    settings = subject.settings(model, temperature=2.0, soft=0.8, hard=0.2)
    gaps = []
    for batch in subject.batches(model):
        taught = batch.with_soft(teacher_of(batch.x, classifies))
        told = floats(model.step(taught, settings))
        whole = 0.8 * told["soft_loss"] + 0.2 * told["hard_loss"]
        assert np.isclose(told["loss"], whole, rtol=1e-4, atol=1e-7), f"{told} do not add up"
        gaps.append(told["soft_loss"])
    z, teacher = model.logits(subject.x).astype(np.float64), teacher_of(subject.x, classifies)
    if not classifies:
        assert np.mean((z - teacher) ** 2) <= 0.3 * np.var(teacher), "the student does not follow its teacher"
        return
    p, q = log_softmax(teacher), log_softmax(z)
    assert (p.argmax(1) == q.argmax(1)).mean() >= 0.9, "the student does not follow its teacher"
    sure, sure_of = np.exp(p).max(1).mean(), np.exp(q).max(1).mean()
    assert abs(sure - sure_of) <= 0.15, f"the teacher is {sure:.2f} sure on average, its student {sure_of:.2f}"


def check_steering(subject: Subject) -> None:
    """A learning rate that can be steered takes effect in the next step."""
    model = subject.built()
    if "lr" not in [setting.name for setting in model.settings if setting.steerable] or subject.noisy:
        return
    subject.trained(model, 3)
    before = model.logits(subject.x)
    subject.trained(model, 1, start=3, lr=1e-12)
    assert np.allclose(before, model.logits(subject.x), rtol=1e-5, atol=1e-6), "it learned at a rate of 1e-12"
    for batch in subject.batches(model, 1, start=4):
        assert batch.y is not None
        other = replace(batch, y=batch.y[::-1].copy())  # there is something to learn from what is wrong
        model.step(other, subject.settings(model, lr=0.1))
    assert not np.allclose(before, model.logits(subject.x), rtol=1e-5, atol=1e-6), "it did not learn at a rate of 0.1"


def check_wrong_data(subject: Subject) -> None:
    """Rows of another width and labels beyond the classes are errors of h3lab, and change nothing."""
    model = subject.built()
    subject.trained(model, 3)
    before = model.logits(subject.x)
    wide = np.zeros((4, subject.feed.spec.features + 1), np.float32)
    _raises(H3labError, lambda: model.logits(wide), "rows with one column too many")
    if subject.feed.spec.classes is not None:
        batch = next(subject.batches(model))
        far = replace(batch, y=np.full(len(batch), subject.feed.spec.classes))
        _raises(H3labError, lambda: model.step(far, subject.settings(model)), "labels beyond the classes")
    if subject.noisy:  # batch normalisation has seen the rows by then
        return
    assert np.array_equal(before, model.logits(subject.x)), "what was refused changed the model"


def check_travel(subject: Subject) -> None:
    """A trained model goes to another process and answers there with the same bits."""
    model = subject.built()
    subject.trained(model, 3)
    there = signed.loads(signed.dumps(model))
    assert np.array_equal(model.logits(subject.x), there.logits(subject.x)), "logits differ after the journey"
    assert subject.trained(model, 2, start=3) == subject.trained(there, 2, start=3), "it trains on differently"


MODEL_CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_declarations,
    check_unbuilt,
    check_seeds,
    check_logits,
    check_learning,
    check_loss,
    check_state,
    check_parameters,
    check_weights,
    check_soft_targets,
    check_steering,
    check_wrong_data,
    check_travel,
)


def _loss(z: np.ndarray, batch: Batch, task: str) -> float:
    assert batch.y is not None
    if task == "classification":
        values = -log_softmax(z)[np.arange(len(z)), batch.y]
    else:
        values = np.square(z - batch.y.reshape(z.shape)).mean(axis=1)
    return float(np.mean(values if batch.weight is None else values * batch.weight))


def _raises(kind: type[Exception], call: Callable[[], Any], what: str) -> None:
    try:
        call()
    except kind:
        return
    except Exception as error:
        raise AssertionError(f"{what}: {kind.__name__} was expected, {type(error).__name__} came: {error}") from error
    raise AssertionError(f"{what}: {kind.__name__} was expected, nothing was raised")


def _same(one: Mapping[str, np.ndarray], two: Mapping[str, np.ndarray], message: str) -> None:
    """Bytes in place of numbers (uint8) may tell the same object in another order, so logits have to stand for them."""
    assert one.keys() == two.keys(), message
    for name, value in one.items():
        same = value.dtype == two[name].dtype and (value.dtype == np.uint8 or value.tobytes() == two[name].tobytes())
        assert same, f"{message}: {name}"
