"""Ways: how raw rows become those that a training learns from: a feed first, or each row when it is due.

It knows what may be chosen; it does not know in which forms rows come, nor how they are prepared.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from h3lab import estimator, worlds
from h3lab.errors import UnknownName, UsageError

#: A whole feed before the first step, which each epoch reads; or rows when they are due, which nobody stores.
PREPARES = ("feed", "stream")


def choices(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(how rows are prepared: ``keys`` and what begins with ``on_``, as ``prepare`` takes it, and ``prepare``, which of
    PREPARES; the other settings)."""
    from h3lab.preparing.prepare import prepare

    own = ("keys", "prepare")
    known = [*(name for name in inspect.signature(prepare).parameters if name.startswith("on_")), *own]
    found = {name: value for name, value in settings.items() if name.startswith("on_") or name in own}
    if found.get("prepare", "feed") not in PREPARES:
        raise UnknownName("prepare", found["prepare"], PREPARES)
    for name in found:
        if name not in known:
            raise UnknownName("choice of how rows are prepared", name, known)
    return found, {name: value for name, value in settings.items() if name not in found}


def streamed(chosen: Mapping[str, Any]) -> bool:
    """Whether rows are prepared when they are due."""
    return chosen.get("prepare") == "stream"


def check_streamed(actor: Any) -> None:
    """UsageError where the model wants all rows at once."""
    model = worlds.wrap(estimator.apart(actor.model, actor.pipeline)[0])
    if model.capabilities.learns != "batches":
        raise UsageError(
            f"prepare='stream' came, and the model of actor {actor.name!r} learns from all rows at once. Take a "
            "network, or an estimator with partial_fit such as SGDClassifier(); or leave prepare='stream' out."
        )


def verb(chosen: Mapping[str, Any]) -> Callable[..., Any]:
    """``prepare`` or ``stream``."""
    if streamed(chosen):
        from h3lab.preparing.streaming import stream

        return stream
    from h3lab.preparing.prepare import prepare

    return prepare
