"""TorchModel keeps every promise of a Model, and each of its arguments does what it says."""

import copy
import warnings

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from torch import nn

from h3lab.actor import Actor
from h3lab.backends._torch import TorchModel
from h3lab.batch import Batch
from h3lab.errors import ModelError, NotFittedError, SpecMismatch, UnknownName, UsageError
from h3lab.feeds.feed import Feed
from h3lab.settings import Settings
from h3lab.testing import check_model
from h3lab.training.loop import train


def network(spec):
    return nn.Sequential(nn.Linear(spec.features, 16), nn.ReLU(), nn.Linear(16, spec.outputs))


def noisy_network(spec):
    return nn.Sequential(
        nn.Linear(spec.features, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, spec.outputs)
    )


def rows(n=60, features=5, classes=3, seed=0):
    generator = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return (generator.normal(size=(n, features)) + y[:, None]).astype(np.float32), y


def built(feed, seed=0, **arguments):
    model = TorchModel(arguments.pop("build", network), **{"lr": 0.01, **arguments})
    model.build(feed.spec, seed)
    return model


def whole(feed):
    return feed.batch(slice(None))


def step(model, batch, **values):
    return model.step(batch, Settings(model.settings, **values))


def same(one, two):
    return one.keys() == two.keys() and all(np.array_equal(value, two[name]) for name, value in one.items())


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"optimizer": "adamw", "clip_norm": 1.0},
        {"optimizer": "momentum", "lr": 0.05},
        {"optimizer": "rmsprop", "lr": 0.01},
        {"optimizer": "adagrad", "lr": 0.1},
        {"optimizer": lambda parameters, lr: torch.optim.NAdam(parameters, lr=lr)},
        {"precision": "float64"},
        {"accumulate": 3},
        {"scheduler": lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.999)},
    ],
    ids=lambda arguments: ", ".join(arguments) or "defaults",
)
def test_it_keeps_the_promises_of_a_model(arguments):
    check_model(lambda: TorchModel(network, **{"lr": 0.02, **arguments}), random=True)


def test_it_keeps_them_in_a_regression():
    check_model(lambda: TorchModel(network, lr=0.03), task="regression", epochs=60, random=True)


def test_it_keeps_them_with_dropout_and_batch_norm():
    check_model(lambda: TorchModel(noisy_network, lr=0.02), noisy=True, random=True)


# ---- Random states


def test_training_and_the_users_random_numbers_leave_each_other_alone():
    feed = Feed.of(*rows())
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    quiet, disturbed = built(feed, build=noisy_network), built(feed, build=noisy_network)
    for _ in range(4):
        step(quiet, whole(feed))
        step(disturbed, whole(feed))
        state = torch.get_rng_state()
        torch.rand(7)
        step(quiet, whole(feed))
        torch.set_rng_state(state)
        step(disturbed, whole(feed))
    assert same(quiet.parameters(), disturbed.parameters())
    assert torch.equal(torch.rand(3), expected)


def test_a_teacher_forced_error_gives_the_users_stream_back():
    feed = Feed.of(*rows())
    model = built(feed, build=noisy_network)
    state = torch.get_rng_state()
    with pytest.raises(ModelError):
        step(model, Batch(np.zeros((4, 9), np.float32), np.zeros(4, np.int64)))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_given_module_is_copied_and_its_weights_are_kept():
    feed = Feed.of(*rows())
    module = network(feed.spec)
    before = copy.deepcopy(module.state_dict())
    model = built(feed, build=module)
    assert np.array_equal(model.parameters()["0.weight"], before["0.weight"].numpy())
    step(model, whole(feed))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not np.array_equal(model.parameters()["0.weight"], before["0.weight"].numpy())


# ---- Arguments


