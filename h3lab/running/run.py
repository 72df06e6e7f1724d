"""A Run: one training, owned by the cluster. This is its viewer: it reads and writes the run's folder, nothing else.

It knows records, states and controls; it does not know engines. Any number of viewers may look at one run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from h3lab import records, worlds
from h3lab.errors import LabError, UsageError, guided
from h3lab.records import Record
from h3lab.running import journal, results
from h3lab.running.folder import ENDED, RunFolder
from h3lab.running.progress import Line
from h3lab.running.status import line, rate, settings
from h3lab.settings import Setting, Settings, whole

if TYPE_CHECKING:
    import pandas as pd

POLL_SECONDS, LOOK_SECONDS = 0.02, 2.0
#: Where nothing says how often a metric comes (a loop of one's own), its newest value is looked for in so many.
RECENT_STEPS = 100
#: How long a control waits for somebody to take it up while no rank lives.
PATIENCE_SECONDS = 5.0
#: How long it waits for a rank that is about to live, so that the cell which starts a run may steer it, too.
START_SECONDS = 10.0


@guided
class Run:
    """What ``lab.train`` returns at once, and ``h3.attach(name)`` finds again. ``actor``: the one that was passed to
    ``lab.train``, which :meth:`wait` and :meth:`stop` load the result into."""

    def __init__(self, folder: RunFolder, actor: Any = None) -> None:
        self.folder = folder
        self._passed = actor
        self._reader = journal.Reader(folder.journal)
        self._looked = time.monotonic()
        #: Whether it was begun in a ``with h3.Lab()``, which stops it when an exception leaves the block.
        self.bound = False

    # ---- What it is

    @property
    def name(self) -> str:
        """``digits/3``: the actor's name and the run's number."""
        return self.folder.name

    @property
    def info(self) -> dict[str, Any]:
        """What was started: settings, sizes, versions."""
        return self.folder.info

    @property
    def state(self) -> str:
        """``queued``, ``starting``, ``training``, ``paused``, ``lost`` (coming back), ``finished``, ``stopped`` or
        ``failed``."""
        return str(self.folder.state["state"])

    @property
    def step(self) -> int:
        """The last step that was recorded."""
        self._poll()
        return int(self._reader.records[-1]["step"]) if self._reader.records else 0

    @property
    def error(self) -> dict[str, Any] | None:
        """``type``, ``message``, ``traceback``, ``rank`` and ``host`` of what ended it, where it failed."""
        return self.folder.state.get("error")

    @property
    def stopped_at(self) -> int | None:
        """The step after which it was stopped."""
        return self.folder.state.get("stopped_at")

    @property
    def settings(self) -> Settings:
        """What steers it now."""
        self._poll()
        return settings(self.info, self._reader.events)

    @property
    def events(self) -> list[dict[str, Any]]:
        """What happened beside its steps, in order: attempts, controls with the step they took effect at, snapshots."""
        self._poll()
        return list(self._reader.events)

    def records(self) -> list[Record]:
        """Every record since step 1, each step once."""
        self._poll()
        return list(self._reader.records)

    def frame(self) -> pd.DataFrame:
        """The records as a table: ``step``, ``epoch``, ``seconds`` and one column a metric."""
        import pandas as pd

        return pd.DataFrame(records.columns(self.records()))

    def __iter__(self) -> Iterator[Record]:
        """Follow it: every record from step 1 on, as they come, until it ends. A step that an attempt repeats is
        given once."""
        reader, last = journal.Reader(self.folder.journal), 0
        while True:
            over = self.state in ENDED
            for record in reader.poll().records:
                if record["step"] > last:
                    last = record["step"]
                    yield record
            if over:
                results.raise_failure(self.folder)
                return
            self._rest()

    def status(self) -> dict[str, Any]:
        """State, epoch, step, the newest metrics, settings and speed, in one dict."""
        self._poll()
        latest: dict[str, Any] = {}
        for record in self._reader.records[-max(1, int(self.info.get("steps_per_epoch") or RECENT_STEPS)) :]:
            latest.update(record)
        state = {"name": self.name, **self.folder.state}
        # A loop of one's own may call a metric like something that a state file knows.
        latest = {name: value for name, value in latest.items() if name == "step" or name not in state}
        return {**state, **latest, **self.settings, "steps_per_second": rate(self._reader.records)}

    def logs(self, rank: int | None = None, lines: int | None = None) -> str:
        """What its ranks have printed, attempt after attempt (and what went wrong in a panel); the last ``lines``."""
        pattern = "*.log" if rank is None else f"rank{whole('rank', rank, 0)}.*.log"
        paths = sorted(self.folder.logs.glob(pattern), key=lambda path: (path.stem.split(".")[::-1], path.stem))
        told = [(path.stem, path.read_text(errors="replace")) for path in paths]
        text = "\n".join(f"==> {name} <==\n{text}" if len(told) > 1 else text for name, text in told)
        return "\n".join(text.splitlines()[-lines:]) if lines is not None and whole("lines", lines, 0) else text

    # ---- Steering

    def set(self, **values: Any) -> str:
        """Change settings from the next step on; returns when the rank has confirmed, with the step. Unknown names and
        wrong values are errors before anything is sent."""
        self.settings.replace(**values)
        shown = ", ".join(f"{name}={value!r}" for name, value in values.items())
        return self._ask(f"{shown} took effect at step {{step}}", set=values)

    def pause(self) -> str:
        """Hold before the next step; the rank keeps its slot and its memory."""
        return self._ask("paused after step {step}", pause=True)

    def resume(self) -> str:
        """Go on."""
        return self._ask("going on after step {step}", resume=True)

    def snapshot(self) -> str:
        """Keep its state now, to come back from."""
        return self._ask("snapshot after step {step}", snapshot=True)

    def stop(self) -> str:
        """End it after the step that is under way; the model is kept, and loaded into the actor that was passed."""
        said = self._ask("stopped after step {step}", stop=True)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (state := self.state) not in ENDED:  # a queued one is ended by its lab
            # One that is starting has no rank to hear of it yet, but will have.
            if state != "starting" and not self.folder.locked and time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        self._load()
        return state if said.startswith("recorded") and state in ENDED else said

    def _ask(self, confirmed: str, **control: Any) -> str:
        if self.state in ENDED:
            return self.state
        number = self.folder.ask(**control)
        began = time.monotonic()
        while True:
            state, waited = self.state, time.monotonic() - began
            self._poll()
            event = next((e for e in self._reader.events if e.get("control") == number), None)
            if event is not None and event["event"] == "refused":
                raise UsageError(str(event["message"]))
            if event is not None:
                return confirmed.format(step=event["step"])
            if state in ENDED:
                return state
            # "queued" alone: its lab has not looked yet, and may have a slot for it; else it says behind whom.
            coming = state == "starting" or self.folder.state.get("message") == "queued"
            patience = START_SECONDS if coming else PATIENCE_SECONDS if state in ("training", "paused") else 0.0
            if not self.folder.locked and waited >= patience:
                return f"recorded: the run is {state}, and this holds from its first step on"
            self._rest()

    # ---- Its end

    def wait(self, timeout_seconds: float | None = None) -> Run:
        """Until it has ended, or the time is over; shows it meanwhile. Loads the result into the actor that was passed.

        Raises RunFailed with the remote traceback. Ctrl-C ends the waiting, not the run.
        """
        if timeout_seconds is not None:
            timeout_seconds = Setting("timeout_seconds", float, 60.0, low=0.0).check(timeout_seconds)
        show, settle = worlds.view("show"), worlds.view("settle")
        progress = None if show is not None and show(self) else Line()
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        try:
            while self.state not in ENDED:
                if progress is not None:
                    progress.show(repr(self))
                if deadline is not None and time.monotonic() > deadline:
                    if progress is not None:
                        progress.end(repr(self))
                    return self
                self._rest()
        except KeyboardInterrupt as interrupt:
            if progress is not None:
                progress.end()
            if not self.bound:
                print(f"The waiting has ended; the run goes on: h3.attach({self.name!r})")
            raise interrupt.with_traceback(None) from None  # where it slept is nobody's affair
        if progress is not None:
            progress.end(repr(self))
        elif settle is not None:
            settle(self)
        results.raise_failure(self.folder)
        self._load()
        return self

    @property
    def actor(self) -> Any:
        """An actor with what was learned by the result or, before it, the newest snapshot; NotFittedError before the
        first. Opens the launch file after checking its signature."""
        return results.actor_of(self.folder)

    @property
    def kept(self) -> Any:
        """Of a loop of one's own (``lab.run``): the newest state that it gave to ``h3.snapshot(...)``, or what it
        returned."""
        return results.kept_by(self.folder)

    def _load(self) -> None:
        if self._passed is not None and self.folder.result.exists():
            results.actor_of(self.folder, self._passed)

    def delete(self) -> None:
        """Remove its folder; a run that has not ended must be stopped first."""
        if self.state not in ENDED:
            raise LabError(f"run {self.name!r} is {self.state}. Stop it first: run.stop().")
        self.folder.remove()

    def _poll(self) -> None:
        self._reader.poll()

    def _rest(self) -> None:
        """Between two looks. Now and then it sees that somebody still keeps the run: its keeper may have died."""
        time.sleep(POLL_SECONDS)
        if time.monotonic() - self._looked > LOOK_SECONDS and self.info.get("lab"):
            self._looked = time.monotonic()
            worlds.load(worlds.LOOK_AFTER)(self.folder)

    def __repr__(self) -> str:
        try:
            return line(self.info, self.status())
        except OSError as error:  # its folder may be gone, and a repr never raises
            return f"Run({self.folder.path.parent.name}/{self.folder.path.name}: {error})"

    def _ipython_display_(self) -> None:
        show = worlds.view("show")
        if show is None or not show(self):
            print(repr(self))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        view = worlds.view("run")
        return {"text/plain": repr(self), **(view(self) if view is not None else {})}

    def __reduce__(self) -> Any:
        return (Run, (self.folder,))
