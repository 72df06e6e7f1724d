"""The folder of a run: its whole interface. Widget, command line, ``attach`` and ranks read and write the same files.

::

    runs/digits/3/
      run.json         what was started: name, number, lab, settings, threads, versions; written once
      launch.bin       the user's code and objects, signed
      state.json       one of STATES, with attempt, pid, slot, message, error; replaced whole
      control/000001   what viewers asked for, numbered by who comes first: {"set": {"lr": 1e-4}}, {"pause": true}, ...
      journal/0001.jsonl   records and events, one segment an attempt
      snapshots/00000812.h3lab  model, optimizer, position, random states after step 812
      ranks/           plan, start, error and end of each attempt's ranks
      result.h3lab     the trained parameters, once the run has ended
      logs/            stdout and stderr of each rank and attempt: rank0.0001.log
      lock             held (flock) by the living rank 0

A rank confirms a control by a journal event that carries its number.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from h3lab.errors import NameInUse, RunNotFound, UnknownName, UsageError
from h3lab.home import alone, lock_file, read_json, room, write_json

#: ``lost`` is a run whose rank has died and which the lab is bringing back.
STATES = ("queued", "starting", "training", "paused", "lost", "finished", "stopped", "failed")
ENDED = frozenset({"finished", "stopped", "failed"})
NAME = r"[\w][\w.\- ]{0,99}"
#: How long one notebook waits for another that is starting (or ending) a run of the same name.
NAMING_SECONDS = 60.0


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.journal = self.path / "journal"
        self.snapshots = self.path / "snapshots"
        self.logs = self.path / "logs"
        self.ranks = self.path / "ranks"
        self.launch = self.path / "launch.bin"
        self.result = self.path / "result.h3lab"

    @property
    def name(self) -> str:
        """``digits/3``: the actor's name and the run's number."""
        return f"{self.path.parent.name}/{self.path.name}"

    @classmethod
    def claim(cls, actor: str) -> RunFolder:
        """Make the next numbered folder of an actor's runs; ``mkdir`` decides who gets a number."""
        if not re.fullmatch(NAME, actor):
            raise UsageError(
                f"{actor!r} came as a name; expected letters, digits, '_', '-', '.' and spaces, not starting with "
                "a dot or dash, at most 100 of them, because the run's folder is named after it."
            )
        parent = room("runs") / actor
        parent.mkdir(mode=0o700, exist_ok=True)
        number = max((int(p.name) for p in parent.iterdir() if p.name.isdigit()), default=0) + 1
        while True:
            try:
                (parent / str(number)).mkdir(mode=0o700)
            except FileExistsError:
                number += 1
                continue
            folder = cls(parent / str(number))
            for part in (folder.journal, folder.snapshots, folder.logs, folder.ranks, folder.path / "control"):
                part.mkdir(mode=0o700)
            return folder

    @property
    def info(self) -> dict[str, Any]:
        """What was started (``run.json``)."""
        return dict(read_json(self.path / "run.json", {}))

    def write_info(self, **values: Any) -> None:
        """Written once, before the run is queued."""
        write_json(self.path / "run.json", values)

    @property
    def state(self) -> dict[str, Any]:
        """``{"state": ..., "attempt": ..., "since": ...}`` and what else its writer knows."""
        return dict(read_json(self.path / "state.json", {"state": "queued", "attempt": 0, "since": 0.0}))

    def write_state(self, state: str, **values: Any) -> None:
        """Replace the state; only who drives the run at the moment does: its rank 0 while one lives, else the lab."""
        if state not in STATES:
            raise UnknownName("state", state, STATES)
        write_json(self.path / "state.json", {"state": state, **values, "since": time.time()})

    def ask(self, **control: Any) -> int:
        """Write the next control; its number is what the rank will confirm."""
        number = max((n for n, _ in self._controls()), default=0) + 1
        while True:
            draft = self.path / f".control.{os.getpid()}.{time.monotonic_ns()}"
            write_json(draft, control)
            try:
                # A link, not a rename: it fails where the number is taken, and the content is there with the name.
                os.link(draft, self.path / "control" / f"{number:06d}")
                return number
            except FileExistsError:
                number += 1
            finally:
                draft.unlink(missing_ok=True)

    def controls(self, after: int = 0) -> list[tuple[int, dict[str, Any]]]:
        """Controls with a number above ``after``, in order."""
        return [(n, read_json(path, {})) for n, path in sorted(self._controls()) if n > after]

    def _controls(self) -> Iterator[tuple[int, Path]]:
        for path in (self.path / "control").iterdir():
            yield int(path.name), path

    def lock(self) -> int | None:
        """Take the run's lock: its open descriptor (closed with the process), or None while a rank holds it."""
        return lock_file(self.path / "lock")

    @property
    def locked(self) -> bool:
        """Whether a rank lives, which holds the lock."""
        descriptor = self.lock()
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None

    def remove(self) -> None:
        """Delete it. Renamed first: what a rank or the lab still writes about it goes nowhere, and nothing is written
        behind the back of who removes it."""
        aside = self.path.with_name(f".{self.path.name}-{time.time_ns()}")
        self.path.rename(aside)
        shutil.rmtree(aside)

    def __repr__(self) -> str:
        return f"RunFolder({self.name!r})"