def test_parameters_are_scikit_learns():
    model = TorchModel(network, lr=0.5)
    assert model.get_params()["build"] is network
    other = clone(model).set_params(lr=0.25, build=noisy_network)
    assert (other.lr, other.get_params()["build"], model.lr) == (0.25, noisy_network, 0.5)
    with pytest.raises(UnknownName, match="Did you mean 'lr'"):
        model.set_params(Ir=1)
    assert repr(model) == "TorchModel(network, lr=0.5)"
    assert repr(TorchModel(nn.Linear(1, 1), loss=nn.MSELoss())) == "TorchModel(Linear(...), loss=MSELoss(...))"


def test_what_set_lr_sets_is_multiplied_by_the_schedule():
    feed = Feed.of(*rows())
    seen = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(self.param_groups[0]["lr"])
            return super().step(closure)

    def halving(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)

    model = built(feed, lr=0.8, optimizer=lambda p, lr: Watched(p, lr=lr), scheduler=halving)
    for lr in (0.8, 0.8, 0.8, 0.08, 0.08):
        step(model, whole(feed), lr=lr)
    assert seen == pytest.approx([0.8, 0.8, 0.4, 0.04, 0.02])
    again = built(feed, lr=0.8, optimizer=lambda p, lr: Watched(p, lr=lr), scheduler=halving)
    again.load_state(model.state())
    seen.clear()
    step(again, whole(feed), lr=0.08)
    step(again, whole(feed), lr=0.8)
    assert seen == pytest.approx([0.02, 0.1])


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 4], 0.1),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=20),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o,
            [torch.optim.lr_scheduler.LinearLR(o, 0.1), torch.optim.lr_scheduler.CosineAnnealingLR(o, 10)],
            milestones=[3],
        ),
    ],
    ids=["milestones", "one cycle", "two in a row"],
)
def test_schedules_go_on_from_a_state(scheduler):
    feed = Feed.of(*rows())
    one = built(feed, optimizer="sgd", scheduler=scheduler)
    for _ in range(5):
        step(one, whole(feed))
    two = built(feed, seed=3, optimizer="sgd", scheduler=scheduler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR warns of its own inner calls
        two.load_state(one.state())
        for _ in range(6):
            assert step(one, whole(feed)) == step(two, whole(feed))
    assert same(one.parameters(), two.parameters())


def test_pieces_add_up_to_the_whole_batch():
    X, y = rows(61)
    feed = Feed.of(X, y, weight=np.linspace(0.5, 1.5, len(y)))
    plain, pieces = built(feed, optimizer="sgd"), built(feed, optimizer="sgd", accumulate=4)
    for _ in range(5):
        one, two = step(plain, whole(feed)), step(pieces, whole(feed))
        assert two == pytest.approx(one, rel=1e-5)
    for name, value in plain.parameters().items():
        np.testing.assert_allclose(pieces.parameters()[name], value, rtol=1e-5, atol=1e-6)


def test_shares_add_up_to_the_whole_batch():
    feed = Feed.of(*rows(50), weight=np.linspace(0.1, 2, 50))
    batch, model = whole(feed), built(feed, optimizer="sgd")
    step(model, batch)
    for soft in (None, np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)):
        settings = Settings(model.settings) if soft is None else taught(model)
        parts = batch if soft is None else batch.with_soft(soft)
        full = model._update._parts(parts, settings, 50)
        shares = [model._update._parts(parts.take(slice(a, b)), settings, 50) for a, b in ((0, 17), (17, 50), (50, 50))]
        for name in full:
            values = [torch.as_tensor(share[name]).item() for share in (full, *shares)]
            assert sum(values[1:]) == pytest.approx(values[0], rel=1e-5)


def taught(model, **values):
    from h3lab.transfer import Distill

    return Settings([*model.settings, *Distill(len).settings], **values)


def test_clip_norm_bounds_an_update():
    feed = Feed.of(*rows())
    model = built(feed, optimizer="sgd", lr=1.0, clip_norm=1e-3)
    before = model.parameters()
    step(model, whole(feed))
    moved = sum(float(np.square(value - before[name]).sum()) for name, value in model.parameters().items())
    assert moved**0.5 == pytest.approx(1e-3, rel=1e-3)


