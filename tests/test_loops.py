"""Loops of one's own, in this process: what they may yield, what they read, what they keep."""

import copy
import functools
import itertools
import math
import random
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

import h3lab as h3
from h3lab import records
from h3lab.errors import UnknownName, UsageError
from h3lab.serial import codec, states
from h3lab.settings import Setting
from h3lab.training.loops import Loop


def descend(settings, state=None):
    w = 0.0 if state is None else state["w"]
    while True:
        w -= settings.lr * 2 * (w - 3)
        yield {"loss": (w - 3) ** 2, "w": w}
        yield h3.snapshot({"w": w})


def take(training, number):
    return list(itertools.islice(training, number))


def timeless(found):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in found]


def yielding(*items):
    def loop(settings, state=None):
        yield from items

    return Loop.of(loop).begin()


# ---- Records


def test_every_yield_is_a_step_and_a_snapshot_is_none():
    found = take(Loop.of(descend, lr=0.25).begin(), 3)
    assert timeless(found) == [
        {"step": 1, "loss": 2.25, "w": 1.5},
        {"step": 2, "loss": 0.5625, "w": 2.25},
        {"step": 3, "loss": 0.140625, "w": 2.625},
    ]
    assert 0 <= found[0]["seconds"] <= found[1]["seconds"] <= found[2]["seconds"]


@pytest.mark.parametrize(
    "value",
    [
        *(0.5, Fraction(1, 2), np.float32(0.5), np.array(0.5), np.array([[0.5]]), torch.tensor(0.5)),
        *(torch.tensor([0.5]), torch.tensor(0.5, requires_grad=True) * 1),
    ],
)
def test_numbers_of_any_library_are_metrics(value):
    (record,) = yielding({"loss": value})
    assert record["loss"] == 0.5 and isinstance(record["loss"], float)


def test_a_metric_without_a_value_is_left_out_and_an_epoch_is_the_loops_own():
    first, second = yielding({"epoch": 1, "loss": 0.5, "val_loss": None}, {"epoch": 2, "flag": True, "count": 2**70})
    assert timeless([first, second]) == [
        {"step": 1, "epoch": 1, "loss": 0.5},
        {"step": 2, "epoch": 2, "flag": True, "count": 2**70},
    ]
    assert list(records.columns(yielding({"loss": 1.0}))) == ["step", "seconds", "loss"], "no column of epochs"


def test_a_loop_that_counts_its_steps_itself_keeps_its_count():
    assert [r["step"] for r in yielding({"step": 100}, {}, {"step": np.int64(200)})] == [100, 101, 200]


def test_no_number_is_a_value_and_the_loop_goes_on():
    found = list(yielding({"loss": math.nan}, {"loss": math.inf}, {"loss": 1.0}))
    assert math.isnan(found[0]["loss"]) and found[1]["loss"] == math.inf and len(found) == 3
    assert '"loss":null,"nonfinite":{"loss":"nan"}' in records.encode(found[0])


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (0.25, r"yielded 0\.25 \(float\); expected a dict of metrics: yield \{'loss'"),
        (None, "yielded None"),
        ((1, 2), "expected a dict"),
        ({"loss": "low"}, r"yielded loss='low' \(str\), which is no number"),
        ({"loss": np.zeros(64)}, r"loss=a ndarray of shape \(64,\), which is no number; .*loss\.mean\(\)"),
        ({"loss": torch.zeros(2, 3)}, r"a Tensor of shape \(2, 3\)"),
        ({"loss": [0.1, 0.2]}, "which is no number"),
        ({"loss": 1j}, "which is no number"),
        ({3: 0.5}, "the key 3; metrics are named by text"),
        ({"seconds": 1.0}, "'seconds', a name that h3lab fills in itself"),
        ({"event": 1.0}, "'event', a name"),
        ({"step": 0}, r"step=0 after step 0; .* Leave it out"),
        ({"step": 1.5}, r"step=1\.5"),
    ],
)
def test_what_is_no_metric_is_said(item, told):
    with pytest.raises(UsageError, match="loop .*" + told):
        next(yielding(item))


