"""A Line says how far something is: updated in place in a terminal, now and then in a pipe or a notebook's output.

It knows where it is shown; it does not know what it counts.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

FIRST_SECONDS, LAST_SECONDS = 2.0, 60.0


class Line:
    """``show`` as often as you like, ``end`` once. ``$H3LAB_NONINTERACTIVE`` silences everything but :meth:`say`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        # Read at call time: a notebook's kernel replaces sys.stdout.
        self._stream = stream or sys.stdout
        self._terminal = bool(getattr(self._stream, "isatty", lambda: False)())
        self._silent = bool(os.environ.get("H3LAB_NONINTERACTIVE") or os.environ.get("IPP_NONINTERACTIVE"))
        self._interval = 0.1 if self._terminal else FIRST_SECONDS
        self._next = time.monotonic() + (0.0 if self._terminal else FIRST_SECONDS)
        self._shown = ""

    def show(self, text: str) -> None:
        """The state at the moment; most calls write nothing."""
        now = time.monotonic()
        if self._silent or now < self._next or text == self._shown:
            return
        if self._terminal:
            self._stream.write("\r\x1b[K" + text[: _width()])
        else:
            self._stream.write(text + "\n")
            self._interval = min(self._interval * 2, LAST_SECONDS)
        self._stream.flush()
        self._next, self._shown = now + self._interval, text

    def end(self, text: str = "") -> None:
        """The last state; stays on the screen."""
        if self._silent:
            return
        if self._terminal and self._shown:
            self._stream.write("\r\x1b[K")
        if text and (self._terminal or text != self._shown):
            self._stream.write(text + "\n")
        self._stream.flush()
        self._shown = text

    def say(self, text: str) -> None:
        """A line that nothing silences and nothing overwrites."""
        if self._terminal and self._shown:
            self._stream.write("\r\x1b[K")
        self._stream.write(text + "\n")
        self._stream.flush()
        self._shown = ""


def parts(line: Line) -> Callable[[str, int, int], None]:
    """``show(what, done, total)``: how many parts are done, for how long, and when the rest will be. How many passes a
    fit needs is not known before, so only of writing, the last one, is it said when all will be done."""
    began, first = time.monotonic(), dict[str, tuple[float, int]]()

    def show(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        since, before = first.setdefault(what, (now, done))
        left = ""
        if before < done < total and now - since > 1:
            # The first part has waited for workers to start; those that follow tell how long a part takes.
            left = f", {duration((now - since) / (done - before) * (total - done))} left"
            left += "" if what.startswith("writing") else " in this pass"
        line.show(f"{what}: {done} of {total} parts, {duration(now - began)}{left}")

    return show


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _width() -> int:
    try:
        return (os.get_terminal_size().columns or 120) - 1  # 0 where a terminal does not know
    except OSError:
        return 119
