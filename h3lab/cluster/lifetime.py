"""The lifetime of a lab: its keeper is started again where it has died, and asked to end.

It knows a lab's folder; it needs no Lab, so that the command line and a run's viewers can call it.
"""

from __future__ import annotations

import os
import time
from typing import Any

from h3lab.cluster.labfolder import LabFolder
from h3lab.errors import LabError
from h3lab.running import snapshots
from h3lab.running.folder import ENDED, RunFolder

#: A keeper may be finding a whole cluster again, or ending it.
WAIT_SECONDS, ANSWER_SECONDS, POLL_SECONDS = 60.0, 20.0, 0.02
LIVING = ("starting", "ready")


def check_plan(engines: Any, profile: Any) -> None:
    """LabError for what no lab can be started with."""
    if engines is not None and (isinstance(engines, bool) or not isinstance(engines, int) or engines < 1):
        raise LabError(f"engines={engines!r} came; expected a whole number from 1, for example h3.Lab(engines=2).")
    if profile is not None and not isinstance(profile, str):
        raise LabError(f"profile={profile!r} came; expected an IPython profile's name, for example profile='slurm'.")


def revive(folder: LabFolder) -> None:
    """Start the keeper of a lab again that has lost its own; its engines and ranks go on meanwhile. LabError where the
    lab has ended."""
    with folder.starting(WAIT_SECONDS):
        if folder.kept:
            return
        if folder.status["state"] not in LIVING:
            raise LabError(f"the lab has ended ({folder.status.get('reason', '')}). Start one: h3.Lab(engines=2).")
        from h3lab.cluster import keeper  # a tenth of a second, which whoever only looks at a run need not wait

        keeper.start(folder)
        deadline = time.monotonic() + WAIT_SECONDS
        while not folder.kept:
            if time.monotonic() > deadline:
                raise LabError(f"the keeper did not start again:\n{folder.log_tail()}")
            time.sleep(POLL_SECONDS)


def answer(folder: LabFolder, what: str, **values: Any) -> dict[str, Any]:
    """Ask the keeper of a lab and wait for its answer; LabError with what it could not do, or where it is late."""
    if not folder.kept:
        revive(folder)
    name = folder.ask(what, **values)
    deadline = time.monotonic() + ANSWER_SECONDS
    while (found := folder.answered(name)) is None:
        if time.monotonic() > deadline:
            raise LabError(f"the keeper has not answered {what!r} for {ANSWER_SECONDS:g} s:\n{folder.log_tail()}")
        time.sleep(POLL_SECONDS)
    if found.get("error"):
        raise LabError(str(found["error"]))
    return found


def end(folder: LabFolder, reason: str = "somebody closed it", force: bool = True) -> None:
    """End a lab, its keeper and its engines, and wait until they are gone. LabError that names the runs that train,
    unless ``force``: it is the keeper that refuses, because a run may begin between a look and the end."""
    if folder.status["state"] == "ended":
        return
    deadline = time.monotonic() + WAIT_SECONDS
    if folder.status["state"] != "ending":
        answer(folder, "end", reason=reason, force=force)
    while folder.kept:
        if time.monotonic() > deadline:
            raise LabError(f"the lab has not ended for {WAIT_SECONDS:g} s:\n{folder.log_tail()}")
        time.sleep(POLL_SECONDS)


def look_after(run: RunFolder) -> None:
    """See that somebody keeps a run that has not ended. Where its lab has ended without it: one that was asked to stop
    has stopped, else LabError."""
    state = run.state["state"]
    lab = LabFolder(str(run.info.get("lab", "default")))
    if state in ENDED or lab.kept:
        return
    status = lab.status
    if status["state"] in LIVING:
        revive(lab)
    elif (lock := run.lock()) is None:
        return  # its last rank has not noticed yet
    else:
        _without_lab(run, lock, str(status.get("reason", "nobody knows why")))


def _without_lab(run: RunFolder, lock: int, reason: str) -> None:
    state = run.state
    try:
        if any("stop" in control for _, control in run.controls()):
            # Nobody else is left to end it.
            step = snapshots.newest_step(run)
            run.write_state("stopped", attempt=state["attempt"], step=step, stopped_at=step)
        elif state["state"] not in ENDED:
            raise LabError(
                f"run {run.name!r} is {state['state']}, but its lab has ended ({reason}). h3.Lab() starts it again, "
                "and the run goes on from its last snapshot."
            )
    finally:
        os.close(lock)
