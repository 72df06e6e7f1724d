"""A run seen from its folder alone, as whoever looks at it years later sees it: no lab, no rank."""

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

from h3lab.actor import Actor
from h3lab.cluster.launch import Launch
from h3lab.errors import LabError, NotFittedError, RunFailed, UnknownName
from h3lab.feeds.feed import Feed
from h3lab.home import replace_file
from h3lab.running import journal, listing, results, snapshots
from h3lab.running.folder import RunFolder
from h3lab.running.run import Run
from h3lab.serial import codec
from h3lab.settings import Setting
from h3lab.training.loop import train

EPOCHS = 3


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("H3LAB_HOME", str(tmp_path))


@pytest.fixture
def rows():
    generator = np.random.default_rng(0)
    y = np.arange(60) % 3
    return generator.normal(size=(60, 4)) + y[:, None], y


def folder_of(name="digits", state="training", created=1.0, **more):
    folder = RunFolder.claim(name)
    rate = Setting("lr", float, 1e-3, low=0).to_json()
    folder.write_info(name=name, created=created, epochs=EPOCHS, steps_per_epoch=2, settings=[rate], values={}, **more)
    folder.write_state(state, attempt=1)
    return folder


@pytest.fixture
def begun(rows):
    """A run's folder after its launch, and the training that its rank would iterate."""
    folder = folder_of()
    actor = Actor("digits", SGDClassifier(loss="log_loss"), epochs=EPOCHS, batch_size=30)
    Launch(actor, Feed.of(*rows), settings={"seed": 0}).write(folder)
    launch = Launch.read(folder)
    return folder, train(launch.actor, launch.data, seed=0)


def test_an_actor_before_the_first_snapshot_is_refused_and_says_what_to_do(begun):
    with pytest.raises(NotFittedError, match=r"'digits/1' is training and has no snapshot yet; run\.wait\(\)"):
        results.actor_of(begun[0])


def test_the_newest_snapshot_answers_until_there_is_a_result(begun, rows):
    folder, training = begun
    for _ in range(2):
        next(training)
    snapshots.write(folder, training.step, training.snapshot())
    halfway = training.actor.predict_proba(rows[0])
    for _ in training:
        pass
    assert (Run(folder).actor.predict_proba(rows[0]) == halfway).all()
    replace_file(folder.result, codec.pack({"step": training.step, "model": dict(training.model.parameters())}))
    ended = training.actor.predict_proba(rows[0])
    assert (Run(folder).actor.predict_proba(rows[0]) == ended).all() and (ended != halfway).any()


def test_the_result_is_loaded_into_the_actor_that_was_passed(begun, rows):
    folder, training = begun
    for _ in training:
        pass
    replace_file(folder.result, codec.pack({"step": training.step, "model": dict(training.model.parameters())}))
    folder.write_state("finished", attempt=1)
    passed = Actor("digits", SGDClassifier(loss="log_loss"))
    assert Run(folder, passed).wait().state == "finished"
    assert (passed.predict(rows[0]) == training.actor.predict(rows[0])).all()


def test_a_failed_run_raises_with_the_remote_traceback():
    folder = folder_of()
    results.raise_failure(folder)
    error = {"type": "ValueError", "message": "no", "traceback": "Traceback: line 7", "rank": 1, "host": "there"}
    folder.write_state("failed", attempt=1, error=error)
    with pytest.raises(RunFailed, match=r"(?s)'digits/1' failed, rank 1 on there: ValueError: no.*line 7"):
        Run(folder).wait()
    folder.write_state("failed", attempt=1)
    with pytest.raises(RunFailed, match="no reason was left"):
        list(Run(folder))


def write(folder, attempt, from_step, steps):
    writer = journal.Writer(folder.journal, attempt, from_step)
    for step in steps:
        writer.record({"step": step, "epoch": 1, "seconds": step / 10, "loss": 1 / step})
    return writer


def test_records_of_two_attempts_are_one_curve():
    folder = folder_of(state="finished")
    write(folder, 1, 1, range(1, 9)).close()
    writer = write(folder, 2, 6, range(6, 13))
    writer.event("set", control=1, step=9, values={"lr": 0.5})
    writer.close()
    run = Run(folder)
    assert run.frame()["step"].tolist() == list(range(1, 13)) and run.step == 12
    assert [record["step"] for record in run] == list(range(1, 13))
    assert run.settings.lr == 0.5 and run.status()["steps_per_second"] == pytest.approx(10)
    assert [event["event"] for event in run.events] == ["attempt", "attempt", "set"]


def test_controls_change_nothing_once_it_has_ended():
    folder = folder_of(state="finished")
    run = Run(folder)
    assert run.set(lr=1e-2) == run.pause() == run.resume() == run.stop() == run.snapshot() == "finished"
    assert folder.controls() == []
    with pytest.raises(UnknownName, match="Did you mean 'lr'"):
        run.set(lrr=1e-2)


def test_controls_are_recorded_while_no_rank_lives():
    folder = folder_of(state="queued")
    assert Run(folder).set(lr=0.1) == "recorded: the run is queued, and this holds from its first step on"
    assert folder.controls() == [(1, {"set": {"lr": 0.1}})]


def test_waiting_ends_with_its_time():
    assert Run(folder_of()).wait(timeout_seconds=0).state == "training"


def test_only_what_has_ended_is_deleted():
    folder = folder_of()
    with pytest.raises(LabError, match=r"run\.stop\(\)"):
        Run(folder).delete()
    folder.write_state("stopped", attempt=1)
    run = Run(folder)
    run.delete()
    assert not folder.path.exists() and "digits/1" in repr(run)


def test_logs_are_in_the_order_of_attempts():
    folder = folder_of()
    for name, text in {"rank0.0002": "c", "rank1.0001": "b", "rank0.0001": "a\nlast"}.items():
        (folder.logs / f"{name}.log").write_text(text)
    run = Run(folder)
    assert run.logs().split() == "==> rank0.0001 <== a last ==> rank1.0001 <== b ==> rank0.0002 <== c".split()
    assert run.logs(rank=1) == "b" and run.logs(lines=1) == "c"


def test_every_run_in_a_table_newest_first():
    write(folder_of("old", "finished", created=1.0), 1, 1, range(1, 4)).close()
    folder_of("new", "queued", created=2.0)
    RunFolder.claim("claimed")  # its notebook died before it was started
    table = listing.runs()
    assert table["name"].tolist() == ["new/1", "old/1"] and table["step"].tolist()[1] == 3
    told = ["name", "state", "epoch", "step", "loss", "val_loss", "val_accuracy", "seconds", "started", "lab"]
    assert list(table.columns) == told
