"""The folder of a lab: its whole interface. Notebooks, the command line and the keeper read and write the same files.

::

    labs/default/
      lab.json         what runs where, replaced whole by the keeper: one of STATES, its slots, why it ended
      keeper.lock      held (flock) by the living keeper
      start.lock       held by who starts a keeper, so that two notebooks start one
      requests/        questions to the keeper, one file each, named so that the oldest comes first
      answers/         its answers, under the same names
      viewers/         one file a living notebook or command line, named <pid>-<start of that process>
      connection.json  how to reach an ipyparallel cluster that is not ours
      ipython/         the IPython profile of our own controller and engines
      jobs/            work in parts, such as preparing
      logs/            keeper.log, slot0.log, ...
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from h3lab.cluster import processes
from h3lab.errors import LabError
from h3lab.home import lock_file, read_json, room, write_json

STATES = ("starting", "ready", "ending", "ended")
POLL_SECONDS = 0.01


class LabFolder:
    """Paths and small files of one lab."""

    def __init__(self, name: str = "default") -> None:
        self.name = name
        self.path = room("labs") / name
        self.requests = self.path / "requests"
        self.answers = self.path / "answers"
        self.viewers = self.path / "viewers"
        self.jobs = self.path / "jobs"
        self.logs = self.path / "logs"
        self.connection = self.path / "connection.json"
        for path in (self.path, self.requests, self.answers, self.viewers, self.jobs, self.logs):
            path.mkdir(mode=0o700, exist_ok=True)

    @property
    def status(self) -> dict[str, Any]:
        """What ``lab.json`` says; a lab that was never started has ended."""
        return dict(read_json(self.path / "lab.json", {"state": "ended", "reason": "never started", "slots": []}))

    def write_status(self, **values: Any) -> None:
        """Replace ``lab.json``; only the keeper does, and who is about to start one."""
        write_json(self.path / "lab.json", {**values, "written": time.time()})

    def lock(self, name: str = "keeper") -> int | None:
        """Take a lock of the lab and return its open descriptor, or None while another process holds it."""
        return lock_file(self.path / f"{name}.lock")

    @property
    def kept(self) -> bool:
        """Whether a keeper lives. Its lock tells, not its process id, which the system gives away again."""
        descriptor = os.open(self.path / "keeper.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)

    @contextmanager
    def starting(self, timeout_seconds: float) -> Iterator[None]:
        """Alone decide whether a keeper must be started."""
        deadline = time.monotonic() + timeout_seconds
        while (descriptor := self.lock("start")) is None:
            if time.monotonic() > deadline:
                raise LabError(
                    f"another process has been starting the lab {self.name!r} for {timeout_seconds:g} s. "
                    f"Its log is {self.logs / 'keeper.log'}; 'h3lab stop --all' ends it."
                )
            time.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            os.close(descriptor)

    def ask(self, what: str, **values: Any) -> str:
        """Put a question to the keeper and return its name."""
        name = f"{time.time_ns():020d}-{os.getpid()}"
        write_json(self.requests / name, {"ask": what, **values})
        return name

    def waiting(self) -> list[tuple[str, dict[str, Any]]]:
        """The questions that nobody has taken, oldest first."""
        names = sorted(name for name in os.listdir(self.requests) if not name.startswith("."))
        return [(name, read_json(self.requests / name, {})) for name in names]

    def answer(self, name: str, **values: Any) -> None:
        """Answer a question, which is then gone."""
        write_json(self.answers / name, values)
        (self.requests / name).unlink(missing_ok=True)

    def answered(self, name: str) -> dict[str, Any] | None:
        """The answer to a question, taken away, or None while there is none."""
        path = self.answers / name
        answer: dict[str, Any] | None = read_json(path)
        if answer is not None:
            path.unlink(missing_ok=True)
        return answer

    def watched(self, but: int | None = None) -> bool:
        """Whether a living notebook or command line (other than the process ``but``) has opened this lab."""
        found = False
        for path in self.viewers.iterdir():
            pid, _, born = path.name.partition("-")
            if not processes.alive(int(pid), float(born)):
                path.unlink(missing_ok=True)
            elif int(pid) != but:
                found = True
        return found

    def log_tail(self, name: str = "keeper", lines: int = 20) -> str:
        """The last lines of one of the lab's logs."""
        return tail(self.logs / f"{name}.log", lines)

    def sweep(self, older_than_seconds: float = 3600.0) -> None:
        """Remove answers that nobody fetched."""
        limit = time.time() - older_than_seconds
        for path in self.answers.iterdir():
            with suppress(FileNotFoundError):  # fetched at this moment
                if path.stat().st_mtime < limit:
                    path.unlink()

    def __repr__(self) -> str:
        return f"LabFolder({self.name!r})"


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a text file, read from its end; nothing where there is no such file."""
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 400 * lines))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
