"""Runs from the user's side: what is refused at once, what fails and how, what comes back."""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.preprocessing import StandardScaler

import h3lab as h3
from h3lab.errors import LabError, NameInUse, NotFittedError, RunFailed, TravelError, UnknownName, UsageError

from .conftest import network, timeless, until


def test_wait_loads_the_result_into_the_actor_that_was_passed(lab, digits):
    actor = h3.Actor("passed", h3.TorchModel(network))
    run = lab.train(actor, digits, epochs=100_000)
    with pytest.raises(NotFittedError, match=r"run\.wait\(\)"):
        actor.predict(digits[0])
    until(lambda: run.step > 3)
    run.stop()
    assert actor.score(*digits) == run.actor.score(*digits)
    assert run.set(lr=1e-2) == run.pause() == run.resume() == run.stop() == "stopped"


def test_wrong_values_and_names_are_refused_before_anything_starts(lab, digits, long_run):
    with pytest.raises(UsageError, match="expected a number"):
        long_run.set(lr="x")
    with pytest.raises(UnknownName, match="Did you mean 'lr'"):
        long_run.set(lrr=1)
    with pytest.raises(UsageError, match="expected a number"):
        lab.train(h3.Actor("refused", h3.TorchModel(network)), digits, lr="x")
    with pytest.raises(LabError, match="2 slots"):
        lab.train(h3.Actor("refused", h3.TorchModel(network)), digits, ranks=3)
    with pytest.raises(NameInUse, match=r"h3\.attach\(.*replace=True"):
        lab.train(h3.Actor(long_run.name.partition("/")[0], h3.TorchModel(network)), digits)
    assert "refused" not in {run.name.partition("/")[0] for run in lab.runs}


def test_replace_ends_the_run_of_that_name(lab, digits, long_run):
    actor = h3.Actor(long_run.name.partition("/")[0], h3.TorchModel(network))
    run = lab.train(actor, digits, epochs=1, replace=True).wait()
    assert long_run.state == "stopped" and run.state == "finished"
    assert run.name != long_run.name


def test_a_third_run_is_queued_and_says_behind_whom(lab, digits, long_run):
    second = lab.train(h3.Actor("second", h3.TorchModel(network)), digits, epochs=100_000)
    third = lab.train(h3.Actor("third", h3.TorchModel(network)), digits, epochs=1)
    until(lambda: "queued behind" in third.folder.state.get("message", ""), what="it says so")
    assert "'second'" in repr(third)
    assert "recorded" in third.set(lr=3e-3)
    second.stop()
    assert third.wait().settings.lr == 3e-3
    assert next(e for e in third.events if e["event"] == "set")["step"] == 1


def test_stop_ends_a_queued_run(lab, digits, long_run):
    second = lab.train(h3.Actor("second", h3.TorchModel(network)), digits, epochs=100_000)
    third = lab.train(h3.Actor("never", h3.TorchModel(network)), digits, epochs=1)
    third.stop()
    assert third.state == "stopped" and third.step == 0
    second.stop()


def test_a_failure_has_the_remote_traceback(lab, digits):
    def broken(spec):
        import torch

        class Broken(torch.nn.Linear):
            def forward(self, x):
                raise ArithmeticError("the seventh layer")

        return Broken(spec.features, spec.outputs)

    run = lab.train(h3.Actor("broken", h3.TorchModel(broken)), digits)
    with pytest.raises(RunFailed, match=r"(?s)ArithmeticError: the seventh layer.*in forward"):
        run.wait()
    assert run.state == "failed" and run.error["type"] == "ModelError"
    assert "the seventh layer" in run.logs() and "the seventh layer" in repr(run)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_good_snapshot(lab, digits):
    run = lab.train(
        h3.Actor("nan", h3.TorchModel(network, optimizer="sgd")), digits, lr=1e-3, epochs=100_000, snapshot_every=5
    )
    until(lambda: run.step > 10)
    run.set(lr=1e30)
    with pytest.raises(RunFailed, match=r"NonFiniteLoss.*step"):
        run.wait()
    assert np.isfinite(run.actor.logits(digits[0][:5])).all()


