"""A job: work in parts, done by children of the slots' hosts. Its folder is its whole interface, like a run's.

::

    jobs/<id>/
      job.bin          the function and its tasks, signed
      driver.json      whose job it is: a job whose driver has died is nobody's, and its workers end
      claims/000012    which worker has taken a task; who makes the file has it
      again/000012     it takes too long, so another one may take it too: claims/000012.1
      results/000012   what came of it, signed
      errors/000012    or what it raised
      workers/         start and end of each worker, and its log
      closed           all results are fetched, or nobody wants them any more
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from h3lab.cluster import processes
from h3lab.cluster.labfolder import LabFolder
from h3lab.home import read_json, write_json
from h3lab.serial import signed

POLL_SECONDS = 0.01
#: A job is written before its driver is named, and its workers need a moment to notice its end.
SWEEP_SECONDS = 60.0
#: How long the workers of a job that is given up are waited for; hosts look ten times a second whom to end.
LEAVE_SECONDS = 1.0


class Job:
    """The files of one job."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.workers = self.path / "workers"

    @classmethod
    def create(cls, jobs: Path, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Job:
        """Write a job among ``jobs``; the user's own modules travel by value."""
        from h3lab.cluster.launch import own_modules

        job = cls(jobs / f"{time.time_ns():020d}-{secrets.token_hex(4)}")
        job.path.mkdir(mode=0o700)
        for name in ("claims", "again", "results", "errors", "workers"):
            (job.path / name).mkdir()
        with own_modules():
            signed.dump((function, list(tasks)), job.path / "job.bin")
        write_json(job.path / "driver.json", {"pid": os.getpid(), "born": processes.born(os.getpid())})
        return job

    @property
    def closed(self) -> bool:
        """Whether its driver wants nothing of it any more."""
        return (self.path / "closed").exists() or not self.path.exists()

    @property
    def over(self) -> bool:
        """Closed, or its driver has died."""
        driver = read_json(self.path / "driver.json")
        return driver is None or self.closed or not processes.alive(driver["pid"], driver["born"])

    def claim(self, task: int, worker: str, again: bool = False) -> bool:
        """Take a task; False where somebody has it."""
        try:
            path = self.place("claims", task, again)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except (FileExistsError, FileNotFoundError):
            return False
        with os.fdopen(descriptor, "w") as file:
            file.write(worker)
        return True

    def place(self, kind: str, task: int, again: bool = False) -> Path:
        """The file of a task among ``claims``, ``again``, ``results`` or ``errors``."""
        return self.path / kind / (f"{task:06d}.1" if again else f"{task:06d}")

    def names(self, kind: str) -> list[str]:
        """What is there of a kind; nothing once the job is closed."""
        try:
            return sorted(name for name in os.listdir(self.path / kind) if not name.startswith("."))
        except FileNotFoundError:
            return []

    def second(self, worker: str) -> int | None:
        """Take a task that another worker has had for too long; None where there is none."""
        for name in self.names("again"):
            task = int(name)
            try:
                mine = self.place("claims", task).read_text() == worker
            except FileNotFoundError:  # given back, so that it is taken as any other
                continue
            if not mine and not self.place("results", task).exists() and self.claim(task, worker, again=True):
                return task
        return None

    def free(self, worker: str) -> list[int]:
        """Give back what a dead worker had taken and not finished."""
        freed = []
        for name in self.names("claims"):
            path, task = self.path / "claims" / name, int(name.partition(".")[0])
            done = self.place("results", task).exists() or (self.path / "errors" / name).exists()
            if not done and path.read_text() in (worker, ""):
                path.unlink()
                freed.append(task)
        return freed

    def close(self, settled: Callable[[], bool]) -> None:
        """Send the workers home, wait for them until ``settled``, and remove the folder."""
        try:
            (self.path / "closed").touch()
            deadline = time.monotonic() + LEAVE_SECONDS
            while not settled() and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        finally:
            # Renamed first: nobody can make a file in it while it is removed.
            gone = self.path.with_name(f".{self.path.name}")
            self.path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def going(lab: LabFolder) -> bool:
    """Whether somebody waits for a job here."""
    return any((path / "driver.json").exists() and not Job(path).over for path in lab.jobs.iterdir())


def sweep(lab: LabFolder) -> None:
    """Remove jobs whose driver has died; a living one's may take days."""
    for path in lab.jobs.iterdir():
        if time.time() - path.stat().st_mtime > SWEEP_SECONDS and Job(path).over:
            shutil.rmtree(path, ignore_errors=True)
