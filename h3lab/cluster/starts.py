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
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

from h3lab import estimator, worlds
from h3lab.cluster.launch import Launch
from h3lab.errors import NameInUse, StorageError, UsageError
from h3lab.feeds import manifest
from h3lab.home import alone, room
from h3lab.running.folder import ENDED, RunFolder, folders, naming
from h3lab.running.run import Run
from h3lab.serial.fingerprints import fingerprint
from h3lab.settings import Setting


def begin(
    lab: Any, actor: Any, data: Any, ranks: int, again: bool, more: dict[str, Any], settings: dict[str, Any]
) -> Run:
    """Check, claim, write; the caller asks the keeper."""
    from sklearn.base import clone

    from h3lab.training import fitness
    from h3lab.training.loop import train

    actor = getattr(actor, "actor", actor)  # whatever takes an actor takes a run
    fitness.check_actor(actor)
    fitness.settings_of(more["transfer"])
    in_use(lab, actor.name, again)  # before rows are prepared for nothing; it counts below
    feed, settings = _stored(lab, actor, data, settings)
    copy = clone(actor)
    copy.model, copy.pipeline = estimator.apart(copy.model, copy.pipeline)
    given = {
        "transfer": _without_runs(more["transfer"]),
        "start": getattr(more["start"], "actor", more["start"]),
        "class_weight": more["class_weight"],
    }
    # The same checks as for a local training, made where the user is looking.
    planned = train(copy, feed, **given, ranks=ranks, **settings)
    options = planned.options
    # What the notebook's environment says is what the rank must do, wherever it is started.
    fixed = {**settings, "threads": options.threads, "seed": options.seed, "shuffle": options.shuffle}
    if "validation" in settings:
        copy.set_params(validation=None)  # what it says is in the settings, and may be large
    launch = Launch(clone(copy), feed, **given, snapshot_every=_every(more["snapshot_every"]), settings=fixed)
    folder = _claimed(lab, actor.name, again, launch, {"ranks": ranks, "feed": str(feed), **_told(planned)})
    return Run(folder, actor)


def begin_loop(
    lab: Any, function: Any, name: str | None, again: bool, snapshot_every: int | None, values: dict[str, Any]
) -> Run:
    """The same for a loop of one's own."""
    from h3lab.training.loops import Loop

    if "ranks" in values:
        raise UsageError(
            f"ranks={values['ranks']!r} came; a loop of one's own is one process. Ranks share the steps of an actor: "
            "lab.train(actor, feed, ranks=2)."
        )
    snapshot_every = _every(snapshot_every)
    loop = Loop.of(function, name, **values)
    told = {
        "ranks": 1,
        "name": loop.name,
        "created": time.time(),
        "loop": str(getattr(function, "__qualname__", type(function).__qualname__)),
        "settings": [setting.to_json() for setting in loop.settings.declared],
        "values": dict(loop.settings),
        "python": sys.version.split()[0],
        "directory": os.getcwd(),
    }
    return Run(_claimed(lab, loop.name, again, Launch(loop=loop, snapshot_every=snapshot_every), told))


def _claimed(lab: Any, name: str, again: bool, launch: Launch, told: dict[str, Any]) -> RunFolder:
    """The folder of a run that is about to be queued, with its launch file and what viewers need to know."""
    launch.journal_bytes = _journal_bytes(launch.journal_bytes)
    with naming(name):
        for run in in_use(lab, name, again):  # not before everything else was found right
            run.stop()
        in_use(lab, name, again=False)
        folder = RunFolder.claim(name)
        try:
            launch.write(folder)
        except BaseException:
            shutil.rmtree(folder.path)
            raise
        folder.write_state("queued", attempt=0, step=0, message="queued")
        folder.write_info(number=int(folder.path.name), lab=lab.name, **told)
    return folder


def _every(steps: Any) -> int | None:
    return None if steps is None else int(Setting("snapshot_every", int, 100, low=1).check(steps))


