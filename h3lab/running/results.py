"""Results: what a run has learned so far, as an actor; read from its folder, whether it still trains or has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from h3lab import worlds
from h3lab.errors import NotFittedError, RunFailed, UsageError
from h3lab.running import snapshots
from h3lab.running.folder import RunFolder
from h3lab.serial import codec, states


def actor_of(folder: RunFolder, actor: Any = None) -> Any:
    """``actor``, or the one that was launched, with the result or, before it, the newest snapshot; NotFittedError
    before the first. The launch file is opened after checking its signature; nothing else is code."""
    from sklearn.base import clone

    from h3lab.training.intake import as_learned

    if "loop" in folder.info:
        raise UsageError(
            f"run {folder.name!r} is a loop of one's own, which has no actor. What it gave to h3.snapshot(...) is "
            "run.kept, its metrics are run.frame()."
        )
    launch = worlds.load(worlds.LAUNCH).read(folder)
    load = _parameters(folder)
    if load is None:
        state = folder.state["state"]
        raise NotFittedError(f"run {folder.name!r} is {state} and has no snapshot yet; run.wait() waits for its end.")
    feed = as_learned(launch.actor, launch.data)
    model = worlds.wrap(clone(launch.actor.model, safe=False))
    model.build(feed.spec, int(launch.settings.get("seed", launch.actor.seed)))
    load(model)
    taught = launch.actor if actor is None else actor
    return taught.adopt(model, feed.spec, feed.pipeline)


def _parameters(folder: RunFolder) -> Callable[[Any], None] | None:
    if folder.result.exists():
        tree = codec.unpack(folder.result.read_bytes())
        return lambda model: model.load_parameters(tree["model"])
    found = snapshots.read(folder)
    return None if found is None else lambda model: model.load_state(found[1]["model"])


def kept_by(folder: RunFolder) -> Any:
    """What a loop of one's own has kept: its newest snapshot, or what it returned; NotFittedError before there is any.
    No code of the run's is needed for it."""
    if "loop" not in folder.info:
        raise UsageError(f"run {folder.name!r} trains an actor; what it has learned is run.actor.")
    if folder.result.exists():
        return states.from_tree(codec.unpack(folder.result.read_bytes())["state"])
    found = snapshots.read(folder)
    if found is None:
        raise NotFittedError(
            f"run {folder.name!r} has kept nothing yet. A loop keeps what it yields as h3.snapshot(state), and what it "
            "returns."
        )
    return states.from_tree(found[1]["state"])


def raise_failure(folder: RunFolder) -> None:
    """RunFailed, with the traceback of the rank that failed first, where the run has failed."""
    state = folder.state
    if state["state"] == "failed":
        error = state.get("error") or {"type": "failed", "message": "no reason was left"}
        where = f"rank {error.get('rank', 0)} on {error.get('host', 'its host')}"
        told = f"{error['type']}: {error['message']}\n{error.get('traceback', '')}"
        raise RunFailed(f"run {folder.name!r} failed, {where}: {told}")
