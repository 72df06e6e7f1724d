"""Every error that h3lab raises, in one tree under :class:`H3labError`.

It knows how to word a misspelt name; it knows nothing of what raises it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any


def redacted(text: str) -> str:
    """A text without the passwords and query values of the URLs in it."""
    text = re.sub(r"://([^/\s:]*):[^/\s]*@", r"://\1:***@", text)
    return re.sub(r"(://\S*?[?&][^=\s]*)=\S*", r"\1=***", text)


class H3labError(Exception):
    """The root: ``except h3.errors.H3labError`` catches whatever h3lab raises on purpose."""

    def __reduce__(self) -> Any:
        # Exceptions are rebuilt from their arguments, but some of these word their message themselves.
        return (_again, (type(self), self.args, self.__dict__))


def _again(kind: type[H3labError], arguments: tuple[Any, ...], values: dict[str, Any]) -> H3labError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(values)
    return error


class UsageError(H3labError, ValueError):
    """An argument has the wrong value or type, or a call comes in the wrong order."""


class UnknownName(UsageError):
    """A column, setting, metric or run of that name does not exist; the message lists the known and the closest."""

    def __init__(self, kind: str, name: object, known: Iterable[object], context: str = "") -> None:
        names = [str(k) for k in known]
        close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        shown = ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
        where = f" in {context}" if context else ""
        super().__init__(f"there is no {kind} {str(name)!r}{where}.{meant} Known: {shown or 'none'}.")
        self.name, self.known = name, names


class DataError(H3labError, ValueError):
    """Rows, columns, labels or files are not what the pipeline or model needs."""


class DamagedData(DataError):
    """A stored part cannot be read, or its size or hash is not what its manifest says."""


class SpecMismatch(DataError):
    """Data and model disagree on features, classes or blocks."""


class ModelError(H3labError, RuntimeError):
    """A model cannot be built, wrapped, stepped or loaded."""


class NotFittedError(H3labError, ValueError, AttributeError):
    """The actor or pipeline has not learned anything yet."""


class NonFiniteLoss(ModelError):
    """The loss became NaN or infinite; the last good snapshot is kept."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class MissingExtra(H3labError, ImportError):
    """A framework or library that is not installed; the message holds the pip line."""


class TravelError(H3labError, TypeError):
    """An object cannot be sent to an engine; the message names the attribute path."""


class NameInUse(H3labError, RuntimeError):
    """A run of that name is still training."""


class RunNotFound(H3labError, LookupError):
    """No run of that name or number exists under ``$H3LAB_HOME``."""


class RunFailed(H3labError, RuntimeError):
    """A run ended with an error; the first failing rank's traceback is in the message."""


class LabError(H3labError, RuntimeError):
    """The cluster does not answer, does not start, or is asked for what it cannot do."""


class EngineLost(LabError):
    """An engine died or did not start; the message names it and the end of its log."""


class StorageError(H3labError, OSError):
    """A write or read failed; what was stored before is still usable."""


class Untrusted(H3labError, RuntimeError):
    """A file's signature is missing or wrong, so it is not opened."""
