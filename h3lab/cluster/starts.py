"""How a run starts: everything that can be refused is refused, then its folder is claimed and its launch file written.

It knows a lab's runs and what a launch needs; the keeper does the rest.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from h3lab import manifest, worlds
from h3lab.cluster.launch import Launch
from h3lab.errors import NameInUse, StorageError
from h3lab.fingerprints import fingerprint
from h3lab.folder import RunFolder
from h3lab.home import room
from h3lab.run import Run


def begin(
    lab: Any, actor: Any, data: Any, ranks: int, again: bool, more: dict[str, Any], settings: dict[str, Any]
) -> Run:
    """Check, claim, write; the caller asks the keeper."""
    from sklearn.base import clone

    from h3lab.training import train

    _free_name(lab, actor, again)
    feed = _stored(lab, actor, data, settings)
    copy = clone(actor)
    given = {
        "transfer": _without_runs(more["transfer"]),
        "start": getattr(more["start"], "actor", more["start"]),
        "class_weight": more["class_weight"],
    }
    # The same checks as for a local training, made where the user is looking.
    planned = train(copy, feed, **given, ranks=ranks, **settings)
    options = planned.options
    # What the notebook's environment says is what the rank must do, wherever it is started.
    fixed = {**settings, "threads": options.threads, "seed": options.seed}
    launch = Launch(clone(actor), feed, **given, snapshot_every=more["snapshot_every"], settings=fixed)
    folder = RunFolder.claim(actor.name)
    try:
        launch.write(folder)
    except BaseException:
        shutil.rmtree(folder.path)
        raise
    folder.write_state("queued", attempt=0, step=0, message="queued")
    folder.write_info(number=int(folder.path.name), lab=lab.name, ranks=ranks, feed=str(feed), **_told(planned))
    return Run(folder, actor)


def _told(planned: Any) -> dict[str, Any]:
    """What viewers need to know of a training before its first step."""
    options = planned.options
    return {
        "name": planned.actor.name,
        "created": time.time(),
        "actor": repr(planned.actor.model),
        "epochs": planned.epochs,
        "batch_size": options.batch_size,
        "total_steps": planned.total_steps,
        "steps_per_epoch": planned.total_steps // max(1, planned.epochs),
        "threads": options.threads,
        "seed": options.seed,
        "settings": [setting.to_json() for setting in planned.settings.declared],
        "values": dict(planned.settings),
        "python": sys.version.split()[0],
        "directory": os.getcwd(),
    }


def _free_name(lab: Any, actor: Any, again: bool) -> None:
    name = actor.name
    going = [run for run in lab.runs if run.name.rpartition("/")[0] == name]
    if going and not again:
        raise NameInUse(
            f"{going[-1].name!r} is still {going[-1].state}. Look at it with h3.attach({name!r}), end it with "
            f"h3.attach({name!r}).stop(), or give lab.train(..., replace=True)."
        )
    for run in going:
        run.stop()


def _stored(lab: Any, actor: Any, data: Any, settings: dict[str, Any]) -> Any:
    """Data as a stored feed, so that the launch file stays small and engines share its pages."""
    from h3lab import intake
    from h3lab.feed import Feed, open_feed

    if isinstance(data, Feed):
        feed = data
    elif actor.pipeline is not None and not isinstance(data, tuple):
        feed = lab.prepare(actor.pipeline, data)
    else:
        feed = intake.feeds(actor, data, _no_validation(actor))[0]
    if feed.url is not None:
        return feed
    folder = room("feeds") / feed.fingerprint
    try:
        # Storing it again would give its files new numbers under the feet of runs that read them.
        return open_feed(folder)
    except StorageError:
        return feed.store(folder)


def _no_validation(actor: Any) -> Any:
    from h3lab.options import Options

    return Options.of(actor, {"validation": None}, ())[0]


def _without_runs(transfer: Any) -> Any:
    """The same transfer with actors in the place of runs: ranks need not look for other runs' folders."""
    if transfer is None:
        return None

    def one(teacher: Any) -> Any:
        if isinstance(teacher, (list, tuple)):
            return type(teacher)(one(each) for each in teacher)
        return teacher.actor if isinstance(teacher, Run) else teacher

    return replace(transfer, teacher=one(transfer.teacher))


def feed_folder(pipeline: Any, source: Any, label: str | None, on_null_label: str) -> Path:
    """Where the feed of a pipeline and source is kept when nobody names a folder: the same for the same rows."""
    from h3lab.source import Source

    source = source if isinstance(source, Source) else worlds.load(worlds.READ)(source)
    parts = source.parts()
    made = pipeline.fingerprint if pipeline.fitted else pipeline.recipe
    told = [manifest.identity(part) for part in parts] if all(part.version for part in parts) else secrets.token_hex(8)
    return room("feeds") / fingerprint(made, source.describe(), told, label, on_null_label)
