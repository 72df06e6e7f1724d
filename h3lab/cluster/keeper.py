"""The keeper: a detached process a lab, which alone holds its engines, starts and recovers its runs, and ends it.

Notebooks and the command line ask it through the lab's folder; it answers there. It runs no user code. Whatever it
needs to know stands in folders, so that a new keeper goes on where a dead one stopped.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from h3lab.cluster import jobs
from h3lab.cluster.engines import GuestEngines, OwnEngines
from h3lab.cluster.labfolder import LabFolder
from h3lab.cluster.lease import HOURS, Lease
from h3lab.cluster.roster import Roster
from h3lab.cluster.slots import Slot, Slots
from h3lab.cluster.watch import Watch
from h3lab.running.folder import RunFolder

LOG = logging.getLogger("h3lab.keeper")
TICK_SECONDS, STATUS_SECONDS, LOOK_SECONDS, SWEEP_SECONDS = 0.02, 1.0, 1.0, 600.0
FAILURES = 20


class Keeper:
    """One lab's, from start to end."""

    def __init__(self, folder: LabFolder) -> None:
        self._folder = folder
        plan = folder.status
        self._plan = {name: plan.get(name) for name in ("engines", "profile", "guest")}
        self._lease = Lease(float(plan.get("hours") or HOURS))
        self._plan["hours"] = self._lease.hours
        self._state, self._reason = "starting", ""
        self._written = self._swept = self._looked = 0.0
        self._shown: Any = None
        self._asked, self._left = Watch(folder.requests), True
        under: Any = GuestEngines(folder) if plan.get("guest") else OwnEngines(folder, plan.get("profile"))
        names = [] if plan.get("guest") else [f"slot{i}" for i in range(int(plan["engines"]))]
        self._slots = Slots(folder, under, names)

    def run(self) -> None:
        """Until somebody ends it, or its lease does."""
        self._write()
        self._slots.bring_up()
        self._roster = Roster(self._folder.name, self._slots)
        self._slots.needed = self._roster.needs
        self._state = "ready"
        failures = 0
        while not self._reason:
            if not self._folder.path.exists():
                self._slots.stop()
                return
            try:
                self._tick()
                failures = 0
            except Exception:  # a full disk, a controller that does not come back: ranks go on, so it tries again
                failures += 1
                LOG.exception("failed for the %d. time in a row", failures)
                if failures == FAILURES:
                    raise
                time.sleep(1.0)
            time.sleep(TICK_SECONDS)
        self._end()

    def _tick(self) -> None:
        if self._asked.changed or self._left:
            questions = self._folder.waiting()
            for name, question in questions:
                self._answer(name, question)
            self._left = bool(questions)  # some are answered later
        self._slots.tick()
        self._roster.tick()
        self._look_at_lease()
        self._write()

    def give_up(self, error: Exception) -> None:
        """After a failure: a lab that never got ready has ended. One that was leaves its ranks at work, and whoever
        looks at it next starts another keeper."""
        if self._state == "starting":
            self._slots.stop()
            self._state, reason = "ended", f"its keeper failed: {type(error).__name__}: {error}"
            self._folder.write_status(state="ended", reason=reason, slots=[], **self._plan)

    # ---- Questions ----

    def _answer(self, name: str, question: dict[str, Any]) -> None:
        what = str(question.get("ask"))
        ask = getattr(self, f"_ask_{what}", None)
        if ask is None:
            self._folder.answer(name, error=f"there is no question {what!r}")
            return
        try:
            answer = ask(name, question)
        except Exception as error:  # one bad question must not end the lab
            LOG.exception("question %s", question)
            answer = {"error": f"{type(error).__name__}: {error}"}
        if answer is not None:
            self._folder.answer(name, **answer)

    def _ask_run(self, name: str, question: dict[str, Any]) -> dict[str, Any]:
        self._roster.enter(RunFolder(Path(question["path"])))
        return {}

    def _ask_job(self, name: str, question: dict[str, Any]) -> dict[str, Any]:
        path = Path(question["path"])
        if not self._slots.ready:
            reasons = "; ".join(f"{slot.name} is {slot.state} {slot.reason}" for slot in self._slots.slots.values())
            # Left unanswered it is asked again at the next tick.
            return None if self._starting else {"error": f"no slot is ready: {reasons}"}  # type: ignore[return-value]
        wanted = question.get("slots")
        for slot in self._slots.ready:
            if wanted is not None and slot.name not in wanted:
                continue
            # No counter: a keeper's successor would give the same names to other workers of the same job.
            worker = f"{slot.name}-{secrets.token_hex(4)}"
            report = path / "workers" / worker
            call = ("worker", (str(path), worker), f"{report}.log", str(report), str(path / "closed"))
            self._slots.call(slot, "start", call, lambda answer: None, lambda reason: LOG.warning("worker: %s", reason))
        return {}

    def _ask_missing(self, name: str, question: dict[str, Any]) -> None:
        found: dict[str, Any] = {}
        ready = self._slots.ready
        (self._folder.requests / name).unlink(missing_ok=True)
        if not ready:
            self._folder.answer(name, missing={})

        def ask(slot: Slot) -> None:
            def done(answer: Any) -> None:
                found[slot.name] = answer
                if len(found) == len(ready):
                    self._folder.answer(name, missing=found)

            self._slots.call(slot, "missing", (question["modules"],), done, lambda why: done([f"(no answer: {why})"]))

        for slot in ready:
            ask(slot)

    def _ask_retry(self, name: str, question: dict[str, Any]) -> dict[str, Any]:
        self._slots.retry()
        return {}

    def _ask_lease(self, name: str, question: dict[str, Any]) -> dict[str, Any]:
        self._lease.hours = float(question["hours"])
        self._lease.renew()
        self._plan["hours"] = self._lease.hours
        self._roster.look_at_pauses(self._lease, extended=True)
        self._shown = None
        self._write()  # before the answer: who asked may look at once
        return {"ends": self._lease.ends, "hours": self._lease.hours}

    def _ask_end(self, name: str, question: dict[str, Any]) -> dict[str, Any]:
        training = [] if question.get("force") else self._roster.training
        if training:
            names = ", ".join(training)
            return {"error": f"{names} still train. Stop them (run.stop()), or stop all: lab.close(force=True)."}
        if jobs.going(self._folder) and not question.get("force"):
            return {"error": "somebody prepares a feed here. Wait for it, or end it too: lab.close(force=True)."}
        self._reason = str(question.get("reason") or "somebody ended it")
        return {}

    # ---- State ----

    @property
    def _starting(self) -> bool:
        return any(slot.state in ("down", "starting") for slot in self._slots.slots.values())

    def _look_at_lease(self) -> None:
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        self._roster.look_at_pauses(self._lease)
        # Runs that wait for engines which have all failed need nobody.
        if self._folder.watched() or (
            self._roster.entries and any(s.state != "failed" for s in self._slots.slots.values())
        ):
            self._lease.renew()
        elif self._lease.over:
            self._reason = f"nobody has needed it for {self._lease.hours:g} hours"
        if time.monotonic() - self._swept > SWEEP_SECONDS:
            self._swept = time.monotonic()
            self._roster.look()
            self._folder.sweep()
            jobs.sweep(self._folder)

    def _write(self) -> None:
        going = {} if self._state == "starting" else self._roster.going
        slots = [
            {
                "name": slot.name,
                "state": slot.state,
                "reason": slot.reason,
                "pid": slot.pid,
                "host": slot.host,
                "run": going.get(slot.name),
            }
            for slot in self._slots.slots.values()
        ]
        shown = (self._state, slots)
        now = time.monotonic()
        if shown == self._shown and now - self._written < STATUS_SECONDS:
            return
        self._shown, self._written = shown, now
        self._folder.write_status(
            state=self._state, slots=slots, pid=os.getpid(), lease_ends=self._lease.ends, **self._plan
        )

    def _end(self) -> None:
        LOG.info("the lab ends: %s", self._reason)
        self._state = "ending"
        self._write()
        self._slots.stop()
        self._folder.write_status(state="ended", reason=self._reason, slots=[], **self._plan)

    def stop(self, *_: Any) -> None:
        """What SIGTERM asks for."""
        self._reason = self._reason or "its keeper was asked to end (SIGTERM)"


