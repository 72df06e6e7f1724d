"""The folder of a lab: questions in order, answers once, locks that tell who lives."""

import os
import subprocess
import sys

import pytest

from h3lab.cluster.labfolder import LabFolder, tail
from h3lab.cluster.standing import told
from h3lab.errors import LabError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("H3LAB_HOME", str(tmp_path))
    return tmp_path


def test_a_lab_that_was_never_started_has_ended():
    folder = LabFolder()
    assert folder.status["state"] == "ended" and not folder.kept
    folder.write_status(state="ready", slots=[])
    assert LabFolder().status["state"] == "ready" and LabFolder("other").status["state"] == "ended"


def test_questions_come_oldest_first_and_answers_are_taken_once():
    folder = LabFolder()
    names = [folder.ask("run", path=f"/runs/{number}") for number in range(3)]
    assert [(name, question["path"]) for name, question in folder.waiting()] == [
        (name, f"/runs/{number}") for number, name in enumerate(names)
    ]
    assert folder.answered(names[1]) is None
    folder.answer(names[1], done=True)
    assert [name for name, _ in folder.waiting()] == [names[0], names[2]]
    assert folder.answered(names[1]) == {"done": True} and folder.answered(names[1]) is None


def test_a_lock_is_held_once_and_ends_with_its_process():
    folder = LabFolder()
    code = (
        "from h3lab.cluster.labfolder import LabFolder\nheld = LabFolder().lock()\nprint('held', flush=True)\ninput()\n"
    )
    keeper = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert keeper.stdout.readline() == "held\n"
        assert folder.kept and folder.lock() is None
    finally:
        keeper.kill()
        keeper.communicate()
    assert not folder.kept
    descriptor = folder.lock()
    assert descriptor is not None
    os.close(descriptor)


def test_one_alone_decides_whether_a_keeper_is_started():
    folder = LabFolder()
    with folder.starting(1.0):
        with pytest.raises(LabError, match=r"(?s)another process.*keeper\.log"), folder.starting(0.0):
            pass
    with folder.starting(0.0):
        pass


def test_answers_that_nobody_fetched_are_swept():
    folder = LabFolder()
    old, new = folder.ask("lease"), folder.ask("lease")
    for name in (old, new):
        folder.answer(name, ends=1.0)
    os.utime(folder.answers / old, (0, 0))
    folder.sweep()
    assert folder.answered(old) is None and folder.answered(new) == {"ends": 1.0}


@pytest.mark.parametrize(
    ("state", "run", "shown"),
    [
        ("ready", None, "slot0 ready"),
        ("ready", "digits/3", "slot0 runs digits/3"),
        ("silent", "digits/3", "slot0 silent, runs digits/3"),
        ("failed", None, "slot0 failed"),
    ],
)
def test_a_slot_says_what_it_does_and_what_is_wrong(state, run, shown):
    assert told({"name": "slot0", "state": state, "run": run}) == shown


def test_the_end_of_a_log(tmp_path):
    path = tmp_path / "slot0.log"
    assert tail(path) == ""
    path.write_bytes(b"\xff broken\n" + b"".join(b"line %d\n" % number for number in range(1000)))
    assert tail(path, 2) == "line 998\nline 999"
    assert len(tail(path).splitlines()) == 20
