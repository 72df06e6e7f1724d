"""Resuming: where a training stands among its rows, and whether another may go on from there.

It knows the order of rows and batches; it does not know models, nor how a snapshot is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from h3lab.errors import UsageError
from h3lab.feeds.feed import Feed
from h3lab.training.schedule import Schedule

#: What the order of an epoch's rows and batches follows from, beside the rows.
_ORDER = ("batch_size", "seed", "shuffle", "sampling", "bucket")


def standing(schedule: Schedule) -> dict[str, Any]:
    """What a snapshot keeps of a training's rows and their order, as a codec tree."""
    feed, options = schedule.feed, schedule.options
    return {"rows": len(feed), "feed": known(feed), **{name: getattr(options, name) for name in _ORDER}}


def known(feed: Feed) -> str | None:
    """A feed's fingerprint; None of rows that are prepared on the way from a source without versions, which nobody can
    tell from others."""
    return feed.fingerprint if feed._rows.versioned else None


def resumed(schedule: Schedule, tree: Mapping[str, Any]) -> tuple[Schedule, int]:
    """(the schedule that goes on where the snapshot ``tree`` was taken; batches of its epoch that are done).

    Within an epoch all that its order follows from must be the same, else rows would be left out and others come twice.
    After the last batch of an epoch the next may be drawn in another way. UsageError names what differs.
    """
    was, now = tree["order"], standing(schedule)
    if was["rows"] != now["rows"]:
        raise UsageError(
            f"the snapshot is of a training on {was['rows']} rows; this feed has {now['rows']}. Give the same rows, or "
            f"{_ANEW}."
        )
    if None not in (was["feed"], now["feed"]) and was["feed"] != now["feed"]:
        raise UsageError(
            f"the snapshot is of a training on other rows: its feed has the fingerprint {was['feed'][:12]}…, this one "
            f"{now['feed'][:12]}…, with as many rows. Give the same feed, or {_ANEW}."
        )
    if schedule.can.learns != "batches":
        return schedule, tree["position"]
    if was["shuffle"] and not schedule.options.shuffle_given:  # by this machine's memory, which may be another
        now["shuffle"] = was["shuffle"]
    steps = schedule.feed.steps(was["batch_size"])
    differs = [name for name in _ORDER if was[name] != now[name]]
    if differs and 0 < tree["position"] < steps:
        came, expected = (", ".join(f"{name}={values[name]!r}" for name in differs) for values in (now, was))
        raise UsageError(
            f"this training has {came}, and the snapshot was taken after batch {tree['position']} of {steps} of epoch "
            f"{tree['epoch']} of one with {expected}: rows would be left out and others come twice. Train with "
            f"{expected}, take the snapshot after the last batch of an epoch, or {_ANEW}."
        )
    schedule = replace(schedule, options=replace(schedule.options, shuffle=now["shuffle"]))
    return schedule, schedule.steps_per_epoch if tree["position"] >= steps else tree["position"]


_ANEW = "begin a new training with what that one has learned: h3.train(actor, data, start=its_actor)"
