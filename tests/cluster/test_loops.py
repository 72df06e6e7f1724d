"""Any loop is a run: everything that holds for a training's run, from the user's side."""

import math
import os
import signal
import threading
import time

import numpy as np
import pytest

import h3lab as h3
from h3lab.cluster.attempt import Attempt
from h3lab.errors import NameInUse, NotFittedError, RunFailed, TravelError, UnknownName, UsageError
from h3lab.running import snapshots
from h3lab.settings import Setting

from .conftest import timeless, until

PACE = 0.002


def kill(run, what="rank"):
    """SIGKILL its process, or the engine that it runs on."""
    attempt = Attempt.newest(run.folder)
    os.kill(attempt.start(0)["pid"] if what == "rank" else attempt.slots[0]["pid"], signal.SIGKILL)
    return attempt.number


def back(run, attempt):
    """Until it goes on in the next attempt, some steps beyond where it was."""
    step = run.step
    until(lambda: Attempt.newest(run.folder).number > attempt and run.step > step + 20, what="it goes on")


def test_the_loop_of_the_contract_runs_as_written(lab):
    def loop(settings):
        w = 0.0
        while True: w -= settings.lr * 2 * (w - 3); yield {"loss": (w - 3) ** 2}  # fmt: skip  # noqa: E701, E702

    run = lab.run(loop, name="descent", lr=0.01)
    assert run.set(lr=0.1).startswith("lr=0.1 took effect at step "), "its rank lives in a moment, and is waited for"
    run.stop()
    frame = run.frame()
    assert len(frame) > 0
    assert list(frame) == ["step", "seconds", "loss"] and run.settings.lr == 0.1
    assert (frame["step"] == np.arange(1, len(frame) + 1)).all() and run.stopped_at == len(frame)
    # The journal says at which step the rate changed, so the whole descent can be told in advance.
    changed = next(event["step"] for event in run.events if event["event"] == "set")
    w, expected = 0.0, []
    for step in range(1, min(len(frame), changed + 50) + 1):
        w -= (0.1 if step >= changed else 0.01) * 2 * (w - 3)
        expected.append((w - 3) ** 2)
    assert frame["loss"][: len(expected)].tolist() == expected
    assert repr(run).startswith("descent/") and "stopped" in repr(run) and run.state == "stopped"


def walking(settings, state=None):
    """Its numbers tell whether a step came twice or never."""
    n = 0 if state is None else state["n"]
    while True:
        time.sleep(PACE)
        n += 1
        yield {"n": n, "lr": settings.lr}
        if n % 10 == 0:
            yield h3.snapshot({"n": n})


def counting(settings):
    n = 0
    while True:
        time.sleep(PACE)
        n += 1
        yield {"n": n, "lr": settings.lr}


def whole(run):
    """The journal after any number of deaths: every step once, with the values that an undisturbed loop has."""
    frame = run.frame()
    assert frame["step"].tolist() == frame["n"].tolist() == list(range(1, len(frame) + 1))
    changes = {event["step"]: event["values"]["lr"] for event in run.events if event["event"] == "set"}
    lr, expected = 0.5, []
    for step in frame["step"]:
        expected.append(lr := changes.get(step, lr))
    assert frame["lr"].tolist() == expected
    return frame


@pytest.mark.parametrize("what", ["rank", "engine"])
def test_a_loop_goes_on_from_its_last_snapshot(lab, what):
    run = lab.run(walking, name=f"killed-{what}", lr=0.5, snapshot_every=10)
    until(lambda: run.step > 30)
    run.set(lr=0.25)
    until(lambda: run.kept["n"] > 20)
    attempt = kill(run, what)
    back(run, attempt)
    run.stop()
    whole(run)
    begun = [event["from_step"] for event in run.events if event["event"] == "attempt"]
    assert len(begun) == 2 and begun[0] == 1 and begun[1] > 20 and begun[1] % 10 == 1
    # Stopped at the yield of a step, it does not come to the snapshot behind it.
    assert run.kept["n"] == (len(run.frame()) - 1) // 10 * 10