def in_use(lab: Any, name: str, again: bool) -> list[Run]:
    """The runs of this name that have not ended; NameInUse where there is one and it shall not be replaced."""
    going = [Run(f) for f in folders(name, lab.name) if f.state["state"] not in ENDED]
    if going and not again:
        raise NameInUse(
            f"{going[-1].name!r} is still {going[-1].state}. Look at it with h3.attach({name!r}), end it with "
            f"h3.attach({name!r}).stop(), or give replace=True."
        )
    return going


def _journal_bytes(default: int) -> int:
    """``$H3LAB_JOURNAL_BYTES``: the size of a journal at which its run pauses."""
    text = os.environ.get("H3LAB_JOURNAL_BYTES", str(default))
    try:
        return int(float(text))
    except ValueError:
        raise UsageError(f"H3LAB_JOURNAL_BYTES={text} came; expected a number of bytes, for example 1e9.") from None


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


def _stored(lab: Any, actor: Any, data: Any, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Data, and rows to validate on, as stored feeds, so that the launch file stays small and engines share pages: the
    same rows on the same sides as a local training takes."""
    from h3lab.feeds.feed import Feed
    from h3lab.options import Options
    from h3lab.training import intake, ways

    chosen, settings = ways.choices(settings)
    intake.check_raw(actor, data, chosen)
    told = ("validation", "seed", "batch_size")
    options = Options.of(actor, {n: settings[n] for n in told if n in settings}, ())[0]
    pipeline = intake.pipeline_of(actor)
    if isinstance(data, Feed) or pipeline is None:
        feed: Any = _kept(data if isinstance(data, Feed) else intake.of_arrays(actor, data, options.batch_size))
        if options.validation is None or isinstance(options.validation, Real):
            return feed, settings  # a fraction is split off where it trains, by the rows' keys
        held: Any = intake.held_out(options.validation, feed)
    elif isinstance(data, tuple):
        feed, held = intake.feeds(actor, data, options, chosen)
    else:
        feed, held = _prepared(lab, intake.decided(actor, pipeline), data, options, chosen)
    return _kept(feed), {**settings, "validation": None if held is None else _kept(held)}


def _prepared(lab: Any, pipeline: Any, data: Any, options: Any, chosen: dict[str, Any]) -> tuple[Any, Any]:
    """Raw rows through the engines; those to validate on are set aside before anything is fitted."""
    from h3lab.feeds.feed import Feed
    from h3lab.training import intake, ways

    (pipeline, rows), held = intake.raw_rows(pipeline, data, chosen), options.validation
    if isinstance(held, Real):
        rows, held = rows.split(test=float(held), seed=options.seed)
    own = {name: value for name, value in chosen.items() if name == "on_null_label"}  # the rest is in the source
    prepare = _streaming(lab, rows) if ways.streamed(chosen) else lab.prepare
    feed = prepare(pipeline, rows, **own)
    if held is None or isinstance(held, Feed):
        return feed, held
    if isinstance(held, tuple):
        return feed, intake.held_out(held, feed)
    return feed, prepare(feed.pipeline, held, **{name: value for name, value in chosen.items() if name != "prepare"})


def _streaming(lab: Any, rows: Any) -> Any:
    """``stream`` with its first pass on the engines. UsageError for rows that the ranks could not read."""
    from h3lab.preparing.landed import in_memory
    from h3lab.preparing.streaming import stream

    if in_memory(rows.describe()):
        raise UsageError(
            f"prepare='stream' came with {rows.title}, in the memory of this process, where engines cannot read. Write "
            "it to files first and pass h3.read(path); or leave prepare='stream' out."
        )
    return partial(stream, executor=lab.executor)


def _kept(feed: Any) -> Any:
    """The same rows in a store; selected rows of a stored feed are a reference to it already."""
    from h3lab.feeds.feed import open_feed

    whole = feed
    while whole.parent is not None:
        whole = whole.parent
    if whole.url is not None or whole._rows.window:  # on disk, or made of its source when it is due
        return feed
    folder = room("feeds") / feed.fingerprint
    # Two notebooks that store the same rows would take each other's drafts for rubbish.
    with alone(folder, lambda seconds: None):
        try:
            # Storing it again would give its files new numbers under the feet of runs that read them.
            return open_feed(folder)
        except StorageError:
            return feed.store(folder)


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
