"""A worker: a child of a slot's host that pulls tasks of a job until the job is over."""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from h3lab import worlds
from h3lab.cluster.jobs import POLL_SECONDS, Job
from h3lab.errors import H3labError
from h3lab.preparing.executor import unseen
from h3lab.serial import signed

CHECK_SECONDS = 0.5


def run_worker(path: str, name: str) -> int:
    """Work on the job in ``path`` under ``name``; 0 once the job is over."""
    job = Job(Path(path))
    os.environ.setdefault("H3LAB_SLOT", name.rpartition("-")[0])  # an engine that is not ours has no name of its own
    try:
        function, tasks = signed.load(job.path / "job.bin")
    except FileNotFoundError as error:
        if job.over or not (job.path / "job.bin").exists():  # before this began
            return 0
        # What all tasks share lies in the folder that is prepared to, which may be on another disk than the job.
        _tell(job, 0, unseen(str(error.filename)), name)
        return 1
    except ModuleNotFoundError as error:
        _tell(job, 0, error, name)
        return 1
    # What it says of servers that have gone is for who waits, and nobody reads a worker's log.
    log, notes = logging.getLogger("h3lab.servers"), logging.FileHandler(job.workers / f"{name}.notes", delay=True)
    log.addHandler(notes)
    try:
        return _rounds(job, function, tasks, name)
    finally:
        log.removeHandler(notes)
        notes.close()


def _rounds(job: Job, function: object, tasks: Sequence[Any], name: str) -> int:
    checked, everything = time.monotonic(), {f"{task:06d}" for task in range(len(tasks))}
    while not job.closed:
        # Every round begins anew: a task can become free again behind the place where this worker is.
        worked = False
        for task in sorted(everything.difference(job.names("claims"))):
            if not job.closed and job.claim(int(task), name):
                _work(job, int(task), function, tasks[int(task)], name)
                worked = True
        if not worked and (again := job.second(name)) is not None:
            _work(job, again, function, tasks[again], name, again=True)
        elif not worked:
            time.sleep(POLL_SECONDS)
        if time.monotonic() - checked > CHECK_SECONDS:
            checked = time.monotonic()
            if job.over:
                return 0
    return 0


def _work(job: Job, task: int, function: object, argument: object, name: str, again: bool = False) -> None:
    try:
        value = function(argument)  # type: ignore[operator]
    except Exception as error:
        _tell(job, task, error, name, again)
    else:
        if not job.place("results", task).exists():
            _keep(job, job.place("results", task), value)


def _tell(job: Job, task: int, error: Exception, name: str, again: bool = False) -> None:
    """What a task raised. A module that is not here is one that the driver has: it is named as what to install."""
    if isinstance(error, ModuleNotFoundError):
        error = worlds.missing(error, f"the work on {os.environ['H3LAB_SLOT']}") or error
    said = error if isinstance(error, H3labError) else f"{type(error).__name__}: {error}"
    _keep(job, job.place("errors", task, again), (said, traceback.format_exc(), name.rpartition("-")[0]))


def _keep(job: Job, path: Path, value: object) -> None:
    try:
        signed.dump(value, path)
    except FileNotFoundError:
        if job.path.exists():
            raise