def test_a_loop_without_snapshots_starts_from_its_beginning(lab):
    run = lab.run(counting, lr=0.5)
    until(lambda: run.step > 30)
    run.set(lr=0.25)
    until(lambda: run.step > 60)
    attempt = kill(run)
    back(run, attempt)
    run.stop()
    whole(run)
    assert [event["from_step"] for event in run.events if event["event"] == "attempt"] == [1, 1]
    with pytest.raises(NotFittedError, match=r"h3\.snapshot\(state\), and what it returns"):
        _ = run.kept


def test_a_paused_loop_is_paused_when_it_comes_back(lab):
    run = lab.run(walking, name="paused", lr=0.5)
    until(lambda: run.step > 30)
    assert run.pause().startswith("paused after step")
    held = run.step
    until(lambda: run.state == "paused")
    assert snapshots.newest_step(run.folder) >= held - 10, "a pause may last"
    attempt = kill(run)
    until(lambda: run.state == "paused" and Attempt.newest(run.folder).number > attempt)
    run.resume()
    until(lambda: run.step > held + 20)
    run.stop()
    whole(run)


def test_following_attaching_and_looking_at_a_loop(lab):
    def loop(settings):
        for epoch in range(1, 4):
            for _ in range(5):
                yield {"epoch": epoch, "d_loss": 1 / epoch, "g_loss": float(epoch)}
        return {"epochs": epoch}

    run = lab.run(loop, name="gan", seed=3)
    records = list(run)
    assert [record["step"] for record in records] == list(range(1, 16)) and records[-1]["epoch"] == 3
    assert run.wait() is run and run.state == "finished" and run.kept == {"epochs": 3}
    again = h3.attach("gan")
    assert timeless(again.records()) == timeless(records) and again.kept == run.kept and again.settings.seed == 3
    assert "epoch 3" in repr(again) and list(again.frame()) == ["step", "epoch", "seconds", "d_loss", "g_loss"]
    bundle = again._repr_mimebundle_()
    assert bundle["image/png"] and "gan" in bundle["text/plain"]


def test_a_loop_has_no_actor_and_a_training_has_kept_nothing(lab, digits):
    def loop(settings):
        yield {"loss": 1.0}

    run = lab.run(loop, name="bodiless").wait()
    with pytest.raises(UsageError, match=r"run 'bodiless/1' is a loop of one's own.*run\.kept.*run\.frame"):
        _ = run.actor
    from sklearn.linear_model import LogisticRegression

    trained = lab.train(h3.Actor("bodily", LogisticRegression(max_iter=5)), digits)
    with pytest.raises(UsageError, match=r"run\.actor"):
        _ = trained.kept
    trained.stop()


def test_an_explicit_snapshot_is_the_newest_that_the_loop_has_yielded(lab):
    run = lab.run(walking, name="asked", lr=0.5, snapshot_every=10**6)
    until(lambda: run.step > 25)
    step = int(run.snapshot().removeprefix("snapshot after step "))
    assert step % 10 == 0 and run.kept == {"n": step} and snapshots.newest_step(run.folder) == step
    run.stop()
    bare = lab.run(counting, name="unasked", lr=0.5)
    until(lambda: bare.step > 5)
    with pytest.raises(UsageError, match=r"yield h3\.snapshot\(state\)"):
        bare.snapshot()
    assert bare.state == "training"
    bare.stop()


def test_snapshots_that_come_too_fast_are_passed_over_and_the_last_one_is_kept(lab):
    def loop(settings, state=None):
        for n in range(1, 20_001):
            yield {"n": n}
            yield h3.snapshot({"n": n})

    run = lab.run(loop, name="eager").wait()
    assert run.kept == {"n": 20_000}
    written = [event for event in run.events if event["event"] == "snapshot"]
    assert 1 <= len(written) <= 1 + run.records()[-1]["seconds"], "about one a second"


