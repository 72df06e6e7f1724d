"""A worker: a child of a slot's host that pulls tasks of a job until the job is over."""

from __future__ import annotations

import time
import traceback
from pathlib import Path

from h3lab.cluster.jobs import POLL_SECONDS, Job
from h3lab.errors import H3labError
from h3lab.serial import signed

CHECK_SECONDS = 0.5


def run_worker(path: str, name: str) -> int:
    """Work on the job in ``path`` under ``name``; 0 once the job is over."""
    job = Job(Path(path))
    try:
        function, tasks = signed.load(job.path / "job.bin")
    except FileNotFoundError:  # over before this began
        return 0
    checked = time.monotonic()
    while True:
        # Every round begins anew: a task can become free again behind the place where this worker is.
        worked = False
        for task in range(len(tasks)):
            if not job.place("claims", task).exists() and job.claim(task, name):
                _work(job, task, function, tasks[task])
                worked = True
        if not worked:
            time.sleep(POLL_SECONDS)
        if time.monotonic() - checked > CHECK_SECONDS or not job.path.exists():
            checked = time.monotonic()
            if job.over:
                return 0


def _work(job: Job, task: int, function: object, argument: object) -> None:
    try:
        value = function(argument)  # type: ignore[operator]
    except Exception as error:
        told = error if isinstance(error, H3labError) else f"{type(error).__name__}: {error}"
        _keep(job, "errors", task, (told, traceback.format_exc()))
    else:
        _keep(job, "results", task, value)


def _keep(job: Job, kind: str, task: int, value: object) -> None:
    try:
        signed.dump(value, job.place(kind, task))
    except FileNotFoundError:
        if job.path.exists():
            raise
