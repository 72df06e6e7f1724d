"""The settings of a loop of one's own: declared by the values that it is given, and read by it as attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from h3lab.errors import UnknownName, UsageError
from h3lab.options import plain
from h3lab.settings import Setting, Settings

#: Rates are not negative, and are tried by factors.
_RATES = ("lr", "learning_rate", "weight_decay")
#: What a setting cannot be called: it would hide a method, or is an argument on the way.
_TAKEN = {"self", "declared", "replace", "ranks", *dir(Mapping)}


def declared(name: str, value: Any) -> Setting:
    """The declaration of a setting that begins with ``value``, or ``value`` itself where it is one. UsageError for a
    name or a value that none can have."""
    value = plain(value)
    if not name.isidentifier() or name.startswith("_") or name in _TAKEN:
        raise UsageError(f"a setting cannot be called {name!r}, which means something else here; give it another name.")
    if isinstance(value, Setting):
        if value.name != name:
            raise UsageError(f"{name}=Setting({value.name!r}, ...) came; give it the same name twice.")
        return value
    kind = next((kind for kind in (bool, int, float, str) if isinstance(value, kind)), None)
    if kind is None:
        raise UsageError(
            f"{name} is a {type(value).__name__}; a setting is a number, True or False, or text, for example lr=0.01. "
            f"What does not steer the loop it may refer to, or functools.partial(loop, {name}=...) gives it."
        )
    rate = kind is float and name in _RATES
    return Setting(name, kind, value, low=0.0 if rate else None, log=rate or (kind is float and 0 < value < 0.1))


class Steered(Protocol):
    """What has settings that change."""

    @property
    def settings(self) -> Settings:
        """As they are now."""
        ...


class View(Mapping[str, Any]):
    """The settings as a loop reads them, by attribute or item: ``settings.lr``. They change only while the loop waits
    at a ``yield``."""

    __slots__ = ("_training",)
    _training: Steered

    def __init__(self, training: Steered) -> None:
        object.__setattr__(self, "_training", training)

    def __getattr__(self, name: str) -> Any:
        current = self._training.settings
        try:
            return current[name]
        except KeyError:
            raise AttributeError(str(UnknownName("setting", name, current))) from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a loop only reads its settings; run.set({name}={value!r}) changes them.")

    def __getitem__(self, name: str) -> Any:
        return self._training.settings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._training.settings)

    def __len__(self) -> int:
        return len(self._training.settings)

    def __reduce__(self) -> Any:
        return self._training.settings.__reduce__()

    def __repr__(self) -> str:
        return repr(self._training.settings)
