"""What is killed comes back by itself, from its last snapshot, with every step once."""

import json
import os
import signal

import h3lab as h3
from h3lab.cluster.attempt import Attempt

from .conftest import until


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