def test_bfloat16_computes_in_it_and_keeps_parameters_in_float32():
    feed = Feed.of(*rows())
    seen = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network(feed.spec)

        def forward(self, x):
            out = self.inner(x)
            seen.append(out.dtype)
            return out

    model = built(feed, build=lambda spec: Net(), precision="bfloat16")
    losses = [step(model, whole(feed))["loss"] for _ in range(60)]
    assert losses[-1] < 0.6 * losses[0]
    assert set(seen) == {torch.bfloat16}
    assert model.logits(whole(feed).x).dtype == np.float32
    assert {value.dtype for value in model.parameters().values()} == {np.dtype(np.float32)}


def test_a_compiled_network_learns_the_same():
    feed = Feed.of(*rows())
    plain, compiled = built(feed), built(feed, compile="eager")
    for _ in range(3):
        assert step(plain, whole(feed)) == step(compiled, whole(feed))
    assert same(plain.parameters(), compiled.parameters())


def test_a_step_of_ones_own():
    feed = Feed.of(*rows())

    def own(module, batch):
        assert module.training and isinstance(batch.x, torch.Tensor) and batch.y.dtype == torch.int64
        out = module(batch.x)
        loss = nn.functional.cross_entropy(out, batch.y)
        return {"loss": loss, "largest": out.abs().max()}

    plain, model = built(feed), built(feed, step=own)
    assert model.capabilities.soft_targets == ()
    for _ in range(3):
        told = step(model, whole(feed))
        assert told["loss"] == step(plain, whole(feed))["loss"] and told["largest"] > 0
    assert same(plain.parameters(), model.parameters())
    with pytest.raises(ModelError, match="0-d tensor"):
        step(built(feed, step=lambda module, batch: 1.0), whole(feed))


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", lambda outputs, y: (outputs - y).abs() ** 1.5, None])
def test_losses_of_a_regression(loss):
    X, _ = rows(200)
    feed = Feed.of(X, (X @ np.arange(5.0)).astype(np.float32))
    model = built(feed, loss=loss, lr=0.02)
    first = step(model, whole(feed))["loss"]
    for _ in range(150):
        last = step(model, whole(feed))["loss"]
    assert last < 0.2 * first


def test_losses_of_a_classification():
    feed = Feed.of(*rows())
    smooth = nn.CrossEntropyLoss(label_smoothing=0.1)
    for loss in ("cross_entropy", "hinge", smooth, lambda o, y: nn.functional.cross_entropy(o, y, reduction="none")):
        model = built(feed, loss=loss)
        losses = [step(model, whole(feed))["loss"] for _ in range(80)]
        assert losses[-1] < losses[0]
    heavy = Batch(whole(feed).x, whole(feed).y, np.ones(60))
    with pytest.raises(UsageError, match="reduction='none'"):
        step(built(feed, loss=smooth), heavy)


def test_several_targets():
    X, _ = rows(100)
    feed = Feed.of(X, np.column_stack([X.sum(1), X[:, 0]]))
    model = built(feed, lr=0.05)
    losses = [step(model, whole(feed))["loss"] for _ in range(100)]
    assert model.logits(X).shape == (100, 2) and losses[-1] < 0.1 * losses[0]


# ---- Inputs


def test_sparse_rows_are_made_dense_a_batch_at_a_time():
    X, y = rows()
    X[X < 0.5] = 0
    dense, thin = Feed.of(X, y), Feed.of(sparse.csr_matrix(X), y)
    one, two = built(dense), built(thin)
    assert step(one, whole(dense)) == step(two, whole(thin))
    assert np.array_equal(one.logits(X), two.logits(sparse.csr_matrix(X)))


