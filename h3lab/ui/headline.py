"""The line that says it all: state, epoch, step, loss, metric, speed, time left, where it runs.

Pure: what a run's small files and its curves say goes in, what the panel and the picture write comes out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from h3lab.running.folder import ENDED
from h3lab.ui.columns import Columns


def headline(
    info: Mapping[str, Any],
    state: Mapping[str, Any],
    columns: Columns,
    last: Mapping[str, Any] | None,
    rate: float | None,
) -> dict[str, Any]:
    """What the card's first line and hair show, ready for JSON. ``last`` is the newest record."""
    step, total = (last or {}).get("step", 0), info.get("total_steps")
    epoch = (last or {}).get("epoch")
    moving = state["state"] == "training" and rate is not None
    return {
        "name": info.get("name", "?"),
        "number": info.get("number"),
        "state": state["state"],
        "attempt": state.get("attempt", 0),
        "since": state.get("since"),
        "message": state.get("message") or "",
        "epoch": epoch if isinstance(epoch, int | float) else 0,
        "epochs": info.get("epochs"),
        "step": step,
        "total": total,
        "loss_name": loss_of(columns),
        "loss": finite(columns.last(loss_of(columns) or "")),
        "val_loss": finite(columns.last("val_loss")),
        "metric": metric_of(columns),
        "value": finite(columns.last(metric_of(columns) or "")),
        "rate": rate if moving else None,
        "left": (total - step) / rate if moving and total and rate else None,
        "place": place(info, state),
        "elsewhere": "" if info.get("local") else f'h3.attach("{info.get("name", "?")}")',
        **cause(state),
    }


def finite(value: float | None) -> float | str | None:
    """JSON has no NaN, and a diverged loss has to be seen."""
    return value if value is None or math.isfinite(value) else str(value)


def loss_of(columns: Columns) -> str | None:
    """``loss``, or what a loop of one's own calls its first one."""
    losses = [name for name in columns if name.endswith("loss") and not name.startswith("val_")]
    return "loss" if "loss" in losses or not losses else losses[0]


def metric_of(columns: Columns) -> str | None:
    """The metric that says how good the model is: one of validation before one of training."""
    # Two networks that learn against each other have nothing but losses.
    names = [name for name in columns if name not in (loss_of(columns), "val_loss")]
    others = [name for name in names if not name.endswith("loss")] or names
    held_out = [name for name in others if name.startswith("val_")]
    return next(iter([n for n in held_out if n == "val_accuracy"] + held_out + others), None)


def place(info: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """Where it runs: ``slot0, slot1``, or how many ranks it will have while no slot is known."""
    if info.get("local"):
        return "local"
    slots = state.get("slots") or state.get("slot") or []
    slots = [slots] if isinstance(slots, str | int) else slots
    ranks = info.get("ranks") or 1
    return ", ".join(map(str, slots)) or (f"{ranks} ranks" if ranks > 1 else "")


def cause(state: Mapping[str, Any]) -> dict[str, str]:
    """``cause``: the line that says what failed, and where; ``traceback``: everything that the rank said."""
    error = state.get("error") or ""
    if not isinstance(error, Mapping):
        error = {"traceback": str(error)}
    text = str(error.get("traceback") or error.get("message") or "").strip()
    said = str(error.get("message") or exception(text)).strip()
    said = f"{error['type']}: {said}" if error.get("type") else said
    where = f"rank {error['rank']}: " if error.get("rank") else ""
    return {"cause": where + said if said else "", "traceback": text}


def exception(text: str) -> str:
    """The line of a traceback that names the exception; its message may go on over several lines."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith((" ", "\t"))]
    named = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit|Loss|Lost)\b", line)]
    return (named or lines or [""])[-1]


def ended(state: Mapping[str, Any]) -> bool:
    """Nothing will follow."""
    return state["state"] in ENDED