def test_the_traceback_shows_the_wrong_yield():
    def loop(settings):
        yield {"loss": 1.0}
        yield 0.5

    with pytest.raises(UsageError) as caught:
        list(Loop.of(loop).begin())
    assert "yield 0.5" in [str(entry.statement).strip() for entry in caught.traceback]


def test_a_loop_that_catches_everything_does_not_hide_a_wrong_yield():
    def loop(settings):
        while True:
            try:
                yield 0.5
            except Exception:
                return

    with pytest.raises(UsageError, match=r"yielded 0\.5"):
        list(Loop.of(loop).begin())


def test_steps_only_grow():
    training = yielding({"step": 7}, {"step": 7})
    assert next(training)["step"] == 7
    with pytest.raises(UsageError, match="step=7 after step 7"):
        next(training)


# ---- Settings


def test_settings_are_declared_by_the_values_given():
    loop = Loop.of(descend, lr=1e-3, momentum=0.9, shift=-1.0, layers=2, noisy=False, kind="adam", eps=np.float64(1e-8))
    lr, momentum, shift, layers, noisy, kind, eps = loop.settings.declared
    assert lr == Setting("lr", float, 1e-3, low=0.0, log=True)
    assert momentum == Setting("momentum", float, 0.9) and shift == Setting("shift", float, -1.0)
    assert (layers.kind, noisy.kind, kind.kind) == (int, bool, str) and eps.log and type(eps.default) is float
    assert dict(loop.settings)["kind"] == "adam"


def test_a_declared_setting_is_taken_as_it_is():
    lr = Setting("lr", float, 0.1, low=0.01, high=1.0, steerable=False)
    loop = Loop.of(descend, lr=lr)
    assert loop.settings.declared == (lr,) and loop.settings.lr == 0.1
    with pytest.raises(UsageError, match="same name twice"):
        Loop.of(descend, rate=lr)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"data": [1, 2]}, r"data is a list; a setting is a number.*functools\.partial\(loop, data=\.\.\.\)"),
        ({"lr": None}, "lr is a NoneType"),
        ({"items": 3}, "cannot be called 'items'"),
        ({"_lr": 3}, "cannot be called"),
        ({"lr": math.nan}, "expected a number"),
    ],
)
def test_what_is_no_setting_is_said(values, told):
    with pytest.raises(UsageError, match=told):
        Loop.of(descend, **values)


def test_settings_change_only_between_two_yields_and_are_read_only():
    seen = []

    def loop(settings):
        while True:
            seen.append((settings.lr, settings["lr"], dict(settings), len(settings), repr(settings)))
            with pytest.raises(AttributeError, match=r"run\.set\(lr=1\)"):
                settings.lr = 1
            with pytest.raises(AttributeError, match="Did you mean 'lr'"):
                _ = settings.lrr
            yield {}

    training = Loop.of(loop, lr=0.5).begin()
    next(training)
    training.settings = training.settings.replace(lr=0.25)
    next(training)
    assert seen == [(lr, lr, {"lr": lr}, 1, f"Settings(lr={lr})") for lr in (0.5, 0.25)]
    with pytest.raises(UnknownName):
        training.settings.replace(width=3)


def test_a_copy_of_the_settings_stays_as_it_was():
    copies = []

    def loop(settings):
        while True:
            copies.append(copy.deepcopy(settings))
            yield {}

    training = Loop.of(loop, lr=0.5).begin()
    next(training)
    training.settings = training.settings.replace(lr=0.25)
    next(training)
    assert [settings.lr for settings in copies] == [0.5, 0.25]