def test_blocks_are_keywords_and_whole_numbers_stay_whole():
    X, y = rows()

    class Net(nn.Module):
        def __init__(self, spec):
            super().__init__()
            self.words = nn.Embedding(7, 4)
            self.last = nn.Linear(4 + spec.blocks["numbers"].shape[0], spec.outputs)

        def forward(self, numbers, words):
            return self.last(torch.cat([numbers, self.words(words).mean(1)], 1))

    feed = Feed.of({"numbers": X, "words": np.arange(120).reshape(60, 2) % 7}, y)
    model = built(feed, build=Net)
    losses = [step(model, whole(feed))["loss"] for _ in range(50)]
    assert losses[-1] < losses[0] and model.logits(whole(feed).x).shape == (60, 3)


def test_images_and_bytes():
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    feed = Feed.of(images, np.arange(40) % 2)

    def convolution(spec):
        assert spec.shape == (1, 8, 8)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(spec.outputs))

    model = built(feed, build=convolution)
    assert model.parameters()["3.weight"].shape == (2, 144)
    step(model, whole(feed))


def test_rows_that_may_not_be_written_are_copied():
    X, y = rows()
    X.flags.writeable = False
    model = built(Feed.of(X, y), build=lambda spec: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 3)))
    before = X.copy()
    step(model, Batch(X, y))
    model.logits(X)
    assert np.array_equal(X, before)


def test_asking_in_between_leaves_dropout_on_and_native_off():
    feed = Feed.of(*rows())
    model = built(feed, build=noisy_network)
    step(model, whole(feed))
    model.logits(whole(feed).x)
    assert model.module_.training
    assert not model.native.training and model.native is model.module_
    step(model, whole(feed))
    assert model.module_.training
    with torch.inference_mode():
        native = model.native(torch.from_numpy(whole(feed).x)).numpy()
    assert np.array_equal(native, model.logits(whole(feed).x))


def test_a_lost_loss_changes_no_parameter():
    X, y = rows()
    model = built(Feed.of(X, y))
    step(model, Batch(X, y))
    before = model.parameters()
    X[3, 2] = np.nan
    assert np.isnan(step(model, Batch(X, y))["loss"])
    assert same(model.parameters(), before)


# ---- Bad input


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda spec: nn.Linear(5, 7), r"returned shape \(60, 7\).*expected shape \(60, 3\).*spec.outputs"),
        (lambda spec: nn.Sequential(nn.Linear(5, 3), nn.Softmax(1)), "ends in Softmax"),
        (lambda spec: "net", "returned str; expected a torch.nn.Module"),
        (lambda spec: nn.Linear(4, 3), r"the module failed: .*a batch of shape \(60, 5\)"),
        (lambda spec: nn.ReLU(), "no parameter that requires a gradient"),
    ],
)
def test_networks_that_do_not_fit(build, message):
    feed = Feed.of(*rows())
    with pytest.raises(ModelError, match=message):
        step(built(feed, build=build), whole(feed))


def test_two_classes_need_two_outputs():
    X, y = rows(classes=2)
    feed = Feed.of(X, y)
    with pytest.raises(ModelError, match="Two classes need two outputs, not one with a sigmoid"):
        step(built(feed, build=lambda spec: nn.Linear(5, 1)), whole(feed))


def test_labels_outside_the_classes():
    X, y = rows()
    model = built(Feed.of(X, y))
    with pytest.raises(SpecMismatch, match=r"labels from 0 to 9, the model knows 3 classes \(0..2\).*classes=10"):
        step(model, Batch(X, np.where(y == 2, 9, y)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"optimizer": "Adam"}, UnknownName, "Did you mean 'adam'"),
        ({"optimizer": 3}, UsageError, r"f\(parameters, lr\)"),
        ({"optimizer": lambda p, lr: None}, UsageError, "returned NoneType"),
        ({"loss": "mse"}, UsageError, "a loss of regression"),
        ({"loss": "cross"}, UnknownName, "cross_entropy"),
        ({"lr": "x"}, UsageError, "lr='x' came; expected a number"),
        ({"precision": "float16"}, UsageError, "float32, float64, bfloat16"),
        ({"accumulate": 0}, UsageError, "accumulate=0"),
        ({"clip_norm": -1.0}, UsageError, "clip_norm=-1.0"),
        ({"device": "gpu"}, UsageError, "expected for example 'cpu'"),
        ({"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau}, UsageError, "patience="),
        ({"scheduler": lambda optimizer: 1}, UsageError, "returned int"),
        ({"build": None}, UsageError, "expected a torch.nn.Module or a function"),
    ],
)
def test_arguments_that_make_no_sense(arguments, error, message):
    feed = Feed.of(*rows())
    with pytest.raises(error, match=message):
        step(built(feed, **arguments), whole(feed))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a process without CUDA")
