"""A run's folder: numbers that one alone gets, controls in order, a lock that dies with its holder."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from h3lab.errors import H3labError, RunNotFound, UnknownName, UsageError
from h3lab.running import folder
from h3lab.running.folder import STATES, RunFolder, find, folders


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("H3LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def started(actor, created=0.0):
    run = RunFolder.claim(actor)
    run.write_info(name=actor, created=created)
    return run


def test_numbers_count_from_one(home):
    runs = [RunFolder.claim("digits") for _ in range(3)]
    assert [run.name for run in runs] == ["digits/1", "digits/2", "digits/3"]
    assert RunFolder.claim("other").name == "other/1" and repr(runs[0]) == "RunFolder('digits/1')"
    for path in (runs[0].path, runs[0].journal, runs[0].snapshots, runs[0].logs, runs[0].ranks):
        assert path.is_dir() and stat.S_IMODE(path.stat().st_mode) == 0o700
    (home / "runs" / "digits" / "1").rename(home / "runs" / "digits" / "gone")
    assert RunFolder.claim("digits").name == "digits/4"  # a number is not given again while a later one stands


def test_a_number_is_given_once():
    code = "from h3lab.running.folder import RunFolder\nprint(*[RunFolder.claim('busy').path.name for _ in range(20)])"
    children = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    numbers = [int(n) for child in children for n in child.communicate(timeout=60)[0].split()]
    assert sorted(numbers) == list(range(1, 61))


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "-x", ".hidden", "x" * 101, "a\nb", "a\0b", " a"])
def test_names_that_are_no_folders_are_refused(name, home):
    with pytest.raises(UsageError, match="came as a name; expected letters"):
        RunFolder.claim(name)
    assert not list(home.glob("runs/*"))


@pytest.mark.parametrize("name", ["digits", "Ziffern über", "a.b-c_d 2", "x" * 100, "数字"])
def test_names_of_people(name):
    assert RunFolder.claim(name).name == f"{name}/1"


def test_state_is_replaced_whole():
    run = RunFolder.claim("digits")
    assert run.state == {"state": "queued", "attempt": 0, "since": 0.0} and run.info == {}
    for state in STATES:
        run.write_state(state, attempt=2, pid=7)
        assert run.state == {"state": state, "attempt": 2, "pid": 7, "since": run.state["since"]}
    assert json.loads((run.path / "state.json").read_bytes())["state"] == STATES[-1]
    assert stat.S_IMODE((run.path / "state.json").stat().st_mode) == 0o600
    with pytest.raises(UnknownName, match="Did you mean 'training'"):
        run.write_state("trainin")
    assert not list(run.path.glob(".*"))


def test_readers_never_see_half_a_state():
    run = RunFolder.claim("digits")
    run.write_state("queued", text="0" * 5000, number=0)
    done = threading.Event()

    def write():
        for number in range(1, 300):
            run.write_state("training", text=str(number % 10) * 5000, number=number)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        seen = run.state
        assert seen["text"] == str(seen["number"] % 10) * 5000
    writer.join()


def test_controls_come_in_order_and_once():
    run = RunFolder.claim("digits")
    assert run.controls() == []
    assert [run.ask(set={"lr": 0.1}), run.ask(pause=True), run.ask(resume=True)] == [1, 2, 3]
    assert run.controls() == [(1, {"set": {"lr": 0.1}}), (2, {"pause": True}), (3, {"resume": True})]
    assert run.controls(after=2) == [(3, {"resume": True})]
    assert run.controls(after=3) == []


def test_many_viewers_ask_at_once():
    run = RunFolder.claim("digits")
    numbers = []

    def ask(viewer):
        numbers.extend(run.ask(viewer=viewer, turn=turn) for turn in range(20))

    viewers = [threading.Thread(target=ask, args=[viewer]) for viewer in range(5)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join()
    assert sorted(numbers) == list(range(1, 101))
    asked = run.controls()
    assert [number for number, _ in asked] == list(range(1, 101))
    for viewer in range(5):  # each one's wishes stay in the order in which they were made
        assert [control["turn"] for _, control in asked if control["viewer"] == viewer] == list(range(20))
    assert not list(run.path.glob(".control*"))


HOLDS = """
import sys
from pathlib import Path
from h3lab.running.folder import RunFolder
print(RunFolder(Path(sys.argv[1])).lock() is not None, flush=True)
sys.stdin.read()
"""


def test_the_lock_is_held_by_one_and_dies_with_it():
    run = RunFolder.claim("digits")
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline().strip() == "True"
        assert run.lock() is None
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    mine = run.lock()
    assert mine is not None and run.lock() is None
    os.close(mine)
    again = run.lock()
    assert again is not None
    os.close(again)


def test_runs_are_found_by_name_number_and_age():
    started("digits", created=1.0)
    started("digits", created=4.0)
    started("texts", created=3.0)
    assert find("digits").name == "digits/2" and find("digits/1").name == "digits/1"
    assert find("texts").name == "texts/1" and find().name == "digits/2"
    assert [run.name for run in folders()] == ["digits/1", "digits/2", "texts/1"]


def test_a_number_that_was_claimed_and_never_started_is_no_run():
    """Its notebook died in between; the run before it is still the newest."""
    started("digits", created=1.0)
    RunFolder.claim("digits")
    assert find("digits").name == "digits/1" and find().name == "digits/1"
    assert [run.name for run in folders()] == ["digits/1"]
    with pytest.raises(RunNotFound, match="digits/2"):
        find("digits/2")
    assert started("digits").name == "digits/3"


def test_what_is_not_there_is_said_with_what_is(home):
    with pytest.raises(RunNotFound, match=r"no run has been started yet.*lab.train\(actor, feed\)"):
        find()
    started("digits")
    for name, says in (
        ("digit", "Did you mean 'digits'"),
        ("digits/7", "Known: digits/1"),
        ("digits/one", "Known: digits/1"),
        ("digits/²", "Known: digits/1"),
        ("digits/-1", "Known: digits/1"),
        ("digits/", None),
        ("", "Known"),
        ("../digits", "Known"),
    ):
        if says is None:
            assert find(name).name == "digits/1"
            continue
        with pytest.raises(RunNotFound, match=says) as caught:
            find(name)
        assert isinstance(caught.value, LookupError) and isinstance(caught.value, H3labError)


def test_files_that_are_no_runs_are_passed_over(home):
    started("digits")
    (home / "runs" / "digits" / "notes.txt").write_text("mine")
    (home / "runs" / "digits" / "old").mkdir()
    (home / "runs" / ".DS_Store").write_text("")
    assert [run.name for run in folders()] == ["digits/1"] and find("digits").name == "digits/1"
    assert RunFolder.claim("digits").name == "digits/2"
    assert folder.ENDED < set(STATES)