def test_steering_comes_before_each_step():
    rates = []

    def steer(training):
        rates.append(training.step)
        training.settings = training.settings.replace(lr=0.5)

    training = Loop.of(descend, lr=0.01).begin()
    training.before_step = steer
    assert take(training, 2)[0]["w"] == 3.0 and rates == [0, 1]


# ---- What is a loop


def no_yield(settings):
    return {"loss": 1.0}


async def later(settings):
    yield {"loss": 1.0}


def needs_data(settings, data):
    yield {"loss": data}


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (no_yield, "no_yield has no yield; expected a generator function: def loop"),
        (later, "later is async"),
        (needs_data, r"needs_data cannot be called as loop\(settings\).*'data'.*functools\.partial"),
        (3, "3 came as loop"),
        (list, "came as loop"),
        (lambda settings: iter(()), "a lambda has no name"),
    ],
)
def test_what_is_no_loop_is_said(function, told):
    with pytest.raises(UsageError, match=told):
        Loop.of(function)


def test_a_loop_that_has_begun_is_no_loop():
    begun = descend(None)
    with pytest.raises(UsageError, match=r"descend\(\.\.\.\) came, which has begun; give the function itself"):
        Loop.of(begun)
    begun.close()


class Counting:
    def __call__(self, settings):
        yield {"count": 1}


def test_partials_lambdas_and_objects_are_loops_too():
    assert next(Loop.of(functools.partial(needs_data, data=4)).begin())["loss"] == 4
    assert Loop.of(functools.partial(needs_data, data=4)).name == "needs_data"
    assert next(Loop.of(lambda settings: needs_data(settings, 5), "five").begin())["loss"] == 5
    assert next(Loop.of(Counting()).begin())["count"] == 1
    assert next(Loop.of(torch.no_grad()(lambda s: needs_data(s, 6)), "six").begin())["loss"] == 6


def test_a_lambda_that_gives_no_generator_is_said():
    with pytest.raises(UsageError, match="zero returned a int; expected a generator"):
        next(Loop.of(lambda settings: 0, "zero").begin())


def test_a_default_argument_is_not_taken_for_the_state():
    def loop(settings, data=(1, 2)):
        yield {"size": len(data)}

    assert next(Loop.of(loop).begin())["size"] == 2


# ---- Snapshots


def test_a_loop_goes_on_from_its_snapshot_bit_for_bit():
    whole = take(Loop.of(descend, lr=0.01).begin(), 20)
    first = Loop.of(descend, lr=0.01).begin()
    take(first, 8)  # the snapshot after step 8 has not been asked for yet
    tree = codec.unpack(codec.pack(first.snapshot()))
    assert tree["step"] == 7
    second = Loop.of(descend, lr=0.5).begin()
    second.restore(tree)
    assert timeless(take(second, 13)) == timeless(whole[7:])
    with pytest.raises(UsageError, match="has begun"):
        second.restore(tree)


def test_a_snapshot_is_a_copy():
    def loop(settings, state=None):
        w = np.zeros(3)
        yield {}
        yield h3.snapshot({"w": w, "t": (t := torch.zeros(2))})
        w += 1
        t += 1
        yield {}

    training = Loop.of(loop).begin()
    list(training)
    kept = states.from_tree(training.snapshot()["state"])
    assert not kept["w"].any() and not kept["t"].any()


def test_a_loop_that_cannot_take_a_state_may_not_yield_one():
    def loop(settings):
        yield {}
        yield h3.snapshot(1)

    with pytest.raises(UsageError, match=r"def loop\(settings, state=None\)"):
        list(Loop.of(loop).begin())


def test_what_a_loop_returns_is_kept():
    def loop(settings):
        yield {"loss": 1.0}
        return {"w": 4}

    training = Loop.of(loop).begin()
    list(training)
    assert training.result()["step"] == 1 and states.from_tree(training.result()["state"]) == {"w": 4}
    assert training.stopped_at is None