def test_a_device_that_is_not_there():
    with pytest.raises(UsageError, match="sees no CUDA device"):
        built(Feed.of(*rows()), device="cuda")


def test_it_knows_its_kind_by_its_loss():
    assert [TorchModel(network, loss=loss).task for loss in ("hinge", "huber", None)] == [
        "classification",
        "regression",
        None,
    ]
    with pytest.raises(NotFittedError, match="build"):
        TorchModel(network).step(Batch(np.zeros((1, 1))), Settings())


# ---- What comes back


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # the exporter's own
def test_a_trained_module_goes_to_onnx_and_answers_there_with_the_same_logits(tmp_path):
    reference = pytest.importorskip("onnx.reference")
    images = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)

    def convolutions(spec):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(144, spec.outputs),
        )

    actor = Actor("net", TorchModel(convolutions), epochs=2).fit(images, np.arange(40) % 3)
    torch.onnx.export(
        actor.native,
        (torch.from_numpy(images[:2]),),
        tmp_path / "net.onnx",
        input_names=["x"],
        dynamic_shapes={"input": {0: torch.export.Dim("rows")}},
        verbose=False,
    )
    (logits,) = reference.ReferenceEvaluator(str(tmp_path / "net.onnx")).run(None, {"x": images})
    np.testing.assert_allclose(logits, actor.logits(images), rtol=1e-4, atol=1e-6)


# ---- A step of one's own


def test_what_a_step_returns_beside_the_loss_stands_in_every_record_and_is_a_mean_over_pieces():
    feed = Feed.of(*rows(64))

    def own(module, batch):
        logits = module(batch.x)
        loss = nn.functional.cross_entropy(logits, batch.y)
        return {"loss": loss, "first": batch.y[0], "mean": batch.x.mean(), "rows": float(len(batch)), "two": 2}

    told = list(train(Actor("own", TorchModel(network, step=own), epochs=2, batch_size=32), feed))
    assert len(told) == 4 and all(record["rows"] == 32 and record["two"] == 2 for record in told)
    assert all(isinstance(value, (int, float)) for record in told for value in record.values())
    x = torch.from_numpy(feed.arrays()[0])
    one, pieces = (step(built(feed, step=own, accumulate=n), whole(feed)) for n in (1, 4))
    assert one["mean"] == pytest.approx(x.mean().item(), rel=1e-5) == pytest.approx(pieces["mean"], rel=1e-5)
    assert (one["rows"], pieces["rows"]) == (64, 16)


def test_a_step_is_told_what_it_returned_wrongly():
    feed = Feed.of(*rows())
    for wrong, came in [
        (lambda module, batch: None, "NoneType"),
        (lambda module, batch: module(batch.x), r"a tensor of shape \(60, 3\)"),
        (lambda module, batch: {"accuracy": 1.0}, "NoneType"),
        (lambda module, batch: torch.zeros(()), r"a tensor of shape \(\)"),
    ]:
        with pytest.raises(ModelError, match=rf"step\(module, batch\) returned {came} as loss; expected a 0-d tensor"):
            step(built(feed, step=wrong), whole(feed))


def test_a_step_of_ones_own_is_mixed_precision_where_that_was_asked_for():
    seen = []

    def own(module, batch):
        logits = module(batch.x)
        seen.append(logits.dtype)
        return nn.functional.cross_entropy(logits.float(), batch.y)

    feed = Feed.of(*rows())
    step(built(feed, step=own, precision="bfloat16"), whole(feed))
    assert seen == [torch.bfloat16]
