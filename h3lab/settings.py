"""Settings: the named values that steer a training, and the declarations that say what each may be.

A Setting is declared by a model or a transfer; controls on the screen are drawn from it. Settings are frozen and
swapped whole, so that a step never sees half of a change.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from h3lab import brief
from h3lab.errors import NotOffered, UnknownName, UsageError


@dataclass(frozen=True)
class Setting:
    """A declaration: ``kind`` is float, int, bool or str; ``low`` and ``high`` are inclusive bounds; ``log`` asks for a
    logarithmic control; ``choices`` lists the allowed strings; ``steerable`` says whether it may change in mid-run."""

    name: str
    kind: type
    default: Any
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[str, ...] | None = None
    steerable: bool = True
    help: str = ""

    def check(self, value: Any) -> Any:
        """The value in this setting's type, or UsageError that says what came and what was expected."""
        value = value.item() if isinstance(value, np.generic) else value
        bad = isinstance(value, bool) != (self.kind is bool) or not isinstance(value, self._accepts())
        if not bad and self.kind in (int, float):
            # whole numbers of Python have no end, and a float has
            bad = not abs(value) <= sys.float_info.max or (self.kind is int and value != int(value))
            bad = bad or (self.low is not None and value < self.low) or (self.high is not None and value > self.high)
        bad = bad or (self.choices is not None and value not in self.choices)
        if bad:
            raise UsageError(
                f"{self.name}={value!r} came; expected {self._expected()}, for example {self.name}={self.default!r}."
            )
        return self.kind(value)

    def __repr__(self) -> str:
        told = [repr(self.name), self.kind.__name__, brief.word(self.default)]
        names = ("low", "high", "log", "choices", "steerable")
        given = {name: getattr(self, name) for name in names if getattr(self, name) != getattr(type(self), name)}
        told += [f"{name}={brief.word(value)}" for name, value in given.items()]
        return f"Setting({brief.listed(told, brief.LINE - 9)})"

    def _accepts(self) -> tuple[type, ...]:
        return (int, float) if self.kind in (int, float) else (self.kind,)

    def _expected(self) -> str:
        if self.choices is not None:
            return "one of " + ", ".join(map(repr, self.choices))
        bounds = [
            f"from {self.low:g}" if self.low is not None else "",
            f"to {self.high:g}" if self.high is not None else "",
        ]
        return " ".join(
            filter(
                None,
                [
                    {float: "a number", int: "a whole number", bool: "True or False"}.get(self.kind, "text"),
                    *bounds,
                ],
            )
        )

    def to_json(self) -> dict[str, Any]:
        """What a viewer in another process needs to draw a control."""
        return {
            **self.__dict__,
            "kind": self.kind.__name__,
            "choices": list(self.choices) if self.choices else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Setting:
        """The inverse of :meth:`to_json`."""
        kinds = {"float": float, "int": int, "bool": bool, "str": str}
        choices = tuple(data["choices"]) if data["choices"] else None
        return cls(**{**data, "kind": kinds[data["kind"]], "choices": choices})


def whole(name: str, value: Any, low: int) -> int:
    """An argument as a whole number from ``low`` on, or UsageError."""
    return int(Setting(name, int, max(low, 1), low=low).check(value))


class Settings(Mapping[str, Any]):
    """Frozen named values, read as attributes or items; :meth:`replace` gives a checked new one."""

    __slots__ = ("_declared", "_values")
    _declared: dict[str, Setting]
    _values: dict[str, Any]

    def __init__(self, declared: Iterable[Setting] = (), **values: Any) -> None:
        declarations = {setting.name: setting for setting in declared}
        object.__setattr__(self, "_declared", declarations)
        checked = {name: setting.default for name, setting in declarations.items()}
        for name, value in values.items():
            if name not in declarations:
                raise UnknownName("setting", name, declarations)
            checked[name] = declarations[name].check(value)
        object.__setattr__(self, "_values", checked)

    @property
    def declared(self) -> tuple[Setting, ...]:
        """The declarations, in order."""
        return tuple(self._declared.values())

    def replace(self, **values: Any) -> Settings:
        """New Settings with some values changed; unknown names, wrong values and unsteerable ones are UsageErrors."""
        for name, value in values.items():
            if name not in self._declared:
                raise UnknownName("setting", name, [n for n, s in self._declared.items() if s.steerable])
            if not self._declared[name].steerable:
                raise UsageError(f"{name!r} cannot change while a run trains; give it to train(..., {name}={value!r}).")
        return Settings(self.declared, **{**self._values, **values})

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise NotOffered(str(UnknownName("setting", name, self._values))) from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise NotOffered(f"Settings are frozen; use settings.replace({name}={value!r}).")

    def __reduce__(self) -> Any:
        return (_restore, (self.declared, self._values))

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __repr__(self) -> str:
        return (
            f"Settings({brief.listed([f'{name}={value!r}' for name, value in self._values.items()], brief.LINE - 10)})"
        )


def _restore(declared: tuple[Setting, ...], values: dict[str, Any]) -> Settings:
    return Settings(declared, **values)
