"""Options: the training settings of an actor, overridden for one run and checked at once.

They are fixed while a run trains; what can be steered are the model's and the transfer's Settings.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from h3lab.errors import UnknownName, UsageError
from h3lab.settings import Setting

_CHECKS = {
    "epochs": Setting("epochs", int, 10, low=1),
    "batch_size": Setting("batch_size", int, 64, low=1),
    "patience": Setting("patience", int, 5, low=1),
    "seed": Setting("seed", int, 0, low=0, high=2**63 - 1),
    "threads": Setting("threads", int, 1, low=1),
}
#: Keywords of ``train`` that are no settings, of ``lab.train`` alone, and of a transfer, for whoever misspells them.
_BESIDE, _OF_LAB = ("transfer", "start", "class_weight", "ranks"), ("replace", "snapshot_every")
_OF_TRANSFER = ("temperature", "soft", "hard")


#: How the rows of an epoch are drawn, where nobody says it.
_DRAWS: dict[str, Any] = {"shuffle": True, "sampling": None, "bucket": None}


@dataclass(frozen=True)
class Options:
    """``epochs``, ``batch_size`` (global, over all ranks), ``validation``, ``patience`` (epochs without progress of
    ``monitor`` after which the training ends), ``metrics`` (scikit-learn scorer names or functions), ``seed``,
    ``threads``; ``shuffle``, ``sampling`` and ``bucket`` (names alone, as :meth:`Feed.epoch` takes them: what is held
    out or prepared on the way has other rows). ``epochs_given``: whether somebody chose the epochs, rather than
    Actor's default. ``shuffle_given``: whether somebody chose how to shuffle, rather than the machine's memory."""

    epochs: int
    batch_size: int
    validation: Any
    patience: int | None
    monitor: str
    metrics: tuple[str | Callable[..., Any], ...]
    seed: int
    threads: int
    epochs_given: bool
    shuffle_given: bool
    shuffle: bool | str = True
    sampling: str | None = None
    bucket: bool | str | None = None

    @classmethod
    def of(
        cls, actor: Any, overrides: Mapping[str, Any], steerable: Iterable[Setting]
    ) -> tuple[Options, dict[str, Any]]:
        """The actor's options with overrides; and those overrides that are the model's or the transfer's."""
        names = ("epochs", "batch_size", "validation", "patience", "monitor", "metrics", "seed", "threads", *_DRAWS)
        others = [setting.name for setting in steerable]
        for name in overrides:
            if name not in names and name not in others:
                raise _unknown(name, [*names, *others])
        values = {name: getattr(actor, name) for name in names if name not in ("threads", *_DRAWS)}
        default = values["epochs"] == _CHECKS["epochs"].default
        values |= {"threads": default_threads(), **_DRAWS}
        values |= {name: value for name, value in overrides.items() if name in names}
        for name, check in _CHECKS.items():
            if name != "patience" or values[name] is not None:
                values[name] = check.check(plain(values[name]))
        values["metrics"] = _metrics(values["metrics"])
        _check_draws({name: values[name] for name in _DRAWS})
        if not isinstance(values["monitor"], str):
            raise UsageError(f"monitor={values['monitor']!r} came; expected a metric's name, for example 'val_loss'.")
        given = "epochs" in overrides or not default
        rest = {name: plain(value) for name, value in overrides.items() if name in others}
        return cls(**values, epochs_given=given, shuffle_given=values["shuffle"] is not True), rest


def _check_draws(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if not isinstance(value, str | bool | None):
            raise UsageError(
                f"{name}= came as {type(value).__name__}; a training takes a name, for example sampling='balanced', "
                "because the rows that it learns from may be others than came. feed.epoch(...) takes an array."
            )
    from h3lab.feeds.orders import Order

    Order(**values)


def _unknown(name: str, known: list[str]) -> UsageError:
    if name in _OF_LAB:
        return UsageError(
            f"{name}= is for runs of a lab, lab.train(..., {name}=...); here the training is your own loop."
        )
    if name in _OF_TRANSFER:
        return UsageError(f"{name}= steers a transfer, and none came: transfer=h3.Distill(teacher, {name}=...).")
    return UnknownName("training setting", name, [*known, *_BESIDE, *_OF_LAB])


def default_threads() -> int:
    """1, or what ``$OMP_NUM_THREADS`` says: another number of threads gives other bits."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) else 1


def plain(value: Any) -> Any:
    """A NumPy scalar, as parameter grids give them, as a Python number."""
    return value.item() if isinstance(value, np.generic) else value


def _metrics(metrics: Any) -> tuple[str | Callable[..., Any], ...]:
    given = () if metrics is None else (metrics,) if isinstance(metrics, str) or callable(metrics) else metrics
    if not isinstance(given, Sequence) or not all(isinstance(m, str) or callable(m) for m in given):
        raise UsageError(
            f"metrics={metrics!r} came; expected scikit-learn scorer names or functions f(y, predicted), for example "
            "metrics=['f1_macro']."
        )
    return tuple(given)
