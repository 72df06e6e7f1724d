"""What happened to a run, as the panel shows it: marks on the step axis, and the code that does the same.

It reads the events of a journal and knows the words of the Run; it draws nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: Events that a viewer's control causes → the code that asks for it. A loop of this process has words of its own.
VERBS = {
    "set": "run.set({})", "pause": "run.pause()", "resume": "run.resume()", "stop": "run.stop()",
    "snapshot": "run.snapshot()",
}  # fmt: skip

_DONE = {"pause": "paused", "resume": "resumed", "stop": "stopped", "snapshot": "kept"}


def number(value: Any) -> str:
    """A setting as somebody would type it: ``1e-4`` rather than ``0.0001``, quotes around text."""
    if not isinstance(value, float) or not math.isfinite(value):
        return repr(value)
    plain = f"{value:.12g}"
    if value == 0 or 1e-2 <= abs(value) < 1e6:
        return plain if "." in plain or "e" in plain else plain + ".0"
    mantissa, _, exponent = f"{value:.11e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def code(verb: str, values: Mapping[str, Any], words: Mapping[str, str] = VERBS) -> str:
    """The line that asks for a control: ``code("set", {"lr": 1e-4})`` → ``run.set(lr=1e-4)``; nothing where there is no
    such line."""
    given = ", ".join(f"{name}={number(value)}" for name, value in values.items())
    return words.get(verb, "").replace("{}", given)


class Story:
    """The events of one run, told in order: :attr:`marks`, the current :attr:`values`, the :attr:`last` control."""

    def __init__(self, values: Mapping[str, Any], words: Mapping[str, str] = VERBS) -> None:
        self.values = dict(values)
        self._words = words
        self.marks: list[dict[str, Any]] = []
        self.last: dict[str, str] | None = None
        self.attempt = 0

    def tell(self, event: Mapping[str, Any]) -> None:
        """Take in the next event of the journal; one of a kind not known here changes nothing."""
        kind, step = event["event"], event.get("step")
        if kind == "attempt":
            self._begin(event)
        elif kind == "set" and step is not None:
            changed = event.get("values", {})
            text = ", ".join(f"{n} {number(self.values.get(n))} → {number(v)}" for n, v in changed.items())
            self.values.update(changed)
            self._mark(step, "set", text)
            self._say("set", changed, step)
        elif kind in VERBS:
            if kind == "snapshot" and step is not None:
                self._snapshot(step)
            if event.get("control"):
                self._say(kind, {}, step)

    def _begin(self, event: Mapping[str, Any]) -> None:
        start, self.attempt = event["from_step"], event["attempt"]
        self.marks = [mark for mark in self.marks if mark["step"] < start]
        if self.attempt > 1:
            self._mark(start, "attempt", f"attempt {self.attempt}")

    def _snapshot(self, step: float) -> None:
        # One is taken every few seconds; the newest is the one that a run comes back from.
        self.marks = [mark for mark in self.marks if mark["kind"] != "snapshot"]
        self._mark(step, "snapshot", "")

    def _mark(self, step: float, kind: str, text: str) -> None:
        self.marks.append({"step": step, "kind": kind, "text": text})

    def _say(self, verb: str, values: Mapping[str, Any], step: float | None) -> None:
        told = code(verb, values, self._words)
        # What nobody could type is said in words.
        done = "took effect" if told else ", ".join(f"{n}={number(v)}" for n, v in values.items()) or _DONE[verb]
        self.last = {"code": told, "note": "" if step is None else f"{done} at step {step}"}