def test_what_it_returns_when_it_is_stopped_is_kept_too():
    def loop(settings):
        w = 0
        try:
            while True:
                yield {"w": (w := w + 1)}
        except GeneratorExit:
            return {"w": w}

    training = Loop.of(loop).begin()
    take(training, 5)
    training.stop()
    training.stop()
    assert training.stopped_at == 5 and states.from_tree(training.result()["state"]) == {"w": 5}
    assert list(training) == []


def test_a_loop_may_not_go_on_when_it_is_stopped():
    def loop(settings, state=None):
        try:
            yield {}
        finally:
            yield h3.snapshot(1)

    training = Loop.of(loop).begin()
    next(training)
    with pytest.raises(UsageError, match=r"return it: except GeneratorExit: return"):
        training.stop()


def test_a_wrong_value_at_the_end_does_not_undo_the_work():
    def loop(settings):
        yield {}
        return object()

    training = Loop.of(loop).begin()
    with pytest.warns(UserWarning, match="what loop returned is not kept: state is a builtins.object"):
        assert len(list(training)) == 1
    assert training.result() is None


# ---- States


def again(value):
    return states.from_tree(codec.unpack(codec.pack(states.to_tree(value))))


def test_a_state_comes_back_with_its_types():
    state = {
        "list": [1, 2.5, None, True, "text", b"bytes", math.inf, 2**100],
        "tuple": (1, (2, [3])),
        3: {"nested": {(1, "a"): ()}, None: "none", 1.5: {}},
        "$h3": {"tensor": 1, "tuple": 2, "dict": 3},
    }
    assert again(state) == state and isinstance(again(state)["tuple"], tuple)
    arrays = {"a": np.arange(6.0).reshape(2, 3)[:, ::2], "e": np.empty((0, 4), np.int8), "z": np.float32(0.1)}
    for name, value in again(arrays).items():
        assert np.array_equal(value, arrays[name]) and value.dtype == arrays[name].dtype
    assert again(np.array(["a", "bc"])).tolist() == ["a", "bc"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.uint8])
def test_tensors_come_back_as_tensors(dtype):
    value = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    assert torch.equal(again({"t": [value]})["t"][0], value) and again(value).dtype == dtype
    assert again(torch.nn.Parameter(torch.ones(2))).tolist() == [1, 1]


def test_networks_optimizers_and_random_states_go_on_where_they_were():
    def start():
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
        return net, torch.optim.Adam(net.parameters(), lr=0.1)

    def step(net, optimizer):
        optimizer.zero_grad()
        loss = net(torch.randn(8, 3)).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item(), random.random(), np.random.random()

    net, optimizer = start()
    step(net, optimizer)
    kept = again(
        {
            "net": net.state_dict(),
            "adam": optimizer.state_dict(),
            "torch": torch.get_rng_state(),
            "python": random.getstate(),
            "numpy": np.random.get_state(),
        }
    )
    expected = [step(net, optimizer) for _ in range(3)]
    net, optimizer = start()
    net.load_state_dict(kept["net"])
    optimizer.load_state_dict(kept["adam"])
    torch.set_rng_state(kept["torch"])
    random.setstate(kept["python"])
    np.random.set_state(kept["numpy"])
    assert [step(net, optimizer) for _ in range(3)] == expected


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (
            {"net": torch.nn.Linear(1, 1)},
            r"state\['net'\] is a torch\.nn\..*for example state\['net'\]\.state_dict\(\)",
        ),
        ([np.random.default_rng(0)], r"state\[0\] is a .*state\[0\]\.bit_generator\.state"),
        ({"a": {"b": {1, 2}}}, r"state\['a'\]\['b'\] is a builtins\.set"),
        (np.array([object()]), "which a snapshot cannot hold"),
        (Decimal(1), "Decimal"),
        ({b"a": 1}, "has b'a' for a key"),
    ],
)
def test_what_no_snapshot_can_hold_is_said_with_its_path(state, told):
    with pytest.raises(UsageError, match=told):
        h3.snapshot(state)