def test_a_model_that_cannot_travel_is_named(lab, digits):
    import threading

    lock = threading.Lock()
    actor = h3.Actor("stuck", h3.TorchModel(lambda spec: (lock, network(spec))[1]))
    with pytest.raises(TravelError, match=r"actor\.model\._build\.<lock>"):
        lab.train(actor, digits)
    assert "lock" in actor.check(lab)[0]
    assert h3.Actor("fine", h3.TorchModel(network)).check(lab) == []


def test_an_edited_local_module_is_what_the_engine_runs(lab, digits, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text = "import torch\ndef build(spec):\n    return torch.nn.Linear(spec.features, spec.outputs)\nWIDTH = {}\n"
    module = tmp_path / "my_networks.py"
    for width in (1, 2):
        module.write_text(text.format(width) + "def net(spec):\n    print('width', WIDTH)\n    return build(spec)\n")
        sys.modules.pop("my_networks", None)
        import my_networks

        run = lab.train(h3.Actor("edited", h3.TorchModel(my_networks.net)), digits, epochs=1).wait()
        assert f"width {width}" in run.logs()
    sys.modules.pop("my_networks", None)


def test_scikit_learn_models_train_remotely(lab, digits):
    from sklearn.ensemble import RandomForestClassifier

    actor = h3.Actor("forest", RandomForestClassifier(20, warm_start=True))
    run = lab.train(actor, digits, validation=0.2).wait()
    assert len(run.frame()) == 20 and actor.native.n_estimators == 20
    assert actor.score(*digits) > 0.95


def test_distilling_from_a_run(lab, digits):
    from sklearn.linear_model import LogisticRegression

    teacher = lab.train(h3.Actor("tutor", h3.TorchModel(network)), digits, epochs=5).wait()
    student = h3.Actor("pupil", LogisticRegression(max_iter=200))
    run = lab.train(student, digits, transfer=h3.Distill(teacher, temperature=4)).wait()
    assert {"soft_loss", "hard_loss"} <= set(run.frame().columns)
    assert student.score(*digits) > 0.9


def test_start_continues_from_a_run(lab, digits):
    first = lab.train(h3.Actor("base", h3.TorchModel(network)), digits, epochs=5).wait()
    again = lab.train(h3.Actor("more", h3.TorchModel(network)), digits, epochs=1, start=first).wait()
    assert again.records()[0]["loss"] < first.records()[0]["loss"] / 4


def test_following_a_run_gives_every_record_once(lab, digits):
    run = lab.train(h3.Actor("follow", h3.TorchModel(network)), digits, epochs=4)
    steps = [record["step"] for record in run]
    assert steps == list(range(1, run.info["total_steps"] + 1))


class Asynchronous(h3.TorchModel):
    """A model whose metrics would live on a device, so that they are fetched in blocks."""

    @property
    def capabilities(self):
        return replace(super().capabilities, asynchronous=True)


def test_steps_whose_metrics_wait_on_a_device_are_there_at_a_pause_and_at_the_end(lab, digits):
    run = lab.train(h3.Actor("device", Asynchronous(network)), digits, epochs=100_000)
    until(lambda: run.step > 10)
    run.pause()
    assert run.step == run.folder.state["step"]
    run.resume()
    run.stop()
    assert run.frame()["step"].tolist() == list(range(1, run.stopped_at + 1))


def test_rows_to_validate_on_travel_by_storage(lab, digits):
    X, y = digits
    held = (np.tile(X[:500], (4, 1)), np.tile(y[:500], 4))
    settings = {"epochs": 2, "validation": held}
    run = lab.train(h3.Actor("held", h3.TorchModel(network)), (X[500:], y[500:]), **settings).wait()
    assert run.folder.launch.stat().st_size < held[0].nbytes / 10
    local = list(h3.train(h3.Actor("held", h3.TorchModel(network)), (X[500:], y[500:]), **settings))
    assert timeless(run.records()) == timeless(local)


def test_raw_rows_are_split_before_anything_is_fitted_as_they_are_here(lab, digits):
    frame = pd.DataFrame(digits[0]).add_prefix("pixel").assign(digit=digits[1])
    pipeline = h3.Pipeline(h3.Preprocessor("pixels", [f"pixel{i}" for i in range(64)], StandardScaler()), label="digit")
    actor = h3.Actor("raw", h3.TorchModel(network), pipeline, epochs=2, validation=0.25)
    run = lab.train(actor, frame).wait()
    assert timeless(run.records()) == timeless(h3.train(clone(actor), frame))
    assert actor.score(frame) == run.actor.score(frame)


def test_a_refused_call_does_not_end_the_run_that_it_would_replace(lab, digits, long_run):
    name = long_run.name.partition("/")[0]
    with pytest.raises(UsageError):
        lab.train(h3.Actor(name, h3.TorchModel(network)), digits, lr="x", replace=True)
    assert long_run.state == "training"


def test_a_full_journal_pauses_its_run_and_resume_makes_room(lab, digits, monkeypatch):
    monkeypatch.setenv("H3LAB_JOURNAL_BYTES", "2e4")
    run = lab.train(h3.Actor("full", h3.TorchModel(network)), digits, epochs=100_000)
    until(lambda: run.state == "paused", what="the pause")
    full = next(e for e in run.events if e["event"] == "full")
    # It is looked at after each write, and a tenth of a second is written at once.
    assert 2e4 < full["size"] < 1e6 and "run.resume()" in run.logs()
    run.resume()
    until(lambda: run.step > full["step"] + 20, what="it goes on")
    until(lambda: run.state == "paused", what="the next pause")
    monkeypatch.setenv("H3LAB_JOURNAL_BYTES", "much")
    with pytest.raises(UsageError, match="expected a number of bytes"):
        lab.train(h3.Actor("bytes", h3.TorchModel(network)), digits)


def test_runs_lists_and_delete_removes(lab, digits):
    run = lab.train(h3.Actor("gone", h3.TorchModel(network)), digits, epochs=1).wait()
    assert run.name in set(h3.runs()["name"])
    run.delete()
    assert run.name not in set(h3.runs()["name"])
    assert "gone" in repr(run)


def test_watching_several_runs_prints_a_line_each_outside_a_notebook(lab, digits, capsys):
    run = lab.train(h3.Actor("seen", h3.TorchModel(network)), digits, epochs=1).wait()
    capsys.readouterr()
    h3.watch(run, "seen")
    assert capsys.readouterr().out.splitlines() == [repr(run)] * 2
    with pytest.raises(UsageError, match=r"h3\.watch\(run"):
        h3.watch(run, 3)


def test_a_deleted_run_leaves_its_slot_and_its_number_to_others(lab, digits):
    for _ in range(3):
        run = lab.train(h3.Actor("again", h3.TorchModel(network)), digits, epochs=1)
        assert run.name == "again/1", "the number is free again"
        for _ in run:
            pass
        run.delete()
        assert not run.folder.path.exists()
    until(lambda: not any(slot["run"] for slot in lab._folder.status["slots"]), what="free slots")


def test_a_native_model_stopped_before_it_learned_is_stopped(lab, digits):
    from sklearn.linear_model import LogisticRegression

    run = lab.train(h3.Actor("early", LogisticRegression()), digits)
    run.stop()
    assert run.state in ("stopped", "finished")


@pytest.mark.parametrize("ranks", [1, 2])
def test_rows_are_drawn_as_in_a_local_training(lab, digits, ranks):
    settings = {"epochs": 2, "batch_size": 50, "sampling": "balanced", "shuffle": "blocks", "bucket": True}
    X, y = digits
    rare = np.flatnonzero((y != 3) | (np.arange(len(y)) % 9 == 0))
    run = lab.train(h3.Actor("drawn", h3.TorchModel(network)), (X[rare], y[rare]), ranks=ranks, **settings).wait()
    local = timeless(h3.train(h3.Actor("drawn", h3.TorchModel(network)), (X[rare], y[rare]), **settings))
    if ranks == 1:
        assert timeless(run.records()) == local
    assert [r["loss"] for r in run.records()] == pytest.approx([r["loss"] for r in local], abs=1e-5)
