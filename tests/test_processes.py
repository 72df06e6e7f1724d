"""Whether a process lives, by a descriptor of it and by its id; and whether a folder may have changed."""

import os
import subprocess
import sys

import pytest

from h3lab.cluster import processes
from h3lab.cluster.processes import Pulse, exit_text
from h3lab.cluster.watch import Watch


@pytest.fixture
def child():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("descriptors", [True, False])
def test_a_pulse_ends_with_its_process_also_while_nobody_has_waited_for_it(child, monkeypatch, descriptors):
    if not descriptors:  # as on a system that has none
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    pulse = Pulse(child.pid, processes.born(child.pid))
    assert pulse.beats and pulse.beats
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    assert not pulse.beats and not Pulse(child.pid).beats
    child.communicate()
    assert not pulse.beats


def test_a_stranger_with_the_same_id_has_another_pulse(child):
    assert not Pulse(child.pid, 1.0).beats
    assert not Pulse(None).beats and not processes.alive(None)


def test_how_a_process_ended_in_words():
    told = [exit_text(code) for code in (None, 0, 3, -9, -99)]
    assert told == [
        "ended without a word",
        "ended with exit code 0",
        "ended with exit code 3",
        "was killed by SIGKILL",
        "was killed by signal 99",
    ]


def test_a_watch_tells_once_what_is_old_and_again_what_is_young(tmp_path):
    watch = Watch(tmp_path)
    os.utime(tmp_path, (0, 1e9))
    assert [watch.changed, watch.changed, watch.changed] == [True, False, False]
    (tmp_path / "new").touch()
    # Another file may come within the same tick of the clock, so it is young for a while.
    assert [watch.changed, watch.changed] == [True, True]
    os.utime(tmp_path, (0, 1e9 + 1))
    assert [watch.changed, watch.changed] == [True, False]
    with pytest.raises(FileNotFoundError):
        Watch(tmp_path / "gone").changed  # noqa: B018
