"""Tasks of a job are taken once, given back by the dead, and nobody works for a driver that has died."""

import os
import subprocess
import sys
import threading

import pytest

from h3lab.cluster import jobs
from h3lab.cluster.jobs import Job, sweep
from h3lab.cluster.labfolder import LabFolder
from h3lab.cluster.worker import run_worker
from h3lab.home import write_json
from h3lab.serial import signed


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setenv("H3LAB_HOME", str(tmp_path))
    monkeypatch.setenv("H3LAB_SLOT", "slot0")  # else a worker in this process names one, for all tests after it
    return LabFolder()


@pytest.fixture
def dead():
    """A process that has ended, as a job's driver."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return {"pid": process.pid, "born": 1.0}


def double(number):
    if number == 13:
        raise ArithmeticError("not that one")
    return 2 * number


def test_a_task_is_taken_once(lab):
    job = Job.create(lab.jobs, double, range(3))
    assert job.claim(0, "a") and not job.claim(0, "b") and job.claim(1, "b")
    job.close(lambda: True)
    assert not job.claim(2, "a")  # it is over, which is no error for a worker that comes late


def test_what_the_dead_had_taken_is_free_again_unless_it_was_done(lab):
    job = Job.create(lab.jobs, double, range(4))
    for task, worker in enumerate("aaab"):
        assert job.claim(task, worker)
    signed.dump(0, job.place("results", 0))
    signed.dump("error", job.place("errors", 1))
    (job.place("claims", 3)).write_text("")  # it died between making the file and writing its name
    assert sorted(job.free("a")) == [2, 3]
    assert job.claim(2, "c") and not job.claim(0, "c")


def test_a_worker_does_every_task_and_goes_home(lab):
    job = Job.create(lab.jobs, double, [1, 13, 3])
    ended = []
    worker = threading.Thread(target=lambda: ended.append(run_worker(str(job.path), "slot0-1")))
    worker.start()
    try:
        while worker.is_alive() and not all(job.place("claims", task).exists() for task in range(3)):
            worker.join(0.01)
        while worker.is_alive() and not job.place("results", 2).exists():
            worker.join(0.01)
        assert [signed.load(job.place("results", task)) for task in (0, 2)] == [2, 6]
        told, text, where = signed.load(job.place("errors", 1))
        assert told == "ArithmeticError: not that one" and "in double" in text and where == "slot0"
    finally:
        job.close(lambda: True)
        worker.join(30)
    assert ended == [0]


def test_a_job_without_a_driver_is_over_and_swept(lab, dead, monkeypatch):
    mine, orphan = Job.create(lab.jobs, double, [1]), Job.create(lab.jobs, double, [1])
    write_json(orphan.path / "driver.json", dead)
    assert orphan.over and not mine.over
    sweep(lab)
    assert orphan.path.exists()  # young, and a worker may be looking at it
    monkeypatch.setattr(jobs, "SWEEP_SECONDS", -1.0)
    sweep(lab)
    assert not orphan.path.exists() and mine.path.exists()
    assert run_worker(str(orphan.path), "late") == 0


def test_only_what_this_home_has_signed_is_opened(lab):
    job = Job.create(lab.jobs, double, [1])
    path = job.path / "job.bin"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Exception, match="is not signed"):
        run_worker(str(job.path), "slot0-1")
    assert not os.listdir(job.path / "claims")
