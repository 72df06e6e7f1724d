"""A lab in one line of text: its slots, what runs there and until when, its lease. Values in, text out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from h3lab import brief, pictures
from h3lab.home import room
from h3lab.running.folder import RunFolder


def told(slot: Mapping[str, Any]) -> str:
    """``slot0 runs digits/3``, ``slot1 silent, runs digits/4``: a slot that is in order need not say so."""
    state = [] if slot["state"] == "ready" and slot.get("run") else [str(slot["state"])]
    runs = [f"runs {slot['run']}"] if slot.get("run") else []
    return f"{slot['name']} {', '.join(state + runs)}"


def holds(run: str | None) -> str:
    """``paused until Tue 09:30, then its lab stops it; ...`` for a run that holds its slot without training."""
    state = RunFolder(room("runs") / run).state if run else {"state": ""}
    return f"paused {state.get('message', '')}".strip() if state["state"] == "paused" else ""


def lease(status: Mapping[str, Any]) -> str:
    """``ends 12 h after its last use``."""
    hours = float(status.get("hours") or 0)
    return f"ends {hours:.3g} h after its last use" if hours else ""


def line(name: str, status: Mapping[str, Any]) -> str:
    """``Lab 'default' ready: slot0 runs digits/3, slot1 ready; 6.1 GB free; ends 12 h after its last use``."""
    slots = []
    for slot in status["slots"]:
        paused = holds(slot.get("run"))
        # The name last: it is what can be cut.
        slots.append(f"{slot['name']} {paused.partition(',')[0]}: {slot['run']}" if paused else told(slot))
    head, tail = f"Lab {brief.word(name)} {status['state']}: ", "".join(f"; {part}" for part in _around(status))
    return head + (brief.listed(slots, brief.LINE - len(head + tail)) or "no slots") + tail


def _around(status: Mapping[str, Any]) -> list[str]:
    """``6.1 GB free``, ``ends 12 h after its last use``."""
    memory = ""
    with contextlib.suppress(ImportError, OSError):
        import psutil

        memory = f"{psutil.virtual_memory().available / 1e9:.1f} GB free"
    return list(filter(None, [memory, lease(status) if status["slots"] else ""]))


def card(name: str, status: Mapping[str, Any]) -> str:
    """The same as HTML, with a line a slot."""
    slots = [
        (slot["name"], slot["state"], " ".join(filter(None, [slot.get("run"), holds(slot.get("run"))])))
        for slot in status["slots"]
    ]
    return pictures.lab_html(" · ".join([brief.line(name), status["state"], *_around(status)]), slots)
