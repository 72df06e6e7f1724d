"""The roster: the runs of a lab that have not ended. It starts them on free slots, in order, and brings lost ones back.

All it needs to know stands in the runs' folders, so that a new keeper goes on where a dead one stopped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from h3lab.cluster.attempt import Attempt, Verdict, stuck, verdict
from h3lab.cluster.labfolder import tail
from h3lab.cluster.lease import Lease
from h3lab.cluster.slots import Slot, Slots
from h3lab.cluster.watch import Watch
from h3lab.running import snapshots
from h3lab.running.folder import ENDED, RunFolder, folders

LOG = logging.getLogger("h3lab.keeper")

#: How long a host may take to say that it has started a rank, and how long a run rests that could not be looked after.
START_SECONDS, REST_SECONDS = 45.0, 2.0
#: A rank that is asked answers at once; one that hangs is not asked every second.
ASK_SECONDS = 30.0


@dataclass
class Entry:
    """A run in the roster: waiting (no attempt), or going."""

    folder: RunFolder
    ranks: int
    created: float
    attempt: Attempt | None = None
    lost: dict[int, str] = field(default_factory=dict)
    released: bool = False
    home: tuple[str, ...] = ()  # the slots it comes back to
    started: bool = False  # whether its hosts have said so
    children: dict[int, int] = field(default_factory=dict)  # process of each rank
    ends: dict[int, int] = field(default_factory=dict)  # exit code of each rank that has ended
    told: str = ""  # why it waits
    rest: float = 0.0  # until when it is left alone (monotonic)
    asked: dict[str, float] = field(default_factory=dict)  # for its lease: what → when (monotonic)

    def __post_init__(self) -> None:
        # A keeper looks fifty times a second, and mostly nothing has happened.
        self.reports, self.controls = Watch(self.folder.ranks), Watch(self.folder.path / "control")

    @property
    def name(self) -> str:
        """``digits/3``."""
        return self.folder.name


class Roster:
    """Runs by name."""

    def __init__(self, lab: str, slots: Slots) -> None:
        self._lab, self._slots = lab, slots
        self.entries: dict[str, Entry] = {}
        self.look()

    def look(self) -> None:
        """Take in what has not ended. A keeper that is new has to look; one that is not finds what a notebook has left
        that died between writing a run down and asking for it."""
        for folder in folders(lab=self._lab):
            if folder.state["state"] not in ENDED:
                self.enter(folder)

    def enter(self, folder: RunFolder) -> None:
        """Take a run in; one that is known already stays as it is."""
        info = folder.info
        known = self.entries.get(folder.name)
        # A number is given away again once its run was deleted.
        if known is not None and known.created == float(info["created"]):
            return
        entry = Entry(folder, int(info["ranks"]), float(info["created"]), Attempt.newest(folder))
        if entry.attempt is not None:
            entry.home = tuple(slot["name"] for slot in entry.attempt.slots)
        self.entries[entry.name] = entry

    @property
    def going(self) -> dict[str, str]:
        """Slot → the run on it."""
        return {
            slot["name"]: entry.name
            for entry in self.entries.values()
            if entry.attempt is not None
            for slot in entry.attempt.slots
        }

    @property
    def training(self) -> list[str]:
        """Names of the runs that have not ended; one that has may still be leaving its slot."""
        return [entry.name for entry in self.entries.values() if entry.folder.state["state"] not in ENDED]

    def needs(self, slot: str) -> bool:
        """Whether a rank that is still wanted lives on a slot."""
        run = self.going.get(slot)
        folder = self.entries[run].folder if run is not None else None
        return folder is not None and folder.state["state"] not in ENDED and folder.locked

    def tick(self) -> None:
        """Look after every run once."""
        for entry in list(self.entries.values()):
            if not entry.folder.path.exists():
                self._forget(entry)
            elif entry.attempt is not None:
                self._alone(self._follow, entry)
        waiting = [entry for entry in self.entries.values() if entry.attempt is None]
        for entry in sorted(waiting, key=lambda entry: (not entry.home, entry.created)):
            self._alone(self._serve, entry)

    # ---- Leases ----

    def look_at_pauses(self, lease: Lease, extended: bool = False) -> None:
        """A paused run holds its slot. It is told until when it may, which its state then says, and is stopped when
        that is over. ``extended``: it is told anew. Only the rank knows whether it is still paused when it hears that,
        so it is asked as a viewer would ask it."""
        for entry in list(self.entries.values()):
            state = entry.folder.state
            if entry.attempt is None or state["state"] != "paused":
                entry.asked.clear()
                continue
            ends = state.get("lease_ends")
            if ends is None or extended:
                self._ask(entry, extended, lease=lease.ends_from_now)
            elif time.time() > ends:
                self._ask(entry, stop="it was paused for longer than its lease, and nobody resumed it")

    def _ask(self, entry: Entry, again: bool = False, **control: Any) -> None:
        what, now = next(iter(control)), time.monotonic()
        if again or now - entry.asked.get(what, -ASK_SECONDS) >= ASK_SECONDS:
            entry.asked[what] = now
            LOG.info("%s is paused: %s", entry.name, control)
            entry.folder.ask(**control)

    def _alone(self, look: Callable[[Entry], None], entry: Entry) -> None:
        if time.monotonic() < entry.rest:
            return
        try:
            look(entry)
        except OSError:
            # Somebody has removed the folder, or the disk is full: no reason to give up the other runs.
            if entry.folder.path.exists():
                LOG.exception("%s: left alone for %g s", entry.name, REST_SECONDS)
                entry.rest = time.monotonic() + REST_SECONDS
            else:
                self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        LOG.info("%s: its folder is gone, so it is forgotten", entry.name)
        # A rank writes on into files that have no name any more, until its next snapshot.
        self._end_ranks(entry)
        del self.entries[entry.name]

    # ---- A run with an attempt ----

    def _follow(self, entry: Entry) -> None:
        attempt = entry.attempt
        assert attempt is not None
        if entry.reports.changed:
            ranks = range(entry.ranks)
            entry.ends = {rank: end["exit"] for rank in ranks if (end := attempt.end(rank)) is not None}
            entry.children = {rank: start["pid"] for rank in ranks if (start := attempt.start(rank)) is not None}
        self._look_for_lost(entry, attempt)
        if not entry.ends and not entry.lost:
            return
        errors = [error for rank in range(entry.ranks) if (error := attempt.error(rank)) is not None]
        found = verdict(entry.folder.state["state"], entry.ends, entry.lost, errors, entry.ranks)
        if found.what == "broken" and not entry.released:
            entry.released = True
            self._end_ranks(entry)
        elif found.what not in ("going", "broken"):
            self._settle(entry, attempt, found)

    def _look_for_lost(self, entry: Entry, attempt: Attempt) -> None:
        for rank, planned in enumerate(attempt.slots):
            slot = self._slots.slots.get(planned["name"])
            same = slot is not None and slot.pid == planned["pid"] and slot.born == planned["born"]
            # While a keeper finds its slots again they have no process yet.
            if rank in entry.ends or (slot is not None and slot.state == "starting" and slot.reason == "found again"):
                continue
            if not same:
                entry.lost.setdefault(rank, f"rank {rank} was on {planned['name']}, whose engine has ended")
        if not entry.started:
            missing = [rank for rank in range(entry.ranks) if rank not in entry.children]
            entry.started = not missing
            # A keeper may have died between planning an attempt and starting it.
            if time.time() - float(attempt.plan["at"]) > START_SECONDS:
                for rank in missing:
                    entry.lost.setdefault(rank, f"rank {rank} was not started within {START_SECONDS:g} s")

    def _end_ranks(self, entry: Entry) -> None:
        for rank, planned in enumerate(entry.attempt.slots if entry.attempt is not None else []):
            slot = self._slots.slots.get(planned["name"])
            if rank in entry.ends or rank in entry.lost or rank not in entry.children or slot is None:
                continue
            LOG.info("%s: rank %d is released", entry.name, rank)

            def failed(reason: str, rank: int = rank) -> None:
                entry.lost.setdefault(rank, reason)

            self._slots.call(slot, "end", (entry.children[rank],), lambda answer: None, failed)

    def _settle(self, entry: Entry, attempt: Attempt, found: Verdict) -> None:
        LOG.info("%s: attempt %d is %s. %s", entry.name, attempt.number, found.what, found.reason)
        if found.what == "over":
            del self.entries[entry.name]
            return
        if found.error is not None:
            self._fail(entry, attempt, dict(found.error))
            return
        entry.attempt, entry.lost, entry.released, entry.started = None, {}, False, False
        entry.ends, entry.children = {}, {}
        entry.home = tuple(slot["name"] for slot in attempt.slots)
        step = snapshots.newest_step(entry.folder)
        if stuck(entry.folder, step):
            log = "\n".join(filter(None, (tail(attempt.log(rank)) for rank in range(entry.ranks))))
            message = (
                f"{found.reason}. It was started again from step {step} and came no further, so it is given up. "
                f"The end of its log:\n{log}"
            )
            self._fail(entry, attempt, {"type": "EngineLost", "message": message, "traceback": "", "rank": 0})
            return
        entry.folder.write_state(
            "lost", attempt=attempt.number, step=step, message=f"{found.reason}; it comes back from step {step}"
        )

    def _fail(self, entry: Entry, attempt: Attempt, error: dict[str, object]) -> None:
        entry.folder.write_state("failed", attempt=attempt.number, error=error, message=str(error["message"]))
        del self.entries[entry.name]

    # ---- A run without one ----

    def _serve(self, entry: Entry) -> None:
        if entry.controls.changed and any(control.get("stop") for _, control in entry.folder.controls()):
            self._end_waiting(entry)
            return
        slots = self._places(entry)
        if slots is None:
            self._say_waiting(entry)
        else:
            self._begin(entry, slots)

    def _end_waiting(self, entry: Entry) -> None:
        """One that was lost ends where its last snapshot is: nobody waits for its slot to come back."""
        step, number = snapshots.newest_step(entry.folder), entry.folder.state["attempt"]
        message = "stopped before it began" if not entry.home else "stopped before it came back"
        entry.folder.write_state("stopped", attempt=number, step=step, stopped_at=step, message=message)
        del self.entries[entry.name]

    def _places(self, entry: Entry) -> list[Slot] | None:
        taken = set(self.going) | {
            name
            for other in self.entries.values()
            if other.attempt is None and other is not entry
            for name in other.home
        }
        free = [slot for slot in self._slots.ready if slot.name not in taken]
        if entry.home:
            # It comes back in its own slots, unless one of them never will.
            usable = {n for n in entry.home if (s := self._slots.slots.get(n)) is not None and s.state != "failed"}
            if len(usable) == len(entry.home):
                free = [slot for slot in free if slot.name in usable]
        return free[: entry.ranks] if len(free) >= entry.ranks else None

    def _say_waiting(self, entry: Entry) -> None:
        before = [other.name for other in self.entries.values() if other is not entry and other.created < entry.created]
        actors = ", ".join(repr(name.rpartition("/")[0]) for name in before)
        message = f"queued behind {actors}" if before else "queued until a slot is ready"
        if message == entry.told:
            return
        entry.told, state = message, entry.folder.state
        if state["state"] != "lost" and (state.get("message") != message or state["state"] != "queued"):
            entry.folder.write_state("queued", attempt=state["attempt"], step=0, message=message)

    def _begin(self, entry: Entry, slots: list[Slot]) -> None:
        step = snapshots.newest_step(entry.folder)
        plan = [{"name": slot.name, "pid": slot.pid, "born": slot.born, "host": slot.host} for slot in slots]
        attempt = entry.attempt = Attempt.begin(entry.folder, plan, step)
        names = [slot.name for slot in slots]
        LOG.info("%s: attempt %d begins on %s from step %d", entry.name, attempt.number, ", ".join(names), step)
        entry.folder.write_state("starting", attempt=attempt.number, step=step, slots=names)
        for rank, slot in enumerate(slots):

            def failed(reason: str, rank: int = rank) -> None:
                entry.lost.setdefault(rank, reason)

            arguments = (str(entry.folder.path), attempt.number, rank)
            call = ("rank", arguments, str(attempt.log(rank)), str(attempt.report(rank)))
            self._slots.call(slot, "start", call, lambda answer: None, failed)
