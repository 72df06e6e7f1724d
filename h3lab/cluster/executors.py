"""Executors over other processes: the engines of a lab, or children of this process.

They know how workers are asked for; what workers do is a job's (``jobs``, ``crew``).
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from h3lab.cluster import host
from h3lab.cluster.crew import results
from h3lab.cluster.jobs import Job
from h3lab.cluster.labfolder import LabFolder
from h3lab.cluster.nursery import Nursery
from h3lab.errors import LabError
from h3lab.home import home
from h3lab.settings import whole

ANSWER_SECONDS = 30.0


class Engines:
    """An Executor over the slots of a lab: workers on each of them pull tasks."""

    local = False

    def __init__(self, lab: LabFolder, width: int) -> None:
        self._lab = lab
        self.width = width

    def map(
        self, function: Callable[[Any], Any], tasks: Sequence[Any], label: str = "", alike: bool = True
    ) -> Generator[Any, None, None]:
        """See :class:`h3lab.preparing.executor.Executor`."""
        return results(_Hosts(self._lab), self._lab.jobs, function, tasks, label, alike)


class _Hosts:
    """The hosts of a lab, asked through its keeper."""

    def __init__(self, lab: LabFolder) -> None:
        self._lab = lab

    def call(self, job: Job, slots: Sequence[str] | None = None) -> None:
        self._since = time.monotonic()
        self._asked = self._lab.ask("job", path=str(job.path), slots=None if slots is None else list(slots))

    def check(self, started: bool) -> None:
        if not self._lab.kept and self._lab.status["state"] == "ended":
            raise LabError(f"the lab has ended meanwhile ({self._lab.status.get('reason')}). Start one: h3.Lab().")
        answer = self._lab.answered(self._asked)
        if answer is not None and answer.get("error"):
            raise LabError(str(answer["error"]))
        waited = time.monotonic() - self._since
        if not started and waited > ANSWER_SECONDS:
            kept = "its keeper lives" if self._lab.kept else "its keeper has ended; h3lab.Lab() starts it again"
            raise LabError(f"the lab has started no worker for {waited:.0f} s ({kept}):\n{self._lab.log_tail()}")

    def lost(self, workers: dict[str, dict[str, Any]]) -> set[str]:
        pids = {slot["name"]: slot["pid"] for slot in self._lab.status["slots"]}
        # An engine that was killed takes its workers with it, and can report nothing.
        return {name for name, said in workers.items() if said.get("engine") != pids.get(name.rpartition("-")[0])}


class Processes:
    """An Executor over ``width`` children of this process, for a machine without a lab: they start once, by a
    forkserver, and the parts, functions and errors of a pass go by files as on engines, so that what is defined in a
    notebook or a script works, without ``if __name__ == "__main__"``. Use it in ``with``, or :meth:`close` it."""

    local = False

    def __init__(self, width: int) -> None:
        self.width = whole("width", width, 1)
        self._nursery = Nursery(["h3lab.cluster.preload_worker"])
        self._home = home()
        self._jobs = Path(tempfile.mkdtemp(prefix="h3lab-jobs-"))
        self._nursery.open()

    def map(
        self, function: Callable[[Any], Any], tasks: Sequence[Any], label: str = "", alike: bool = True
    ) -> Generator[Any, None, None]:
        """See :class:`h3lab.preparing.executor.Executor`."""
        return results(self, self._jobs, function, tasks, label, alike)

    def call(self, job: Job, slots: Sequence[str] | None = None) -> None:
        """Start a worker in each of these places; see :class:`h3lab.cluster.crew.Staff`."""
        for place in [f"process{n}" for n in range(self.width)] if slots is None else slots:
            worker = f"{place}-{secrets.token_hex(4)}"
            report = str(job.workers / worker)
            until = str(job.path / "closed")
            host.follow(self._nursery, "worker", (str(job.path), worker), f"{report}.log", report, until)

    def check(self, started: bool) -> None:
        """LabError where this process has another H3LAB_HOME than its children."""
        if home() != self._home:
            raise LabError(
                f"H3LAB_HOME was {self._home} when these processes began; it is {home()} now. Make new ones."
            )

    def lost(self, workers: dict[str, dict[str, Any]]) -> set[str]:
        """None: their host is this process."""
        return set()

    def close(self) -> None:
        """End the processes."""
        self._nursery.close()
        shutil.rmtree(self._jobs, ignore_errors=True)

    def __enter__(self) -> Processes:
        if not os.path.isdir(self._jobs):
            raise LabError("these processes are closed. Make new ones: Processes(2).")
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()
