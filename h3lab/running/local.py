"""A run of this process: what a run's folder says of a training elsewhere, in memory, for the views of this kernel.

A loop puts its records in and asks after each whether somebody has clicked; a view takes them out on a thread of its
own. It knows records, events and controls; it does not know screens, nor whose loop it is.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from h3lab import worlds
from h3lab.errors import UsageError
from h3lab.records import AXES, Record
from h3lab.running.folder import ENDED
from h3lab.running.journal import News
from h3lab.running.progress import Line
from h3lab.running.status import Speed, line
from h3lab.settings import Settings

#: A view that has fallen so many records behind is helped by the loop itself, so that they never pile up.
MOST_WAITING = 20_000
#: How long a click waits for the loop to come by.
PATIENCE_SECONDS = 5.0
LINE_SECONDS = 0.1

_AXES = frozenset(AXES)
_PLAIN = frozenset({float, int, bool, str})

log = logging.getLogger("h3lab.running")


class LocalRun:
    """One loop of this process. Its own thread calls :meth:`record`, :meth:`obey` and :meth:`end`; any other one
    :meth:`look` and the controls.

    ``code`` says for each control that the loop can obey what somebody would type instead of clicking; ``set`` has
    ``{}`` where the values go. ``change(**values)`` puts new settings into effect.
    """

    folder = None  #: It has none, and ends with its process.

    def __init__(
        self,
        name: str,
        *,
        epochs: int | None = None,
        total_steps: int | None = None,
        settings: Settings | None = None,
        change: Callable[..., None] | None = None,
        code: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        declared = [setting.to_json() for setting in settings.declared] if settings is not None else []
        self.info: dict[str, Any] = {
            "name": name, "local": True, "epochs": epochs, "total_steps": total_steps, "created": time.time(),
            "settings": declared, "values": dict(settings or {}), "code": {"pause": "", "resume": "", **(code or {})},
        }  # fmt: skip
        self.state: dict[str, Any] = {"state": "training", "attempt": 1, "since": time.time()}
        self.step: float = 0
        self.epoch: Any = 0
        self.stopping = False
        self.thread = threading.current_thread()
        self.drain: Callable[[], None] | None = None  # a view's own look, where there is one
        self._settings, self._change = settings, change
        self._raw: float = -math.inf
        self._shift: float = 0
        self._told: dict[str, Any] | None = None
        self._fresh: list[Record] = []
        self._events: list[dict[str, Any]] = []
        self._wishes: list[_Wish] = []
        self._asked, self._paused, self._over = 0, False, False
        self._turn = threading.Condition()
        self._line: _Telling | None = None
        self._began = time.perf_counter()

    def open(self) -> LocalRun:
        """Show it: in the cell that is running, or as a line of text where there is no notebook."""
        show = worlds.view("show")
        if show is None or not show(self):
            self._line = _Telling(self)
        return self

    # ---- The loop's side

    def record(self, record: Mapping[str, Any]) -> Record:
        """Take in the next record and give it back with the axes that it lacked: ``step`` is one more than before,
        ``epoch`` the one before (0 where a loop has none), ``seconds`` those since the loop began.

        A step that falls, because a loop counts anew in each epoch, goes on in the curves after the last one.
        """
        whole: Any = record if isinstance(record, dict) and record.keys() >= _AXES else self._completed(record)
        point = {name: value if value.__class__ in _PLAIN else _plain(value) for name, value in whole.items()}
        step = point["step"]
        if not isinstance(step, float | int) or not isinstance(point["seconds"], float | int):
            raise UsageError(f"step={step!r} and seconds={whole['seconds']!r} came in a record; expected numbers.")
        if step < self._raw:
            self._shift = self.step + 1 - step
        self._raw = step
        point["step"] = self.step = step + self._shift
        self.epoch = point["epoch"]
        if self._line is not None:
            self._line.take(point)
        elif not self._over:
            self._fresh.append(point)
            if len(self._fresh) >= MOST_WAITING:
                (self.drain or self._fresh.clear)()
        return whole  # type: ignore[no-any-return]

    def _completed(self, record: Mapping[str, Any]) -> Record:
        if not isinstance(record, Mapping):
            raise UsageError(
                f"{record!r:.100} came as a record, a {type(record).__name__}; expected a dict of metrics, for example "
                "{'loss': 0.1}."
            )
        step = 1 if self._raw == -math.inf else int(self._raw) + 1
        axes = {"step": step, "epoch": self.epoch, "seconds": time.perf_counter() - self._began}
        return {**axes, **record}

    def obey(self) -> bool:
        """Do what was asked since the last step; while it is paused, wait. Whether the loop shall go on."""
        if self._wishes:
            with self._turn:
                while True:
                    while self._wishes:
                        self._do(self._wishes.pop(0))
                    if not self._paused or self.stopping:
                        break
                    self._turn.wait()
        return not self.stopping

    def event(self, event: str, **values: Any) -> None:
        """Note what happened beside the steps."""
        self._events.append({"event": event, "step": self.step, "at": time.time(), **values})

    def end(self, state: str, error: BaseException | None = None) -> None:
        """Nothing follows: ``finished``, ``stopped`` or ``failed``. Leaves a settled picture or line; never raises, and
        changes nothing the second time."""
        if self._over:
            return
        told = {"error": {"type": type(error).__name__, "message": str(error)}} if error is not None else {}
        ending = {"stopped_at": self.step} if state == "stopped" else {}
        self._enter(state, **told, **ending)
        self._over = True  # what comes all the same is passed on and not shown
        try:
            if self._line is not None:
                self._line.end()
            elif (settle := worlds.view("settle")) is not None:
                settle(self)
        except Exception:
            log.exception("no last picture of %s", self.name)

    def _do(self, wish: _Wish) -> None:
        self._asked += 1
        try:
            if wish.verb == "set" and self._change is not None:
                self._change(**wish.values)
            elif wish.verb in ("pause", "resume"):
                self._paused = wish.verb == "pause"
                self._enter("paused" if self._paused else "training")
            elif wish.verb == "stop":
                self.stopping = True
            self.event(wish.verb, control=self._asked, values=wish.values)
        except Exception as error:
            wish.error = error
        finally:
            wish.done.set()

    def _enter(self, state: str, **values: Any) -> None:
        self.state = {**self.state, "state": state, **values, "since": time.time()}

    # ---- The views' side

    def look(self) -> tuple[dict[str, Any], list[News]] | None:
        """The state, and what has come since the last look; None where nothing has. For one thread at a time."""
        # Read first: the last records are there before the loop says that it has ended.
        state = self.state
        records, events = self._fresh[:], self._events[:]
        if state is self._told and not records and not events:
            return None
        # Single operations on lists, so that the loop, which only appends, needs no lock.
        del self._fresh[: len(records)], self._events[: len(events)]
        self._told = state
        return state, [News(records, events)]

    def pause(self) -> str:
        """Hold the loop before its next step."""
        return self._ask("pause")

    def resume(self) -> str:
        """Let it go on."""
        return self._ask("resume")

    def stop(self) -> str:
        """End the loop after the step that is under way, as if nothing more came."""
        return self._ask("stop")

    def set(self, **values: Any) -> str:
        """Change settings from the next step on; wrong ones are errors before anything is asked of the loop."""
        (self._settings or Settings()).replace(**values)
        return self._ask("set", values)

    def _ask(self, verb: str, values: Mapping[str, Any] | None = None) -> str:
        if self.state["state"] in ENDED:
            return str(self.state["state"])
        wish = _Wish(verb, values or {})
        with self._turn:
            self._wishes.append(wish)
            self._turn.notify_all()
        done = wish.done.wait(PATIENCE_SECONDS)
        if wish.error is not None:
            raise wish.error
        return f"after step {self.step}" if done else "recorded: it holds after the step that is under way"

    def __repr__(self) -> str:
        return line(self.info, {"name": self.name, **self.state, "step": self.step, "epoch": self.epoch})


class _Wish:
    """A control on its way to the loop."""

    def __init__(self, verb: str, values: Mapping[str, Any]) -> None:
        self.verb, self.values = verb, values
        self.done = threading.Event()
        self.error: Exception | None = None


class _Telling:
    """A run as an updating line of text."""

    def __init__(self, run: LocalRun) -> None:
        self._run, self._speed, self._line = run, Speed(), Line()
        self._latest: Record = {}
        self._due = 0.0

    def take(self, record: Record) -> None:
        """The next record; most write nothing."""
        self._latest.update(record)
        if (now := time.perf_counter()) >= self._due:
            self._due = now + LINE_SECONDS
            self._speed.look(record)
            self._line.show(self._text())

    def end(self) -> None:
        """The last line stays."""
        self._line.end(self._text())

    def _text(self) -> str:
        state = {"name": self._run.name, **self._run.state, "steps_per_second": self._speed.rate}
        return line(self._run.info, {**state, **self._latest})


def _plain(value: Any) -> Any:
    """A number of NumPy or a tensor as Python's own; anything else has no curve."""
    if isinstance(value, float | int):
        return value
    try:
        value = value.item()
    except Exception:  # whatever a foreign class raises for what is no scalar
        return None
    return value if isinstance(value, float | int) else None
