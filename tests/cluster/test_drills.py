"""What is killed comes back by itself, from its last snapshot, with every step once."""

import json
import os
import shutil
import signal

import pytest

import h3lab as h3
from h3lab.cluster.attempt import Attempt
from h3lab.cluster.processes import alive
from h3lab.errors import RunFailed

from .conftest import network, until


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def attempts_of(run):
    return [event for event in run.events if event["event"] == "attempt"]


def check_recovered(run, before):
    """It has gone on beyond where it was, in another attempt, and its steps have neither gap nor double."""
    # A rank may go on for a while before its engine's end reaches it.
    attempts = until(lambda: attempts_of(run)[1:] and attempts_of(run), what="another attempt")
    before = max(before, attempts[1]["from_step"])
    until(lambda: run.step > before + 50, what="it goes on")
    run.pause()
    steps = run.frame()["step"].tolist()
    assert steps == list(range(1, len(steps) + 1))
    assert len(attempts_of(run)) == 2


def test_a_killed_rank_comes_back(long_run):
    until(lambda: long_run.step > 150)
    long_run.set(lr=5e-4)
    before = long_run.step
    kill(Attempt.newest(long_run.folder).start(0)["pid"])
    check_recovered(long_run, before)
    assert long_run.settings.lr == 5e-4


def test_a_killed_engine_comes_back_in_its_slot(lab, long_run):
    until(lambda: long_run.step > 150)
    before = long_run.step
    slots = {slot["name"]: slot["pid"] for slot in lab._folder.status["slots"]}
    mine = Attempt.newest(long_run.folder).slots[0]["name"]
    kill(slots[mine])
    check_recovered(long_run, before)
    after = {slot["name"]: slot["pid"] for slot in lab._folder.status["slots"]}
    assert Attempt.newest(long_run.folder).slots[0]["name"] == mine
    assert after[mine] != slots[mine]
    assert {n: p for n, p in after.items() if n != mine} == {n: p for n, p in slots.items() if n != mine}


def test_a_killed_controller_comes_back_with_all_engines(lab, long_run):
    until(lambda: long_run.step > 150)
    before = long_run.step
    cluster = json.loads(next(lab._folder.path.glob("ipython/security/cluster-*.json")).read_text())
    kill(cluster["controller"]["state"]["pid"])
    check_recovered(long_run, before)


def test_ranks_outlive_a_killed_keeper_and_attach_starts_another(lab, long_run):
    keeper = lab._folder.status["pid"]
    kill(keeper)
    until(lambda: not lab._folder.kept, what="the keeper has gone")
    before = long_run.step
    until(lambda: long_run.step > before + 20, what="its rank goes on")
    run = h3.attach(long_run.name)
    until(lambda: lab._folder.status["pid"] != keeper and lab._folder.status["state"] == "ready", what="a new keeper")
    until(lambda: lab._folder.status["slots"][0]["state"] == "ready", what="the slots are found again")
    run.pause()
    assert len([event for event in run.events if event["event"] == "attempt"]) == 1
    run.resume()
    run.stop()
    assert run.state == "stopped"
    # The new keeper can start runs on the engines it has found.
    import numpy as np

    X, y = np.random.default_rng(0).normal(size=(64, 4)), np.arange(64) % 2
    from sklearn.linear_model import LogisticRegression

    assert lab.train(h3.Actor("after", LogisticRegression()), (X, y)).wait().state == "finished"


def test_a_lab_whose_keeper_and_controller_were_killed_comes_back_with_its_run(lab, long_run):
    until(lambda: long_run.step > 150)
    before = long_run.step
    cluster = json.loads(next(lab._folder.path.glob("ipython/security/cluster-*.json")).read_text())
    kill(lab._folder.status["pid"])
    kill(cluster["controller"]["state"]["pid"])
    until(lambda: not lab._folder.kept, what="the keeper has gone")
    check_recovered(h3.attach(long_run.name), before)


def test_whoever_waits_for_a_run_starts_a_keeper_for_it(lab, long_run):
    until(lambda: long_run.step > 150)
    before = long_run.step
    kill(lab._folder.status["pid"])
    until(lambda: not lab._folder.kept, what="the keeper has gone")
    kill(Attempt.newest(long_run.folder).start(0)["pid"])
    assert next(record["step"] for record in long_run if record["step"] > before + 200)
    assert lab._folder.kept
    check_recovered(long_run, before)


def test_an_engine_that_does_not_answer_is_started_again_once_nothing_runs_there(lab, long_run):
    mine = Attempt.newest(long_run.folder).slots[0]["name"]

    def slot(name):
        return next(slot for slot in lab._folder.status["slots"] if slot["name"] == name)

    hung = {name: slot(name)["pid"] for name in ("slot0", "slot1")}
    other = next(name for name in hung if name != mine)
    for pid in hung.values():
        os.kill(pid, signal.SIGSTOP)
    until(lambda: slot(other)["pid"] != hung[other] and slot(other)["state"] == "ready", what="the idle one is back")
    # Its rank does not need the engine, and would lose steps with it.
    assert slot(mine)["state"] == "silent" and slot(mine)["pid"] == hung[mine]
    assert "slot" in repr(lab) and "silent" in repr(lab)
    before = long_run.step
    until(lambda: long_run.step > before + 20, what="the rank goes on")
    long_run.stop()
    until(lambda: slot(mine)["pid"] != hung[mine] and slot(mine)["state"] == "ready", what="the other one is back")


def test_a_run_that_comes_no_further_is_given_up_with_the_end_of_its_log(lab, digits):
    def doomed(spec):
        print("here it dies")
        os.kill(os.getpid(), signal.SIGKILL)

    run = lab.train(h3.Actor("doomed", h3.TorchModel(doomed)), digits)
    with pytest.raises(RunFailed, match=r"(?s)SIGKILL.*given up.*here it dies"):
        run.wait()
    assert run.folder.state["attempt"] == 3


def test_a_run_whose_folder_was_removed_is_forgotten_and_the_others_go_on(lab, digits, long_run):
    keeper = lab._folder.status["pid"]
    gone = lab.train(h3.Actor("removed", h3.TorchModel(network)), digits, epochs=100_000)
    until(lambda: gone.step > 3)
    rank = Attempt.newest(gone.folder).start(0)
    shutil.rmtree(gone.folder.path)
    until(lambda: not alive(rank["pid"], rank["born"]), seconds=5, what="its rank has ended, before its next snapshot")
    until(lambda: gone.name not in [slot["run"] for slot in lab._folder.status["slots"]], what="its slot is free")
    assert lab.train(h3.Actor("beside", h3.TorchModel(network)), digits, epochs=1).wait().state == "finished"
    assert lab._folder.status["pid"] == keeper and long_run.state == "training"
