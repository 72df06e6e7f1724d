"""What has become of an attempt, decided from values alone."""

import pytest

from h3lab.cluster.attempt import TRIES, Attempt, attempts, stuck, verdict
from h3lab.cluster.labfolder import LabFolder
from h3lab.cluster.roster import Roster
from h3lab.cluster.slots import Slots
from h3lab.running.folder import RunFolder


def error(at, released=False, **more):
    return {"at": at, "released": released, "type": "ValueError", **more}


@pytest.mark.parametrize(
    ("state", "ends", "lost", "ranks", "what"),
    [
        ("training", {}, {}, 1, "going"),
        ("training", {0: 0}, {}, 2, "going"),  # the other ends in a moment
        ("training", {0: 1}, {}, 2, "broken"),
        ("training", {1: -9}, {}, 2, "broken"),
        ("training", {}, {1: "its engine has ended"}, 2, "broken"),
        ("finished", {0: 0}, {}, 2, "broken"),  # nobody waits for it
        ("finished", {0: 0}, {}, 1, "over"),
        ("stopped", {0: 0, 1: -9}, {}, 2, "over"),
        ("failed", {0: 1}, {}, 1, "over"),
        ("training", {0: -9}, {}, 1, "lost"),
        ("training", {0: 0}, {}, 1, "lost"),
        ("training", {0: -9}, {1: "its engine has ended"}, 2, "lost"),
    ],
)
def test_what_has_become_of_it(state, ends, lost, ranks, what):
    assert verdict(state, ends, lost, [], ranks).what == what


def test_a_lost_attempt_says_how():
    assert verdict("training", {0: -9}, {}, [], 1).reason == "rank 0 was killed by SIGKILL"
    assert verdict("training", {0: 0}, {}, [], 1).reason == "its ranks ended before the run had"
    found = verdict("training", {0: 7}, {1: "rank 1 was on slot1, whose engine has ended"}, [], 2)
    assert found.reason == "rank 1 was on slot1, whose engine has ended; rank 0 ended with exit code 7"


def test_the_first_error_that_is_no_echo_is_the_cause():
    told = [error(3.0, name="later"), error(1.0, released=True, name="echo"), error(2.0, name="cause")]
    found = verdict("training", {0: 1, 1: 1, 2: 1}, {}, told, 3)
    assert found.what == "failed" and found.error["name"] == "cause"


def test_errors_that_only_say_that_a_peer_has_gone_make_it_lost():
    assert verdict("training", {0: 1, 1: -9}, {}, [error(1.0, released=True)], 2).what == "lost"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("H3LAB_HOME", str(tmp_path))
    return RunFolder.claim("digits")


def test_attempts_are_numbered_and_found_again(run):
    assert Attempt.newest(run) is None and attempts(run) == []
    slots = [{"name": "slot0", "pid": 7, "born": 1.5, "host": "here"}]
    first = Attempt.begin(run, slots, from_step=0)
    second = Attempt.begin(run, slots, from_step=40)
    second.write_error(0, error(1.0))
    assert attempts(run) == [1, 2]
    found = Attempt.newest(run)
    assert found.number == 2 and found.plan["from_step"] == 40 and found.slots == slots
    assert found.error(0)["type"] == "ValueError" and first.error(0) is None
    assert found.start(0) is None and found.end(0) is None


def test_stuck_is_as_many_tries_from_one_step(run):
    for _ in range(TRIES - 1):
        Attempt.begin(run, [], from_step=40)
    assert not stuck(run, 40)
    Attempt.begin(run, [], from_step=40)
    assert stuck(run, 40) and not stuck(run, 80)
    Attempt.begin(run, [], from_step=80)
    assert not stuck(run, 80)


def test_a_roster_finds_a_run_whose_notebook_died_before_it_had_asked_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("H3LAB_HOME", str(tmp_path))
    roster = Roster("default", Slots(LabFolder(), None, []))
    for lab, state in (("default", "queued"), ("default", "finished"), ("elsewhere", "queued")):
        folder = RunFolder.claim("unasked")
        folder.write_state(state)
        folder.write_info(name="unasked", lab=lab, ranks=1, created=1.0)
    RunFolder.claim("unasked")  # and one that died earlier
    damaged = RunFolder.claim("damaged")
    (damaged.path / "run.json").write_text("")
    assert not roster.entries
    roster.look()
    roster.look()
    assert list(roster.entries) == ["unasked/1"] == roster.training
