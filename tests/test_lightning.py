"""A LightningModule trains by its own training_step and configure_optimizers, without a Trainer."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from h3lab.actor import Actor, load
from h3lab.backends._torch import TorchModel
from h3lab.errors import ModelError, UsageError
from h3lab.feeds.feed import Feed
from h3lab.testing import check_model
from h3lab.training.loop import train
from h3lab.transfer import Distill

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what its own imports deprecate
    lightning = pytest.importorskip("lightning")
    import torchmetrics

DIGITS, CLASSES = load_digits(return_X_y=True)
X, y = (DIGITS[:320] / 16).astype(np.float32), CLASSES[:320]


class Digits(lightning.LightningModule):
    """As people write them: layers, forward, a step that logs, an optimizer."""

    def __init__(self, hidden=24, lr=0.01, features=64, classes=10):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, classes)
        )

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        loss = F.cross_entropy(logits, y)
        self.log("train_loss", loss, prog_bar=True, on_step=True)
        self.log_dict({"train_acc": (logits.argmax(1) == y).float().mean(), "batch": batch_idx, "step": 7.0})
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class Small(Digits):
    """For data that comes in other sizes: its first argument is the spec."""

    def __init__(self, spec):
        super().__init__(hidden=16, lr=0.02, features=spec.features, classes=spec.outputs)


def records(actor, data=(X, y), **settings):
    return list(train(actor, data, **{"epochs": 2, "batch_size": 64, **settings}))


def test_what_it_logs_stands_in_the_records_and_native_is_a_trained_lightning_module():
    module = Digits()
    before = copy.deepcopy(module.state_dict())
    actor = Actor("lit", TorchModel(module), seed=1)
    told = records(actor, epochs=8, validation=(DIGITS[320:640] / 16, CLASSES[320:640]))
    assert [record["batch"] for record in told[:6]] == [0, 1, 2, 3, 4, 0]  # batch_idx begins anew with each epoch
    assert [record["step"] for record in told[:3]] == [1, 2, 3]  # what it logs as step does not overwrite the axis
    assert all(record["train_loss"] == pytest.approx(record["loss"]) for record in told)
    assert told[-1]["train_acc"] > told[0]["train_acc"] + 0.3 and told[-1]["val_accuracy"] > 0.7
    native = actor.native
    assert type(native) is Digits and not native.training and native._trainer is None and native.hparams.lr == 0.01
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with torch.no_grad():
        np.testing.assert_allclose(native(torch.from_numpy(X)).numpy(), actor.logits(X), rtol=1e-5, atol=1e-6)
    assert type(pickle.loads(pickle.dumps(native))) is Digits


def test_it_gives_the_numbers_of_a_loop_by_hand():
    torch.manual_seed(3)
    module = Digits(lr=0.03)
    module.net[3].p = 0.0
    actor = Actor("lit", TorchModel(module))
    told = records(actor, epochs=2)
    by_hand = copy.deepcopy(module)
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=0.03)
    feed, losses = Feed.of(X, y), []
    for epoch in (1, 2):
        for batch in feed.epoch(epoch, batch_size=64, seed=0):
            loss = F.cross_entropy(by_hand(torch.from_numpy(batch.x)), torch.from_numpy(batch.y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    np.testing.assert_array_equal([record["loss"] for record in told], losses)
    trained = actor.native.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in by_hand.state_dict().items())


def test_it_keeps_the_promises_of_a_model():
    check_model(lambda: TorchModel(Small, lr=0.02), random=True, noisy=True)


def test_its_class_is_made_for_the_data_and_one_that_cannot_be_says_what_to_type():
    actor = Actor("small", Small)
    with pytest.raises(UsageError, match="TorchModel"):
        records(actor)
    actor = Actor("small", TorchModel(Small, lr=0.02))
    records(actor, (X[:, :20], y % 3))
    assert actor.native.net[1].in_features == 20 and actor.spec_.outputs == 3
    assert records(Actor("plain", TorchModel(Digits)))[-1]["loss"] < 2.4  # all its arguments have defaults

    class Needs(Digits):
        def __init__(self, width):
            super().__init__(hidden=width)

    with pytest.raises(UsageError, match=r"TorchModel\(Needs\(width=\.\.\.\)\)"):
        records(Actor("needs", TorchModel(Needs)))


# ---- Optimizers and schedules


def rates(module, lr=None, **settings):
    """The rate of each update, read where the optimizer steps."""
    seen = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(round(self.param_groups[0]["lr"], 9))
            return super().step(closure)

    module.optimizer = Watched
    records(Actor("lit", TorchModel(module, lr=lr)), (X[:192], y[:192]), **settings)
    return seen


class Scheduled(Digits):
    optimizer, form = torch.optim.SGD, "dict"

    def configure_optimizers(self):
        optimizer = type(self).optimizer if "optimizer" not in vars(self) else self.optimizer
        made = optimizer(self.parameters(), lr=0.8)
        halving = torch.optim.lr_scheduler.StepLR(made, 1, 0.5)
        return {
            "alone": made,
            "list": [made],
            "dict": {"optimizer": made, "lr_scheduler": halving},
            "pair": ([made], [halving]),
            "step": {"optimizer": made, "lr_scheduler": {"scheduler": halving, "interval": "step", "frequency": 2}},
            "pair of dicts": ([made], [{"scheduler": halving, "interval": "epoch"}]),
        }[self.form]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("alone", [0.8] * 6),
        ("list", [0.8] * 6),
        ("dict", [0.8] * 3 + [0.4] * 3),
        ("pair", [0.8] * 3 + [0.4] * 3),
        ("pair of dicts", [0.8] * 3 + [0.4] * 3),
        ("step", [0.8, 0.8, 0.4, 0.4, 0.2, 0.2]),
    ],
)
def test_every_form_of_configure_optimizers_gives_the_rates_that_a_trainer_gives(form, expected):
    module = Scheduled()
    module.form = form
    assert rates(module) == pytest.approx(expected)


def test_the_rate_shown_is_its_own_and_one_that_is_set_scales_the_schedule():
    module = Scheduled()
    assert TorchModel(module).settings[0].default == 0.8
    assert TorchModel(Digits).settings[0].default == 0.01
    assert TorchModel(module, lr=0.08).settings[0].default == 0.08
    assert rates(module, lr=0.08) == pytest.approx([0.08] * 3 + [0.04] * 3)


def test_a_snapshot_goes_on_bit_equal_in_mid_schedule():
    module = Scheduled()

    def training():
        return train(Actor("lit", TorchModel(module)), (X, y), epochs=4, batch_size=64, seed=5)

    whole = [{**record, "seconds": 0} for record in training()]
    first = training()
    for _ in range(7):
        next(first)
    again = training()
    again.restore(first.snapshot())
    assert [{**record, "seconds": 0} for record in again] == whole[7:]


def test_an_optimizer_of_torchmodel_wins_over_its_own():
    model = TorchModel(Scheduled(), optimizer="sgd", lr=0.1)
    actor = Actor("lit", model)
    records(actor)
    assert type(actor.model_._update._optimization.optimizer) is torch.optim.SGD
    assert actor.model_._update._optimization.lr == 0.1


# ---- What it may ask of its trainer


def test_running_metrics_are_told_for_the_batch_and_begin_anew_with_an_epoch():
    class Measured(Digits):
        def __init__(self):
            super().__init__()
            self.seen = torchmetrics.SumMetric()
            self.acc = torchmetrics.classification.MulticlassAccuracy(10, average="micro")

        def training_step(self, batch, batch_idx):
            logits = self(batch[0])
            self.seen.update(len(batch[1]))
            self.acc(logits, batch[1])
            self.log("seen", self.seen)
            self.log("acc", self.acc)
            self.log("by_hand", (logits.argmax(1) == batch[1]).float().mean())
            self.log("at", self.current_epoch * 100 + self.global_step)
            return {"loss": F.cross_entropy(logits, batch[1]), "logits": logits}

    told = records(Actor("lit", TorchModel(Measured())))
    assert [record["seen"] for record in told] == [64, 128, 192, 256, 320] * 2
    assert [record["at"] for record in told] == [0, 1, 2, 3, 4, 105, 106, 107, 108, 109]
    assert all(record["acc"] == pytest.approx(record["by_hand"]) for record in told)


class Asks(Digits):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1 / self.trainer.estimated_stepping_batches)


class Manual(Digits):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


class Two(Digits):
    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.net[1], self.net[4])]


class Skips(Digits):
    def training_step(self, batch, batch_idx):
        return None


class LogsRows(Digits):
    def training_step(self, batch, batch_idx):
        self.log("rows", batch[0])


class Waits(Digits):
    def configure_optimizers(self):
        made = torch.optim.SGD(self.parameters(), lr=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(made)
        return {"optimizer": made, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Asks, "self.trainer.estimated_stepping_batches, which only a Trainer knows. Make it an argument"),
        (Manual, r"lab\.run\(loop"),
        (Two, "returned 2 optimizers or schedules"),
        (Skips, "returned no loss"),
        (LogsRows, r"self\.log\('rows', \.\.\.\) got a Tensor; a record holds single numbers"),
        (Waits, "patience="),
    ],
)
def test_what_needs_a_trainer_is_an_error_that_says_what_to_do(kind, says):
    with pytest.raises((ModelError, UsageError), match=says):
        records(Actor("lit", TorchModel(kind())))


def test_hooks_that_nobody_calls_are_named():
    class Hooked(Digits):
        def on_train_epoch_end(self):
            raise AssertionError("nobody calls this")

        def validation_step(self, batch, batch_idx):
            raise AssertionError("h3lab validates by itself")

    with pytest.warns(UserWarning, match="Hooked has on_train_epoch_end, which a Trainer calls and h3lab does not"):
        told = records(Actor("lit", TorchModel(Hooked())), validation=(X, y))
    assert "val_accuracy" in told[-1]


def test_with_a_loss_it_trains_by_its_forward_and_can_be_a_student():
    teacher = Actor("teacher", TorchModel(Digits()), epochs=10).fit(X, y)
    with pytest.raises(UsageError, match="this model learns from a teacher by: none"):
        records(Actor("student", TorchModel(Digits())), transfer=Distill(teacher))
    told = records(Actor("student", TorchModel(Digits(), loss="cross_entropy")), transfer=Distill(teacher))
    assert {"soft_loss", "accuracy"} <= told[0].keys() and "train_acc" not in told[0]
    with pytest.raises(UsageError, match="takes no weights"):
        records(Actor("weighted", TorchModel(Digits())), class_weight="balanced")


def test_a_function_that_makes_one_has_to_say_its_rate():
    def build(spec):
        return Digits(features=spec.features, classes=spec.outputs, lr=0.05)

    with pytest.raises(ModelError, match=r"TorchModel\(build, lr=0\.05\)"):
        records(Actor("lit", TorchModel(build)))
    assert records(Actor("lit", TorchModel(build, lr=0.05)))[-1]["train_acc"] > 0.3


def test_it_is_kept_in_a_file_and_opened_with_its_class(tmp_path):
    actor = Actor("lit", TorchModel(Small, lr=0.02), epochs=2).fit(X, y)
    actor.save(tmp_path / "lit.h3")
    again = load(tmp_path / "lit.h3", build=Small)
    np.testing.assert_array_equal(again.predict(X), actor.predict(X))
    assert type(again.native) is Small