def test_an_exception_in_a_loop_fails_the_run_with_its_traceback_and_keeps_the_last_snapshot(lab):
    def loop(settings, state=None):
        for n in range(1, 6):
            yield {"n": n}
            yield h3.snapshot({"n": n, "w": np.full(3, n)})
        raise ArithmeticError("the sixth step")

    run = lab.run(loop, name="broken")
    with pytest.raises(RunFailed, match=r"(?s)ArithmeticError: the sixth step.*in loop"):
        run.wait()
    assert run.error["type"] == "ArithmeticError" and run.kept["n"] == 5 and run.kept["w"].tolist() == [5, 5, 5]
    assert len(run.records()) == 5


def test_a_wrong_yield_fails_the_run_and_says_what_to_yield(lab):
    def loop(settings):
        yield {"loss": 1.0}
        yield 0.5

    told = r"(?s)UsageError: wrong yielded 0\.5 \(float\); expected a dict of metrics.*in loop\n    yield 0\.5"
    with pytest.raises(RunFailed, match=told):
        lab.run(loop, name="wrong").wait()


def test_no_number_is_recorded_and_ends_nothing(lab):
    def loop(settings):
        for value in (1.0, math.nan, math.inf, 2.0):
            yield {"loss": value}

    run = lab.run(loop, name="nan").wait()
    losses = [record["loss"] for record in run.records()]
    assert math.isnan(losses[1]) and losses[2] == math.inf and losses[3] == 2.0 and run.state == "finished"


def test_settings_of_every_kind_are_steered(lab):
    def loop(settings):
        while True:
            time.sleep(PACE)
            yield {"value": settings.lr * settings.size, "on": settings.on, "letters": len(settings.word)}

    bounded = Setting("lr", float, 0.1, low=0.01, high=1.0)
    run = lab.run(loop, name="kinds", lr=bounded, size=2, on=False, word="a")
    until(lambda: run.step > 5)
    run.set(lr=0.5, size=4, on=True, word="abc")
    until(lambda: run.records()[-1].get("letters") == 3)
    assert {"value": 2.0, "on": True, "letters": 3}.items() <= run.records()[-1].items()
    for wrong, told in (({"lr": 2}, "from 0.01 to 1"), ({"size": 0.5}, "whole number"), ({"on": 1}, "True or False")):
        with pytest.raises(UsageError, match=told):
            run.set(**wrong)
    with pytest.raises(UnknownName, match="'size'"):
        run.set(sise=3)
    assert [setting["name"] for setting in run.info["settings"]] == ["lr", "size", "on", "word"]
    run.stop()


def test_wrong_loops_are_refused_before_anything_starts(lab):
    lock = threading.Lock()

    def holds(settings):
        with lock:
            yield {}

    def no_yield(settings):
        return {"loss": 0.0}

    for loop, kind, told, values in (
        (holds, TravelError, r"loop\.<lock>.*inside the loop", {}),
        (no_yield, UsageError, "no_yield has no yield", {}),
        (counting, UsageError, "ranks=2 came; a loop of one's own is one process", {"ranks": 2}),
        (counting, UsageError, "snapshot_every=0 came", {"snapshot_every": 0}),
        (counting, UsageError, "lr is a list", {"lr": [1]}),
        (counting, UsageError, "came as a name", {"name": "a/b"}),
    ):
        with pytest.raises(kind, match=told):
            lab.run(loop, **values)
    assert not lab.runs


def test_a_name_that_still_runs_is_in_use(lab):
    first = lab.run(counting, lr=0.5)
    with pytest.raises(NameInUse, match=r"counting.*replace=True"):
        lab.run(counting, lr=0.5)
    second = lab.run(counting, lr=0.5, replace=True)
    assert first.state == "stopped" and second.name == f"counting/{int(first.name.split('/')[1]) + 1}"
    second.stop()


def test_metrics_with_the_names_of_a_state_confuse_nothing(lab):
    def loop(settings):
        yield {"state": 1.0, "name": 2.0, "message": 3.0, "attempt": 4.0, "loss": 0.5}

    run = lab.run(loop, name="names").wait()
    status = run.status()
    assert status["state"] == "finished" and status["name"] == run.name and status["loss"] == 0.5
    assert run.frame()["state"].tolist() == [1.0] and "finished" in repr(run)
