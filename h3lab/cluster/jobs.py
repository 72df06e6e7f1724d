"""A job: work in parts, done by children of the slots' hosts. Its folder is its whole interface, like a run's.

::

    jobs/<id>/
      job.bin          the function and its tasks, signed
      driver.json      whose job it is: a job whose driver has died is nobody's, and its workers end
      claims/000012    which worker has taken a task; who makes the file has it
      results/000012   what came of it, signed
      errors/000012    or what it raised
      workers/         start and end of each worker, and its log
      closed           all results are fetched
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from h3lab.cluster import processes
from h3lab.cluster.labfolder import LabFolder, tail
from h3lab.errors import DataError, EngineLost, H3labError, LabError
from h3lab.home import read_json, write_json
from h3lab.serial import signed

POLL_SECONDS = 0.01
TRIES = 3
ANSWER_SECONDS = 30.0
#: A job is written before its driver is named, and its workers need a moment to notice its end.
SWEEP_SECONDS = 60.0


class Job:
    """The files of one job."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.workers = self.path / "workers"

    @classmethod
    def create(cls, lab: LabFolder, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Job:
        """Write a job; the user's own modules travel by value."""
        from h3lab.cluster.launch import own_modules

        job = cls(lab.jobs / f"{time.time_ns():020d}-{secrets.token_hex(4)}")
        job.path.mkdir(mode=0o700)
        for name in ("claims", "results", "errors", "workers"):
            (job.path / name).mkdir()
        with own_modules():
            signed.dump((function, list(tasks)), job.path / "job.bin")
        write_json(job.path / "driver.json", {"pid": os.getpid(), "born": processes.born(os.getpid())})
        return job

    @property
    def over(self) -> bool:
        """Closed, or its driver has died."""
        driver = read_json(self.path / "driver.json")
        return driver is None or (self.path / "closed").exists() or not processes.alive(driver["pid"], driver["born"])

    def claim(self, task: int, worker: str) -> bool:
        """Take a task; False where somebody has it."""
        try:
            descriptor = os.open(self.path / "claims" / f"{task:06d}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except (FileExistsError, FileNotFoundError):
            return False
        with os.fdopen(descriptor, "w") as file:
            file.write(worker)
        return True

    def place(self, kind: str, task: int) -> Path:
        """The file of a task among ``claims``, ``results`` or ``errors``."""
        return self.path / kind / f"{task:06d}"

    def free(self, worker: str) -> list[int]:
        """Give back what a dead worker had taken and not finished."""
        freed = []
        for path in (self.path / "claims").iterdir():
            task = int(path.name)
            done = self.place("results", task).exists() or self.place("errors", task).exists()
            if not done and path.read_text() in (worker, ""):
                path.unlink()
                freed.append(task)
        return freed

    def close(self) -> None:
        """Send the workers home, and remove the folder."""
        (self.path / "closed").touch()
        shutil.rmtree(self.path, ignore_errors=True)


def going(lab: LabFolder) -> bool:
    """Whether somebody waits for a job here."""
    return any((path / "driver.json").exists() and not Job(path).over for path in lab.jobs.iterdir())


def sweep(lab: LabFolder) -> None:
    """Remove jobs whose driver has died; a living one's may take days."""
    for path in lab.jobs.iterdir():
        if time.time() - path.stat().st_mtime > SWEEP_SECONDS and Job(path).over:
            shutil.rmtree(path, ignore_errors=True)


class Engines:
    """An Executor over the slots of a lab: ``width`` workers pull tasks, and a task whose worker died is run again."""

    def __init__(self, lab: LabFolder, width: int) -> None:
        self._lab = lab
        self.width = width

    def map(self, function: Callable[[Any], Any], tasks: Sequence[Any], label: str = "") -> Iterator[Any]:
        """See :class:`h3lab.preparing.executor.Executor`."""
        if not tasks:
            return
        job = Job.create(self._lab, function, tasks)
        try:
            crew = Crew(self._lab, job, label)
            for task in range(len(tasks)):
                yield crew.result(task)
        finally:
            job.close()


class Crew:
    """The workers of one job, as its driver sees them."""

    def __init__(self, lab: LabFolder, job: Job, label: str) -> None:
        self._lab, self._job, self._label = lab, job, label
        self._gone: set[str] = set()
        self._tries: dict[int, int] = {}
        self._checked = time.monotonic()
        self._asked = self._call()

    def _call(self) -> str:
        self._since = time.monotonic()
        return self._lab.ask("job", path=str(self._job.path))

    def result(self, task: int) -> Any:
        """Wait for a task; what it raised is raised here, with the remote traceback."""
        path = self._job.place("results", task)
        while not path.exists():
            self._raise_errors()
            if time.monotonic() - self._checked > 0.2:
                self._checked = time.monotonic()
                self._look()
            time.sleep(POLL_SECONDS)
        return signed.load(path)

    def _raise_errors(self) -> None:
        for path in sorted((self._job.path / "errors").iterdir()):
            error, text = signed.load(path)
            told = f"{self._label}, part {int(path.name) + 1}" if self._label else f"part {int(path.name) + 1}"
            if isinstance(error, H3labError):
                error.add_note(f"on an engine, {told}:\n{text}")
                raise error
            raise DataError(f"{told} failed on an engine: {error}\n{text}")

    def _look(self) -> None:
        """Notice workers that have ended, and ask for new ones where none is left."""
        ends = {p.name.removesuffix(".end.json"): p for p in self._job.workers.glob("*.end.json")}
        for name in ends.keys() - self._gone:
            self._gone.add(name)
            for task in self._job.free(name):
                self._tries[task] = self._tries.get(task, 0) + 1
                if self._tries[task] >= TRIES:
                    raise EngineLost(self._lost(task, name, ends[name]))
        if not self._lab.kept and self._lab.status["state"] == "ended":
            raise LabError(f"the lab has ended meanwhile ({self._lab.status.get('reason')}). Start one: h3.Lab().")
        answer = self._lab.answered(self._asked)
        if answer is not None and answer.get("error"):
            raise LabError(str(answer["error"]))
        started = {p.name.removesuffix(".start.json") for p in self._job.workers.glob("*.start.json")}
        waited = time.monotonic() - self._since
        if started and started <= self._gone and waited > 1.0:
            self._asked = self._call()
        elif not started and waited > ANSWER_SECONDS:
            kept = "its keeper lives" if self._lab.kept else "its keeper has ended; h3lab.Lab() starts it again"
            raise LabError(f"the lab has started no worker for {waited:.0f} s ({kept}):\n{self._lab.log_tail()}")

    def _lost(self, task: int, worker: str, end: Path) -> str:
        how = processes.exit_text(read_json(end, {}).get("exit"))
        return (
            f"part {task + 1} of {self._label or 'a job'} was tried {TRIES} times, and its worker {how} each time "
            f"(out of memory?). The end of its log:\n{tail(self._job.workers / f'{worker}.log')}"
        )
