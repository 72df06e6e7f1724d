"""A crew: the workers of one job as its driver sees them. It waits for results in order, replaces workers that have
died, and gives a task that takes many times as long as the others to a second worker.

It knows a job's files; how workers are started is a Staff's: the hosts of a lab (:class:`Engines`), or children of this
process (:class:`Processes`).
"""

from __future__ import annotations

import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Protocol

from h3lab.cluster import processes
from h3lab.cluster.jobs import POLL_SECONDS, Job
from h3lab.cluster.labfolder import tail
from h3lab.errors import EngineLost
from h3lab.home import read_json
from h3lab.preparing.executor import part, told
from h3lab.serial import signed

log = logging.getLogger("h3lab.servers")
#: How often a task may lose its worker.
TRIES = 3
#: How often the workers are looked at, and how long a slot whose worker has died waits for another one.
LOOK_SECONDS, REPLACE_SECONDS = 0.2, 0.5
#: A task is given to a second worker after so many times the median of those that are done, and not before so long.
STRAGGLER, STRAGGLER_SECONDS = 4.0, 2.0


class Staff(Protocol):
    """Where workers come from."""

    def call(self, job: Job, slots: Sequence[str] | None = None) -> None:
        """Ask for a worker on each of these slots (None: on all); returns at once."""
        ...

    def check(self, started: bool) -> None:
        """LabError where no worker will come. ``started``: whether one has."""
        ...

    def lost(self, workers: dict[str, dict[str, Any]]) -> set[str]:
        """Which of these workers, by name and what their host has said at their start, have ended with their host."""
        ...


