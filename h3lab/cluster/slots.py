"""Slots: places with stable names where ranks run, each one an engine that is started, opened and restarted in place.

It knows engines and their answers; it does not know runs. :meth:`Slots.tick` never waits, except for a controller.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from h3lab.cluster import engines, host, processes
from h3lab.cluster.labfolder import LabFolder
from h3lab.home import home

LOG = logging.getLogger("h3lab.keeper")

#: How long an engine may take until it is registered and open, how long it may be silent, how often it is tried.
START_SECONDS, ANSWER_SECONDS, TRIES, LEAVE_SECONDS = 30.0, 20.0, 3, 5.0
WATCH_SECONDS = 0.1


@dataclass
class Slot:
    """``state``: ``down``, ``starting``, ``ready``, ``silent`` or ``failed``. Process id and birth of the engine tell
    whoever started something on an earlier one that it is gone."""

    name: str
    state: str = "down"
    since: float = field(default_factory=time.time)
    engine: int | None = None
    pid: int | None = None
    born: float | None = None
    host: str = ""
    reason: str = ""
    tries: int = 0
    pulse: processes.Pulse | None = None

    def become(self, state: str, reason: str = "") -> None:
        """Enter a state now."""
        LOG.info("%s: %s %s", self.name, state, reason)
        self.state, self.reason, self.since = state, reason, time.time()


@dataclass
class Call:
    """A question to an engine: it is answered, fails, or is late."""

    slot: str
    what: str
    result: Any
    done: Callable[[Any], None]
    failed: Callable[[str], None]
    asked: float = field(default_factory=time.time)


class Slots:
    """All slots of a lab."""

    def __init__(self, folder: LabFolder, under: Any, names: list[str]) -> None:
        self._folder = folder
        self._under = under
        self._client: Any = None
        self._calls: list[Call] = []
        self._opening: set[int] = set()
        self._refused = ""  # what the last engine said that could not be opened
        self._watched = 0.0
        #: Whether something that is still needed runs on a slot: a silent engine's ranks go on without it.
        self.needed: Callable[[str], bool] = lambda name: False
        self.slots = {name: Slot(name) for name in names}

    @property
    def ready(self) -> list[Slot]:
        """Slots that can start something."""
        return [slot for slot in self.slots.values() if slot.state == "ready"]

    def bring_up(self) -> None:
        """Find what a dead keeper left, or start a controller, and connect; engines follow in :meth:`tick`."""
        if self._under.ours:
            for name in self._under.adopt():
                if name in self.slots:
                    self.slots[name].become("starting", "found again")
                else:
                    self._under.end(name)
            if not self._under.controlled:
                self._under.start_controller()
        try:
            self._connect()
        except Exception:  # a controller that was found alive and answers nobody
            if not self._under.ours:
                raise
            LOG.exception("the controller does not answer")
            self._restart_all("the controller does not answer")

    def _connect(self) -> None:
        import ipyparallel as ipp

        self._client = ipp.Client(str(self._under.connection), timeout=ANSWER_SECONDS)
        self._opening.clear()

    def tick(self) -> None:
        """Advance every slot as far as it goes without waiting."""
        self._answers()
        now = time.monotonic()
        if now - self._watched < WATCH_SECONDS:
            return
        self._watched = now
        if not self._under.controlled:
            self._restart_all("the controller has ended")
        for slot in self.slots.values():
            self._watch(slot)
        for engine in self._client.ids:
            if engine not in self._opening:
                self._open(engine)

    def _watch(self, slot: Slot) -> None:
        silent = time.time() - slot.since
        if slot.state == "down" and self._under.ours:
            self._start(slot)
        elif slot.state == "starting" and not self._under.running(slot.name):
            self._lost(slot, f"its engine ended while it started. The end of its log:\n{self._log(slot)}")
        elif slot.state == "starting" and silent > START_SECONDS:
            reason = self._refused or "its engine has not registered"
            self._lost(slot, f"{reason} for {silent:.0f} s. The end of its log:\n{self._log(slot)}")
        elif slot.state in ("ready", "silent") and not self._lives(slot):
            self._lost(slot, f"its engine (process {slot.pid}) has ended")
        elif slot.state == "ready" and slot.engine not in self._client.ids:
            slot.become("silent", "its engine has lost its heartbeat")
        elif slot.state == "silent" and self._under.ours and not self.needed(slot.name):
            self._lost(slot, f"{slot.reason} for {silent:.0f} s, and nothing runs there")

    def _lives(self, slot: Slot) -> bool:
        return slot.pulse.beats if slot.pulse is not None else slot.engine in self._client.ids

    def _start(self, slot: Slot) -> None:
        slot.tries += 1
        slot.become("starting", slot.reason)  # why it is started again stays to be read
        self._under.start(slot.name, {"H3LAB_HOME": str(home()), **engines.environment(_index(slot.name))})

    def _lost(self, slot: Slot, reason: str) -> None:
        if self._under.ours:
            self._under.end(slot.name)
        slot.engine = slot.pid = slot.pulse = None
        slot.become("failed" if slot.tries >= TRIES or not self._under.ours else "down", reason)
        for call in [c for c in self._calls if c.slot == slot.name]:
            self._calls.remove(call)
            call.failed(f"{slot.name}: {reason}")

    def _log(self, slot: Slot) -> str:
        output: str = self._under.output(slot.name)
        with open(self._folder.logs / f"{slot.name}.log", "a") as file:
            file.write(output + "\n")
        return "\n".join(output.splitlines()[-20:])

    def _restart_all(self, reason: str) -> None:
        LOG.warning("%s; the whole cluster is started again", reason)
        for slot in self.slots.values():
            self._lost(slot, reason)
        with suppress(Exception):  # its sockets have nobody at their other end
            self._client.close(linger=0)
        self._under.stop()
        self._under.start_controller()
        self._connect()

    def _open(self, engine: int) -> None:
        self._opening.add(engine)
        name = f"engine{engine}"
        if not self._under.ours:  # named at once, so that a lab waits for all of them
            self.slots.setdefault(name, Slot(name, "starting"))
        done, failed = partial(self._opened, engine), partial(self._unopened, engine)
        self._submit(name, "open_host", engine, (str(home()),), done, failed)

    def _unopened(self, engine: int, reason: str) -> None:
        if self._under.ours:
            self._refused = reason
            self._opening.discard(engine)
            return
        slot = self.slots[f"engine{engine}"]
        slot.become("failed", f"{reason}. h3lab must be installed where this engine runs")

    def _opened(self, engine: int, answer: dict[str, Any]) -> None:
        name = answer["slot"] if self._under.ours else f"engine{engine}"
        slot = self.slots.get(name)
        # An engine that was given up may answer after its successor was started.
        if slot is None or (self._under.ours and answer["pid"] != self._under.pid(name)):
            return
        slot.engine, slot.pid, slot.born, slot.host = engine, answer["pid"], answer["born"], answer["host"]
        if self._under.ours and slot.host == socket.gethostname():
            slot.pulse = processes.Pulse(slot.pid, slot.born)
        if not answer["home_seen"]:
            slot.become("failed", f"{slot.host} does not see {home()}, the folder that runs live in")
            return
        slot.tries = 0
        slot.become("ready")

    def call(
        self,
        slot: Slot,
        what: str,
        arguments: tuple[Any, ...],
        done: Callable[[Any], None],
        failed: Callable[[str], None],
    ) -> None:
        """Ask a slot's host to run one of its functions; exactly one of the two callbacks follows in a later tick."""
        if slot.engine is None:
            failed(f"{slot.name} is {slot.state}. {slot.reason}")
        else:
            self._submit(slot.name, what, slot.engine, arguments, done, failed)

    def _submit(
        self,
        name: str,
        what: str,
        engine: int,
        arguments: tuple[Any, ...],
        done: Callable[[Any], None],
        failed: Callable[[str], None],
    ) -> None:
        try:
            result = self._client[engine].apply_async(getattr(host, what), *arguments)
        except Exception as error:  # an engine that has just gone, in one of ipyparallel's many words
            failed(f"{name}: {type(error).__name__}: {error}")
            return
        self._calls.append(Call(name, what, result, done, failed))

    def _answers(self) -> None:
        for call in list(self._calls):
            late = time.time() - call.asked
            if call.result.ready():
                self._calls.remove(call)
                self._settle(call)
            elif late > ANSWER_SECONDS:
                self._calls.remove(call)
                self._late(call, late)

    def _late(self, call: Call, seconds: float) -> None:
        asked = time.strftime("%H:%M:%S", time.localtime(call.asked))
        reason = f"it has not answered {call.what} since {asked}"
        slot = self.slots.get(call.slot)
        if slot is not None and slot.state == "ready":
            slot.become("silent", reason)
        call.failed(f"{call.slot}: {reason} ({seconds:.0f} s)")

    def _settle(self, call: Call) -> None:
        try:
            answer = call.result.get(timeout=0)
        except Exception as error:  # whatever the engine raised, and whatever ipyparallel says of a dead one
            call.failed(f"{call.slot}: {call.what} failed: {error}")
            return
        finally:
            # The client keeps every result for ever.
            with suppress(Exception):
                self._client.purge_local_results(call.result)
        call.done(answer)

    def retry(self) -> None:
        """Give slots that have failed another chance."""
        for slot in self.slots.values():
            if slot.state == "failed" and self._under.ours:
                slot.tries = 0
                slot.become("down")
            elif slot.state == "failed":
                self._opening.discard(int(slot.name.removeprefix("engine")))
                slot.become("starting")

    def stop(self) -> None:
        """End what is ours; in engines of somebody else, what was started there."""
        if self._client is not None and not self._under.ours:
            with suppress(Exception):  # an engine that is busy with its owner's work is not waited for
                asked = [self._client[slot.engine].apply_async(host.close_host) for slot in self.ready]
                self._client.wait(asked, timeout=LEAVE_SECONDS)
        if self._client is not None:
            with suppress(Exception):  # closing is a courtesy to a controller that may be gone
                self._client.close(linger=0)
        if self._under.ours:
            self._under.stop()


def _index(name: str) -> int:
    return int(name.removeprefix("slot"))