def environment() -> dict[str, str]:
    """What a keeper, and so every engine and rank, gets of this process's variables: not what ties them to a notebook,
    and with the way to this h3lab, which may be importable only from where the notebook stands."""
    values = {name: value for name, value in os.environ.items() if not name.startswith(("JPY_", "IPP_"))}
    if values.get("MPLBACKEND", "").startswith("module://"):
        values["MPLBACKEND"] = "agg"
    here = str(Path(__file__).parents[2])
    if not here.endswith(("site-packages", "dist-packages")):
        values["PYTHONPATH"] = os.pathsep.join(filter(None, [values.get("PYTHONPATH"), here]))
    return values


#: Two forks, so that the keeper is nobody's child: it leaves no zombie, and no notebook's process tree holds it.
DETACH = "import os, sys\nif os.fork() == 0:\n os.setsid()\n os.execv(sys.argv[1], sys.argv[1:])"


def start(folder: LabFolder) -> None:
    """Start a keeper that no death of this process, terminal or session reaches."""
    keeper = [sys.executable, "-m", "h3lab.cluster.keeper", folder.name]
    with open(folder.logs / "keeper.log", "ab") as log:
        command = [sys.executable, "-S", "-I", "-c", DETACH, *keeper]
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", check=True, env=environment()
        )


def main() -> int:
    """``python -m h3lab.cluster.keeper default``: keep that lab; 1 where another keeper does already."""
    parser = argparse.ArgumentParser()
    parser.add_argument("lab")
    folder = LabFolder(parser.parse_args().lab)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    lock = folder.lock()
    if lock is None:
        return 1
    os.set_inheritable(lock, False)
    keeper = Keeper(folder)
    try:
        signal.signal(signal.SIGTERM, keeper.stop)
        keeper.run()
    except Exception as error:
        LOG.exception("the keeper fails")
        keeper.give_up(error)
        return 1
    return 0


if __name__ == "__main__":
    # os._exit: launchers' loop and sockets have threads that wait for ever.
    code = main()
    logging.shutdown()
    os._exit(code)