@contextmanager
def naming(actor: str) -> Iterator[None]:
    """Alone look whether a name is free, and claim it: of two notebooks that start one name in the same instant both
    would find it free."""

    def waits(seconds: float) -> None:
        if seconds > NAMING_SECONDS:
            raise NameInUse(
                f"another process has been starting a run named {actor!r} for {seconds:.0f} s. Try again, or give "
                "this actor another name."
            )

    with alone(f"runs/{actor}", waits):
        yield


def find(name: str | None = None) -> RunFolder:
    """The folder of ``"digits/2"``, of the newest run of ``"digits"``, or of the run started last (None)."""
    runs = room("runs")
    if name is None:
        candidates = list(folders())
        if not candidates:
            raise RunNotFound(f"no run has been started yet in {runs.parent}. Start one with lab.train(actor, feed).")
        return max(candidates, key=lambda folder: folder.info.get("created", 0.0))
    if not isinstance(name, str):
        raise UsageError(f"{name!r} came; expected the name of a run, for example 'digits' (its newest) or 'digits/2'.")
    actor, _, number = name.partition("/")
    numbers = [int(folder.path.name) for folder in _started(actor)] if re.fullmatch(NAME, actor) else []
    asked = re.fullmatch("[0-9]+", number)
    chosen = int(number) if asked else max(numbers, default=0)
    if chosen not in numbers or (number and not asked):
        # The newest first: of many only some are shown, and what was meant is rarely old.
        started = sorted(folders(), key=lambda folder: -float(folder.info.get("created") or 0.0))
        known = [f"{actor}/{n}" for n in numbers] or list(dict.fromkeys(each.path.parent.name for each in started))
        raise RunNotFound(str(UnknownName("run", name, known, str(runs))))
    return RunFolder(runs / actor / str(chosen))


def folders(actor: str = "*", lab: str | None = None) -> Iterator[RunFolder]:
    """Every run of this home (of one name, of one lab) that was really started, oldest number first within a name. One
    whose ``run.json`` is damaged is passed over: it must not hide the others, nor end their keeper."""
    for folder in _started(actor):
        with suppress(ValueError):
            if lab in (None, folder.info.get("lab")):
                yield folder


def _started(actor: str) -> Iterator[RunFolder]:
    # A number that was claimed and never started, because its notebook died in between, is no run.
    for parent in sorted(room("runs").glob(actor)):
        started = [path.parent for path in parent.glob("*/run.json") if path.parent.name.isdigit()]
        yield from map(RunFolder, sorted(started, key=lambda path: int(path.name)))
