"""Executors of this machine keep every promise, and survive what kills, stops and interrupts their workers."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from h3lab.cluster import crew
from h3lab.cluster.executors import Processes
from h3lab.errors import EngineLost
from h3lab.preparing.executor import Here
from h3lab.testing import EXECUTOR_CHECKS


@pytest.fixture(scope="module")
def processes():
    with Processes(2) as executor:
        yield executor


@pytest.fixture(params=["here", "threads", "processes"])
def executor(request):
    if request.param == "processes":
        return request.getfixturevalue("processes")
    return Here() if request.param == "here" else Here(threads=3)


@pytest.mark.parametrize("check", EXECUTOR_CHECKS, ids=lambda check: check.__name__)
def test_executors_keep_their_promises(executor, check):
    check(executor)


def once(folder: Path, name: str) -> bool:
    """True for who comes first, over all processes."""
    try:
        (folder / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def test_a_task_whose_process_died_is_run_again(processes, tmp_path):
    def suicidal(number):
        if number % 3 == 0 and once(tmp_path, f"{number}"):
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number

    assert list(processes.map(suicidal, range(8), "squares")) == [n * n for n in range(8)]


def test_a_task_that_always_kills_its_process_is_given_up_by_name(processes):
    def always(number):
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(EngineLost, match=r"(?s)squares, part 2 was tried 3 times.*SIGKILL"):
        list(processes.map(always, range(3), "squares"))


def gone(processes) -> bool:
    """Whether no child of the forkserver is left, within some seconds on a busy machine."""
    import psutil

    return not psutil.wait_procs(psutil.Process(processes._nursery.pid).children(), timeout=20)[1]


@pytest.mark.parametrize("width", [1, 2])
def test_a_task_of_a_stopped_process_is_given_to_another_one(tmp_path, monkeypatch, width):
    monkeypatch.setattr(crew, "STRAGGLER_SECONDS", 0.3)

    def stops(number):
        if number == 1 and once(tmp_path, "stopped"):
            os.kill(os.getpid(), signal.SIGSTOP)
        return number * number

    with Processes(width) as executor:
        assert list(executor.map(stops, range(6), "squares")) == [n * n for n in range(6)]
        assert gone(executor)


def test_of_two_that_have_a_task_an_error_of_one_waits_for_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "STRAGGLER_SECONDS", 0.2)

    def second_fails(number):
        if number == 1 and once(tmp_path, "first"):
            while not (tmp_path / "failed").exists():
                threading.Event().wait(0.02)
            return "from the first"
        if number == 1:
            (tmp_path / "failed").touch()
            raise OSError("the file is being written by the first")
        return number

    with Processes(2) as executor:
        assert list(executor.map(second_fails, range(4))) == [0, "from the first", 2, 3]


SCRIPT = """
    import sys
    from h3lab.cluster.executors import Processes

    print("begins", flush=True)

    def square(number):
        return number * number

    with Processes(2) as executor:
        print(list(executor.map(square, range(4))))
"""


def test_a_script_without_a_main_guard_runs_once(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "begins\n[0, 1, 4, 9]\n", done.stderr


def test_giving_up_ends_processes_in_the_middle_of_a_part(processes):
    def endless(number):
        while number:
            pass

    results = processes.map(endless, range(3))
    assert next(results) is None
    results.close()
    assert gone(processes)
    assert list(processes._jobs.iterdir()) == []
