"""A run in one line of text, and how fast it goes. Pure: values in, text out."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from h3lab import brief
from h3lab.records import Record, metrics
from h3lab.settings import Setting, Settings

SPEED_SECONDS = 5.0


def rate(records: Sequence[Record]) -> float | None:
    """Steps a second over the last SPEED_SECONDS, from the clock that the records carry; None before the second one."""
    if not records:
        return None
    last = records[-1]
    first = records[min(bisect_left(records, last["seconds"] - SPEED_SECONDS, key=_seconds), len(records) - 2)]
    spent = last["seconds"] - first["seconds"]
    return (last["step"] - first["step"]) / spent if len(records) > 1 and spent > 0 else None


def _seconds(record: Record) -> float:
    return float(record["seconds"])


class Speed:
    """:func:`rate` for who keeps no records: it looks at the newest one now and then, and that is enough."""

    def __init__(self) -> None:
        self._seen: list[Record] = []

    def look(self, last: Record) -> None:
        """Take in the newest record. A step or a clock that falls is another attempt's, and its speed begins anew."""
        if self._seen and (last["seconds"] < self._seen[-1]["seconds"] or last["step"] < self._seen[-1]["step"]):
            self._seen.clear()
        self._seen.append(last)
        while len(self._seen) > 2 and self._seen[1]["seconds"] < last["seconds"] - SPEED_SECONDS:
            del self._seen[0]

    @property
    def rate(self) -> float | None:
        """Steps a second; None until two records were seen."""
        return rate(self._seen)


def settings(info: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> Settings:
    """What steers a run after these events of its journal."""
    found = Settings([Setting.from_json(s) for s in info.get("settings", [])], **info.get("values", {}))
    for event in events:
        if event["event"] == "set":
            found = Settings(found.declared, **{**found, **event["values"]})
    return found


def line(info: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    """``teacher/3  epoch 3/20  loss 0.41  val_accuracy 0.87  lr 1e-3  412 steps/s``; a state that is not training is
    said, with its reason, and the step where no epochs are counted."""
    parts = [brief.line(status["name"], brief.NAME)]
    if status["state"] != "training":
        parts.append(str(status["state"]))
    if status.get("epoch"):
        parts.append(f"epoch {number(status['epoch'])}" + (f"/{info['epochs']}" if info.get("epochs") else ""))
    if status.get("step") and not (status.get("epoch") and info.get("epochs")):
        parts.append(f"step {status['step']:,}" + (f"/{info['total_steps']:,}" if info.get("total_steps") else ""))
    declared = [setting["name"] for setting in info.get("settings", [])]
    told = {name: status[name] for name in _shown(status, declared)}
    parts += [f"{name} {number(value)}" for name, value in told.items()]
    if status["state"] == "training" and status.get("steps_per_second"):
        parts.append(f"{status['steps_per_second']:,.0f} steps/s")
    error = status.get("error")
    reason = f"{error['type']}: {error['message']}" if isinstance(error, Mapping) else status.get("message")
    if reason and status["state"] != "training":
        parts.append(brief.line(reason))
    return brief.cut("  ".join(parts))


def _shown(status: Mapping[str, Any], declared: list[str]) -> list[str]:
    # What a state file knows of itself is no metric, and neither is the text that a loop of one's own may yield.
    known = {"attempt", "since", "pid", "stopped_at", "lease_ends", "steps_per_second", *declared, "loss"}
    found = [n for n, value in metrics(status).items() if n not in known and isinstance(value, int | float)]
    held_out = [name for name in found if name.startswith("val_")]
    best = [name for name in held_out if not name.endswith("loss")]
    ranked = list(dict.fromkeys([n for n in held_out if n == "val_accuracy"] + best + held_out + found))
    chosen = ["loss", *ranked[:1]] if status.get("loss") is not None else ranked[:2]
    return [*chosen, *(name for name in declared if name == "lr" and status.get("lr") is not None)]


def number(value: Any) -> str:
    """Three digits, and ``1e-3`` as somebody would type it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    if value and abs(value) < 1e-2:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.4g}" if abs(value) < 1 else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
