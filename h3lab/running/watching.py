"""Watching: the records of a loop in this process as live curves while they pass, and several runs in one figure.

It knows which of the two is asked for, and what a loop can be told; it does not know screens.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, overload

from h3lab import brief, worlds
from h3lab.errors import UnknownName, UsageError, guided
from h3lab.records import Record
from h3lab.running.folder import find
from h3lab.running.local import LocalRun
from h3lab.running.run import Run
from h3lab.training.loops import Loop, LoopTraining, Snapshot

EXAMPLE = "for record in h3.watch(loop()): ..., or h3.watch(run, 'digits/2')"
#: What somebody would type in the loop instead of clicking.
PLAIN_CODE = {"stop": "break"}
LOOP_CODE = {"stop": "break", "set": ""}
TRAINING_CODE = {"stop": "training.stop()", "set": "training.settings = training.settings.replace({})"}


@guided
class Watch:
    """Live curves of any loop in this process, or of several runs in one figure.

    ``for record in h3.watch(records, name=None): ...`` yields the records on and shows them in this cell as a run is
    shown: while the cell is busy, about five times a second; as a line in a terminal. ``records`` is any iterable of
    dicts of metrics: a generator of your own, a list, ``h3.train(...)``. A click on *Pause* holds the loop before its
    next record, *Stop* ends it as if nothing more came, and where it is ``h3.train(...)`` its settings can be changed.
    A record may lack ``step``, ``epoch`` and ``seconds``; those yielded have them (see :class:`Watched`).

    ``h3.watch(loop, lr=0.01)`` is ``lab.run(loop, lr=0.01)`` in this process: the generator function itself, with its
    settings, which the card can change.

    ``h3.watch(run_a, run_b, "digits/2")`` shows runs of a lab, given as such or by name, in one figure.

    ``h3.watch.keras()``, ``.lightning()`` and ``.huggingface()`` are callbacks of these frameworks, for loops that they
    drive: ``model.fit(X, y, callbacks=[h3.watch.keras()])``.
    """

    __name__ = __qualname__ = "watch"

    @overload
    def __call__(self, run: Run | str, /, *runs: Run | str) -> None: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, records: Iterable[Mapping[str, Any]], /, name: str | None = None) -> Watched: ...
    @overload
    def __call__(self, loop: Callable[..., Iterator[Any]], /, name: str | None = None, **settings: Any) -> Watched: ...
    @guided
    def __call__(self, records: Any, /, *runs: Any, name: str | None = None, **settings: Any) -> Watched | None:
        """See the class. UsageError where what comes is neither runs, nor an iterable of dicts, nor a loop."""
        if callable(records) and not isinstance(records, Iterable) and not runs:
            return Watched(Loop.of(records, name, **settings))
        if settings:
            raise UnknownName("argument", next(iter(settings)), ["name"], "watch()")
        several = [*records, *runs] if isinstance(records, list | tuple) else [records, *runs]
        if several and all(isinstance(each, Run | str) for each in several):
            _show([each if isinstance(each, Run) else Run(find(each)) for each in several])
            return None
        if len(runs) == 1 and isinstance(runs[0], str) and name is None:
            name, runs = runs[0], ()
        if runs or isinstance(records, Run | str | bytes | Mapping) or not isinstance(records, Iterable):
            kinds = ", ".join(type(each).__name__ for each in (records, *runs))
            raise UsageError(f"{kinds} came; expected an iterable of dicts, or runs or their names: {EXAMPLE}.")
        return Watched(records, name)

    __call__.__wrapped__.__qualname__ = "watch"  # type: ignore[attr-defined]  # what a misfit is told to type

    def keras(self, name: str | None = None) -> Any:
        """A Keras callback: ``model.fit(X, y, callbacks=[h3.watch.keras()])``. Its curves are Keras' own numbers, which
        are means since the beginning of an epoch. *Stop* sets ``model.stop_training``. MissingExtra without Keras."""
        return worlds.load(worlds.FRAMEWORKS["keras"])(name)

    def lightning(self, name: str | None = None) -> Any:
        """A Lightning callback: ``Trainer(callbacks=[h3.watch.lightning()])``. It shows the loss of each step and what
        the module logs. *Stop* sets ``trainer.should_stop``. MissingExtra without Lightning."""
        return worlds.load(worlds.FRAMEWORKS["lightning"])(name)

    def huggingface(self, name: str | None = None) -> Any:
        """A callback of Transformers: ``Trainer(..., callbacks=[h3.watch.huggingface()])``. A point comes every
        ``logging_steps`` of the TrainingArguments, 500 unless you say otherwise. *Stop* sets
        ``control.should_training_stop``. MissingExtra without Transformers."""
        return worlds.load(worlds.FRAMEWORKS["huggingface"])(name)

    def __repr__(self) -> str:
        return (
            "h3.watch: for record in h3.watch(loop()): ...   live curves of any iterable of dicts\n"
            "          h3.watch(run_a, run_b)               runs in one figure\n"
            "          h3.watch.keras(), .lightning(), .huggingface()   callbacks for loops of these frameworks"
        )


watch = Watch()


class Watched:
    """The records that were given to ``h3.watch``, shown while somebody iterates; each time anew, as a card of its own.

    Those that lack an axis are yielded with it: ``step`` counts from 1, ``epoch`` is the last one that a record had
    (0 before), ``seconds`` are those since the loop began. ``break``, an exception or the end of the records leave the
    last picture. Of the records only their numbers are kept, 16 bytes each, for the curves.
    """

    def __init__(self, records: Any, name: str | None = None) -> None:
        self._records = records
        self.name = name or _name(records)

    def __iter__(self) -> Iterator[Record]:
        records = self._records.begin() if isinstance(self._records, Loop) else self._records
        training = _training(records)
        known = operator.length_hint(records) if training is None else 0
        run = _run_of(training, self.name) if training is not None else LocalRun(self.name, code=PLAIN_CODE)
        settings = training.settings if training is not None else None
        state, failure = "stopped", None
        try:
            source = iter(records)
            run.open()
            for count, record in enumerate(source, 1):
                if isinstance(record, Snapshot):
                    continue  # which nobody starts again here
                whole = run.record(record)
                if known and count == 1 and "step" not in record:
                    run.info["total_steps"] = known
                if count == known:
                    state = "finished"  # whoever stops at the last one has seen them all
                yield whole
                if training is not None and training.settings is not settings:
                    settings = _note(run, settings, training.settings)
                if not run.obey():
                    _stop(source)
                    return
                if training is not None:
                    settings = training.settings
            state = "stopped" if getattr(training, "stopped_at", None) is not None else "finished"
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            state, failure = "failed", error
            raise
        finally:
            run.end(state, failure)

    def __length_hint__(self) -> int:
        return operator.length_hint(self._records)

    def __repr__(self) -> str:
        return f"Watched {brief.word(self.name)}: iterate it to see it: for record in h3.watch(...): ..."


def _show(runs: list[Any]) -> None:
    show = worlds.view("show")
    if show is None or not show(*runs):
        for run in runs:
            print(repr(run))


def _name(records: Any) -> str:
    """After whom a loop is called: a training after its actor, a generator after its function."""
    if isinstance(records, Loop | LoopTraining):
        return records.name
    training = _training(records)
    name = training.actor.name if training is not None else getattr(records, "__name__", "")
    return str(name) if name and not name.startswith("<") else "loop"


def _training(records: Any) -> Any:
    if isinstance(records, LoopTraining):
        return records
    # Where the module was never imported nothing is of its class, and its import takes a second.
    module = sys.modules.get("h3lab.training.loop")
    return records if module is not None and isinstance(records, module.Training) else None


def _run_of(training: Any, name: str) -> LocalRun:
    def change(**values: Any) -> None:
        training.settings = training.settings.replace(**values)

    return LocalRun(
        name, epochs=training.epochs, total_steps=training.total_steps, settings=training.settings, change=change,
        code=LOOP_CODE if isinstance(training, LoopTraining) else TRAINING_CODE,
    )  # fmt: skip


def _note(run: LocalRun, old: Any, new: Any) -> Any:
    """Settings that were replaced in the loop itself get their mark too."""
    run.event("set", values={name: value for name, value in new.items() if value != old[name]})
    return new


def _stop(source: Any) -> None:
    # A Training gives its actor the best epoch; a generator runs its `finally`.
    close = getattr(source, "close", None)
    if close is not None:
        close()
