"""Loops of one's own: a generator function that yields metrics, as a training that a run can drive.

It knows what such a loop may yield, and the settings that it reads; it does not know processes or screens.
"""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from h3lab.errors import UsageError
from h3lab.records import Record
from h3lab.serial import states
from h3lab.settings import Settings
from h3lab.training.loop_settings import View, declared
from h3lab.training.yields import checked

_EXAMPLE = "def loop(settings): ...; yield {'loss': loss}"


class Snapshot:
    """What a loop wants kept: :func:`snapshot` makes it, and the loop yields it."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree

    def __repr__(self) -> str:
        return "Snapshot: yield it in a loop that lab.run started"


def snapshot(state: Any) -> Snapshot:
    """Keep ``state`` in a run of ``lab.run``: ``yield h3.snapshot({"w": w, "optimizer": optimizer.state_dict()})``.

    Yield it after the metrics of a step. When the run's process or machine has died, the loop starts again with the
    newest one: ``loop(settings, state)``; ``run.kept`` reads it. ``state``: numbers, text, arrays, tensors, and dicts,
    lists and tuples of them; it is copied here, so the loop may go on changing it. UsageError names what else it holds.
    """
    return Snapshot(states.to_tree(state))


@dataclass(frozen=True)
class Loop:
    """A loop and what it begins with. ``resumes``: whether it has a parameter ``state`` for its last snapshot."""

    name: str
    function: Callable[..., Any]
    settings: Settings
    resumes: bool

    @classmethod
    def of(cls, function: Any, name: str | None = None, **values: Any) -> Loop:
        """``Loop.of(descend, lr=0.01)``. Names, types and controls of the settings are those of the ``values``, or what
        a Setting declares. UsageError for what is no loop, or no setting."""
        resumes = _signature(function)
        found = [declared(name, value) for name, value in values.items()]
        name = _name(function) if name is None else name
        return cls(name, function, Settings(found, **{s.name: s.default for s in found}), resumes)

    def begin(self) -> LoopTraining:
        """The loop in this process: ``for record in Loop.of(descend, lr=0.01).begin(): ...``"""
        return LoopTraining(self)


def _signature(function: Any) -> bool:
    """Whether a loop takes a state; UsageError where it cannot be one."""
    if inspect.isgenerator(function):
        raise UsageError(f"{function.__name__}(...) came, which has begun; give the function itself: {_EXAMPLE}.")
    if not callable(function) or isinstance(function, type):
        raise UsageError(f"{function!r} came as loop; expected a generator function: {_EXAMPLE}.")
    bare = _bare(function)
    if inspect.iscoroutinefunction(bare) or inspect.isasyncgenfunction(bare):
        raise UsageError(f"{_name(function)} is async; expected a generator function: {_EXAMPLE}.")
    # A lambda cannot yield, but hand over to what does; of a function that was meant to, only the yield is missing.
    if inspect.isfunction(bare) and bare.__name__ != "<lambda>" and not _yields(bare):
        raise UsageError(
            f"{_name(function)} has no yield; expected a generator function: {_EXAMPLE}. One that calls another "
            "writes: yield from other(settings)."
        )
    try:
        parameters = inspect.signature(function).parameters
        resumes = "state" in parameters
        inspect.signature(function).bind(None, **({"state": None} if resumes else {}))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{_name(function)} cannot be called as loop(settings), nor as loop(settings, state=None), which one that "
            f"yields h3.snapshot(...) takes: {error}. What else it needs functools.partial gives it."
        ) from error
    return resumes


def _bare(function: Any) -> Any:
    """What is behind ``functools.partial``, and the ``__call__`` of an object."""
    while isinstance(function, partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__


def _yields(function: Any) -> bool:
    return any(map(inspect.isgeneratorfunction, (function, inspect.unwrap(function))))


def _name(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    name = str(getattr(function, "__name__", type(function).__name__))
    if name == "<lambda>":
        raise UsageError("a lambda has no name; give the run one: lab.run(loop, name='descent', lr=0.01).")
    return name


class LoopTraining:
    """A loop under way, to be iterated: each record comes after its step, with ``step``, ``seconds`` and what the loop
    yielded. One interface with :class:`h3lab.training.loop.Training`, for whoever drives either.

    ``settings`` may be replaced between two records. ``before_step``, where it is set, is called before each step, and
    ``after_snapshot`` when the loop has yielded one.
    """

    #: A loop's end is its own affair.
    epochs = total_steps = None

    def __init__(self, loop: Loop) -> None:
        self.loop, self.name = loop, loop.name
        self.before_step: Callable[[LoopTraining], None] | None = None
        self.after_snapshot: Callable[[LoopTraining], None] | None = None
        self.step = 0
        self.stopped_at: int | None = None
        self._settings = loop.settings
        self._kept: dict[str, Any] | None = None
        self._source: Any = None
        self._before, self._began = 0.0, 0.0  # seconds before the snapshot that this continues; start of the clock
        self._state = "new"
        self._records = self._run()

    @property
    def settings(self) -> Settings:
        """What steers the loop: ``training.settings = training.settings.replace(lr=1e-4)``."""
        return self._settings

    @settings.setter
    def settings(self, new: Settings) -> None:
        if not isinstance(new, Settings):
            raise UsageError(f"settings={new!r} came; expected training.settings.replace(lr=...).")
        self._settings = new

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        return next(self._records)

    def stop(self) -> None:
        """End now: the loop sees GeneratorExit at its ``yield``. Twice is fine."""
        if self._state == "new":
            self._state, self.stopped_at = "stopped", 0
        self._records.close()

    close = stop

    def snapshot(self) -> dict[str, Any] | None:
        """The newest that the loop has yielded, as a codec tree with its ``step``; None before the first."""
        return self._kept

    #: What is left at its end: the same.
    result = snapshot

    def restore(self, tree: Mapping[str, Any]) -> None:
        """Go on after a snapshot of the same loop; before the first record."""
        if self._state != "new":
            raise UsageError("this loop has begun; restore a snapshot into a new one: Loop.of(...).begin().")
        self.step, self._before = tree["step"], tree["seconds"]
        self._settings = Settings(self._settings.declared, **tree["settings"])
        self._kept = dict(tree)

    def fetch(self) -> Iterator[Record]:
        """None: a loop's numbers are numbers when it yields them."""
        return iter(())

    def _run(self) -> Generator[Record, None, None]:
        self._began, self._state = time.perf_counter(), "training"
        try:
            while True:
                if self.before_step is not None:
                    self.before_step(self)
                record = self._advance()
                if record is None:
                    break
                yield record
            self._state = "finished"
        except GeneratorExit:
            self._state, self.stopped_at = "stopped", self.step
            self._end()
            raise
        except BaseException:
            self._state = "failed"
            raise

    def _advance(self) -> Record | None:
        """The record of the next step; None where the loop has returned."""
        if self._source is None:
            self._source = self._start()
        while True:
            try:
                item = next(self._source)
            except StopIteration as end:
                self._returned(end.value)
                return None
            try:
                if isinstance(item, Snapshot):
                    self._keep(item)
                    continue
                record = checked(item, self.loop.name, self.step)
            except UsageError as error:
                self._throw(error)
                raise
            self.step = record["step"]
            record["seconds"] = self._clock()
            return record

    def _throw(self, error: UsageError) -> None:
        """Raise it where the loop stands, so that the traceback shows which ``yield`` was wrong."""
        if isinstance(self._source, Generator):
            with suppress(StopIteration):  # a loop that catches whatever comes
                self._source.throw(error)

    def _start(self) -> Any:
        kept = self._kept
        state = {"state": None if kept is None else states.from_tree(kept["state"])} if self.loop.resumes else {}
        source = self.loop.function(View(self), **state)
        if not isinstance(source, Iterator):
            raise UsageError(f"{self.loop.name} returned a {type(source).__name__}; expected a generator: {_EXAMPLE}.")
        return source

    def _keep(self, item: Snapshot) -> None:
        if not self.loop.resumes:
            raise UsageError(
                f"{self.loop.name} yields h3.snapshot(...) and could not be started again with it; give it the "
                "parameter: def loop(settings, state=None)."
            )
        self._remember(item.tree)
        if self.after_snapshot is not None:
            self.after_snapshot(self)

    def _remember(self, tree: Any) -> None:
        self._kept = {"step": self.step, "seconds": self._clock(), "settings": dict(self._settings), "state": tree}

    def _returned(self, value: Any) -> None:
        """What a loop returns is what it leaves: kept as a snapshot is."""
        if value is None:
            return
        try:
            self._remember(states.to_tree(value))
        except UsageError as error:
            # The work is done: a value of the wrong type at its end must not make it a failure.
            warnings.warn(f"what {self.loop.name} returned is not kept: {error}", stacklevel=2)

    def _end(self) -> None:
        if not isinstance(self._source, Generator):
            return
        try:
            # close() would drop what the loop returns (before Python 3.13).
            self._source.throw(GeneratorExit)
        except StopIteration as end:
            self._returned(end.value)
        except GeneratorExit:
            return
        else:
            with suppress(RuntimeError):
                self._source.close()
            raise UsageError(
                f"{self.loop.name} yielded while it was stopped. To leave something, return it: "
                "except GeneratorExit: return {'w': w}."
            )

    def _clock(self) -> float:
        return self._before + time.perf_counter() - self._began

    def __repr__(self) -> str:
        told = f"LoopTraining of {self.loop.name!r}: {self._state}, step {self.step}"
        return f"{told}. Iterate it: for record in training: ..." if self._state == "new" else told