class Crew:
    """The workers of one job."""

    def __init__(self, staff: Staff, job: Job, label: str, alike: bool) -> None:
        self._staff, self._job, self._label, self._alike = staff, job, label, alike
        self._started: dict[str, dict[str, Any]] = {}
        self._gone: set[str] = set()
        self._tries: dict[int, int] = {}
        self._idle_deaths = 0
        self._since: dict[int, float] = {}  # when a task was first seen taken
        self._again: set[int] = set()
        self._told: dict[str, int] = {}  # what of a worker's notes was passed on
        self._done, self._moved = 0, time.monotonic()
        self._replace: dict[str, float] = {}
        self._looked = time.monotonic()
        staff.call(job)

    def result(self, task: int) -> Any:
        """Wait for a task; what it raised is raised here, with the remote traceback."""
        path = self._job.place("results", task)
        while not path.exists():
            self._raise_errors()
            if time.monotonic() - self._looked > LOOK_SECONDS:
                self._looked = time.monotonic()
                self._look()
            time.sleep(POLL_SECONDS)
        return signed.load(path)

    def close(self) -> None:
        """Let the workers go; one that is still at work is ended, and waited for."""
        claims = {int(name.partition(".")[0]) for name in self._job.names("claims")}
        busy = len(claims) > len(self._job.names("results")) or bool(self._again)
        self._job.close(self._settled if busy else lambda: True)

    def _settled(self) -> bool:
        self._meet()
        return self._started.keys() <= self._gone

    def _raise_errors(self) -> None:
        names = self._job.names("errors")
        for name in names:
            task = int(name.partition(".")[0])
            tried = sum(claim.startswith(f"{task:06d}") for claim in self._job.names("claims"))
            if self._job.place("results", task).exists() or tried > sum(n.startswith(f"{task:06d}") for n in names):
                continue  # of two workers that had it one has done it, or still may
            error, text, where = signed.load(self._job.path / "errors" / name)
            raise told(error, f"{error}\n{text}", f"{part(self._label, task)} on {where}") from None

    def _meet(self) -> dict[str, Any]:
        """Take note of who has come and gone; worker → how it ended, of those that have newly gone."""
        for name in self._job.names("workers"):
            worker, _, kind = name.partition(".")
            if kind == "start.json" and worker not in self._started:
                self._started[worker] = read_json(self._job.workers / name, {})
        ended = {n.partition(".")[0] for n in self._job.names("workers") if n.endswith(".end.json")}
        living = {worker: said for worker, said in self._started.items() if worker not in self._gone | ended}
        new = (ended | self._staff.lost(living)) - self._gone
        self._gone |= new
        return {worker: read_json(self._job.workers / f"{worker}.end.json", {}).get("exit") for worker in new}

    def _pass_on(self) -> None:
        """Say here what workers have said."""
        for name in self._job.names("workers"):
            if name.endswith(".notes"):
                text = (self._job.workers / name).read_text()
                for line in text[self._told.get(name, 0) :].splitlines():
                    log.warning("%s: %s", name.rpartition("-")[0], line)
                self._told[name] = len(text)

    def _look(self) -> None:
        """Give tasks of the dead to others, and of the slow to a second one."""
        now = time.monotonic()
        self._pass_on()
        for worker, code in self._meet().items():
            freed = self._job.free(worker)
            for task in freed:
                self._since.pop(task, None)
                self._tries[task] = self._tries.get(task, 0) + 1
                if self._tries[task] >= TRIES:
                    raise EngineLost(self._lost(task, worker, code))
            self._idle_deaths += not freed
            if self._idle_deaths > TRIES * 4:
                raise EngineLost(self._lost(None, worker, code))
            self._replace[worker.rpartition("-")[0]] = now + REPLACE_SECONDS
        self._staff.check(bool(self._started))
        due = [slot for slot, at in self._replace.items() if at < now]
        if due:
            self._replace = {slot: at for slot, at in self._replace.items() if slot not in due}
            self._staff.call(self._job, due)
        self._look_for_stragglers(now)

    def _look_for_stragglers(self, now: float) -> None:
        claims = {int(name.partition(".")[0]) for name in self._job.names("claims")}
        for task in claims:
            self._since.setdefault(task, now)
        results = {int(name) for name in self._job.names("results")}
        if len(results) != self._done:
            self._done, self._moved = len(results), now
        late = claims - results
        if not late or not results or not self._alike:  # of tasks that are unlike one another none is late
            return
        limit = max(STRAGGLER * self._median(), STRAGGLER_SECONDS)
        for task in late - self._again:
            if now - self._since[task] > limit:
                self._again.add(task)
                self._job.place("again", task).touch()
        if self._again & late and now - self._moved > limit + REPLACE_SECONDS:
            self._moved = now
            self._staff.call(self._job)  # all workers hang, or there is but one

    def _median(self) -> float:
        """Seconds that a task takes, between two files of one folder's clock."""
        begun: dict[str, float] = {}
        for claim in os.scandir(self._job.path / "claims"):
            name = claim.name.partition(".")[0]
            begun[name] = min(claim.stat().st_mtime, begun.get(name, math.inf))
        done = [one for one in os.scandir(self._job.path / "results") if one.name in begun]
        return statistics.median(max(0.0, one.stat().st_mtime - begun[one.name]) for one in done)

    def _lost(self, task: int | None, worker: str, code: int | None) -> str:
        how = processes.exit_text(code)
        log = f"The end of its log:\n{tail(self._job.workers / f'{worker}.log')}"
        if task is None:
            return f"workers of {self._label or 'a job'} do not live: the last one {how}. {log}"
        what = part(self._label, task)
        return f"{what} was tried {TRIES} times, and its worker {how} each time (out of memory?). {log}"


def results(
    staff: Staff, jobs: Path, function: Callable[[Any], Any], tasks: Sequence[Any], label: str, alike: bool
) -> Generator[Any, None, None]:
    """A job from its beginning to its end, for an Executor."""
    if not tasks:
        return
    crew = Crew(staff, Job.create(jobs, function, tasks), label, alike)
    try:
        for task in range(len(tasks)):
            yield crew.result(task)
    finally:
        crew.close()
