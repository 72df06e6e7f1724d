"""Steering: what viewers ask of a run, applied between two of its steps and confirmed in its journal.

Rank 0 reads the run's controls; the other ranks of a group follow it. A group moves in step: while rank 0 is about to
take step s, no other can have finished s, because the gradients of s are averaged over all. So what rank 0 writes down
before step s, to hold from step s + 1 on, is read by everybody before that step, without a message of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from h3lab.cluster.attempt import Attempt
from h3lab.cluster.watch import Watch
from h3lab.errors import UsageError
from h3lab.home import read_json, write_json
from h3lab.running.folder import RunFolder

POLL_SECONDS = 0.02


class Stop(GeneratorExit):
    """Raised into a training before a step, with the reason where it was not a user's wish. A training treats
    GeneratorExit as its caller's wish to end: the model is kept as it is, and ``stopped_at`` says where."""


class Steering:
    """``obey(training)`` before each step. ``tell(event, **values)`` writes to the journal (rank 0 alone has one);
    ``report(state)`` to the run's state; ``snap()`` takes a snapshot, and says of which step, or None."""

    def __init__(
        self,
        folder: RunFolder,
        attempt: Attempt,
        rank: int,
        ranks: int,
        tell: Callable[..., None],
        report: Callable[..., None],
        snap: Callable[[], int | None],
    ) -> None:
        self._folder, self._leads, self._group = folder, rank == 0, ranks > 1
        self._tell, self._report, self._snap = tell, report, snap
        self._agreed_path = Path(f"{attempt.report(0)}.agreed.json")
        self._asked = Watch(folder.path / "control" if self._leads else self._agreed_path)
        self._looked = 0.0
        self._done = 0  # what was confirmed, in this attempt or an earlier one
        self._obeyed: set[int] = set()  # in this attempt
        self._plan: list[tuple[int, int, dict[str, Any]]] = []  # (step from which it holds, number, control)
        self.paused = False

    def begin(self, events: list[dict[str, Any]], step: int) -> None:
        """Take up what was asked before ``step + 1``, the first step now: controls that wait for a first step hold from
        it on, and what an earlier attempt obeyed after its last snapshot is obeyed at the same steps again."""
        again: dict[str, tuple[int, int, dict[str, Any]]] = {}
        for event in events:
            kind, number, at = event["event"], int(event.get("control") or 0), int(event.get("step") or 0)
            self._done = max(self._done, number)
            if kind == "set" and at > step:
                self._plan.append((at, number, {"set": event["values"]}))
            elif kind in ("pause", "resume", "stop") and number:
                # Only where it stands in the end counts: a pause that was over changed nothing.
                again = {"last": (max(at, step) + 1, number, {kind: True})}
        self._plan += [item for item in again.values() if "resume" not in item[2]]
        if self._leads:
            self._plan += [(step + 1, number, control) for number, control in self._folder.controls(after=self._done)]
            if self._group:
                write_json(self._agreed_path, self._plan)

    def obey(self, training: Any) -> None:
        """Apply what holds from the next step on; while paused, wait here."""
        while True:
            self._look(training.step + 1)
            self._apply(training)
            if not self.paused:
                break
            time.sleep(POLL_SECONDS)

    def _look(self, step: int) -> None:
        """Read new controls (a group: what rank 0 has agreed on). A look costs one or two microseconds of stat, and
        is taken at most every POLL_SECONDS by who leads; who follows must look at every step."""
        now = time.monotonic()
        if self._leads and now - self._looked < POLL_SECONDS and not self.paused:
            return
        self._looked = now
        try:
            if not self._asked.changed:
                return
        except FileNotFoundError:  # rank 0 has agreed on nothing yet
            return
        if not self._leads:
            agreed = read_json(self._agreed_path, [])
            self._plan = [(s, n, control) for s, n, control in agreed if n not in self._obeyed]
            return
        known = {number for _, number, _ in self._plan}
        new = [(n, control) for n, control in self._folder.controls(after=self._done) if n not in known]
        if new:
            # Paused, everybody stands before the same step and looks on, so it can hold at once.
            start = step if not self._group or self.paused else step + 1
            self._plan += [(start, number, control) for number, control in new]
            if self._group:
                write_json(self._agreed_path, self._plan)

    def _apply(self, training: Any) -> None:
        due = [item for item in self._plan if item[0] <= training.step + 1]
        self._plan = [item for item in self._plan if item[0] > training.step + 1]
        for _, number, control in due:
            self._done = max(self._done, number)
            self._obeyed.add(number)
            for kind, values in control.items():
                self._act(kind, values, number, training)

    def _act(self, kind: str, values: Any, number: int, training: Any) -> None:
        step = training.step + 1
        if kind == "set":
            try:
                training.settings = training.settings.replace(**values)
            except UsageError as error:  # a viewer checks before it asks; another program may not
                self._tell("refused", control=number, step=step, message=str(error))
                return
            self._tell("set", control=number, step=step, values=values)
        elif kind in ("pause", "resume"):
            self.paused = kind == "pause"
            # Before it is confirmed: who has asked may look at the state at once.
            self._report("paused" if self.paused else "training")
            self._tell(kind, control=number, step=training.step)
        elif kind == "snapshot":
            at = self._snap()
            if at is None and self._leads:
                message = "the loop has kept nothing yet; it keeps what it yields: yield h3.snapshot(state)"
                self._tell("refused", control=number, step=step, message=message)
                return
            self._tell("snapshot", control=number, step=at)
        elif kind == "lease":
            self._tell("lease", control=number, step=training.step, ends=values)
            if self.paused:
                until = time.strftime("%a %H:%M", time.localtime(values))
                message = f"until {until}, then its lab stops it; lab.extend(hours) gives it longer"
                self._report("paused", lease_ends=values, message=message)
        elif kind == "stop":
            if training.step:
                self._snap()
            self._tell("stop", control=number, step=training.step)
            raise Stop(values if isinstance(values, str) else "")
        else:
            self._tell("refused", control=number, step=step, message=f"there is no control {kind!r}")
