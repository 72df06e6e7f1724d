"""Every error that h3lab raises, in one tree under :class:`H3labError`.

It knows how to word a misspelt name and a call that does not fit; it knows nothing of what raises it.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, TypeVar, cast

Guided = TypeVar("Guided", bound=Callable[..., Any])

#: What other libraries call it → what it may be called here.
_ELSEWHERE = {
    "learning_rate": "lr",
    "lr": "learning_rate",
    "max_epochs": "epochs",
    "n_epochs": "epochs",
    "num_epochs": "epochs",
    "max_iter": "epochs",
    "random_state": "seed",
    "test_size": "test",
    "train_size": "test",
    "validation_split": "validation",
    "validation_data": "validation",
    "eval_set": "validation",
    "early_stopping": "patience",
    "target": "label",
    "criterion": "loss",
    "module": "build",
    "gradient_clip_val": "clip_norm",
    "n_jobs": "engines",
    "workers": "engines",
    "world_size": "ranks",
    "timeout": "timeout_seconds",
}


#: What a parameter that holds a secret has in its name, whatever the store calls it.
_SECRET = r"[\w.%-]*(?:pass|pwd|secret|token|key|auth|cred|sig|delegation)[\w.%-]*"


def redacted(text: str) -> str:
    """A text without the passwords and query values of the URLs in it."""
    text = re.sub(r"(://\S*?[?&][^=\s]*)=(?!\*\*\*(?:\s|$))\S*", r"\1=***", without_passwords(text))
    return re.sub(r"(?i)\b(password|passwd|pwd)( ?= ?)(?:'[^']*'|[^\s'&;,)]+)", r"\1\2***", text)  # libpq's way


def without_passwords(text: str) -> str:
    """A text whose URLs have ``***`` for a password, and for the values of parameters that are called like one.

    Nobody escapes a password before the first error, so ``@ / : ? #`` and blanks may stand in it. All up to the last
    ``@`` counts: of a text that begins with a URL to the end of its line, else to the next blank, or beyond it where
    no ``@`` and no port stands before. Rather too much is hidden than a character too few.
    """
    alone = re.match(r"\s*(?:[\w+.-]+::)*[\w+.-]+://", text) is not None
    port = r"\d{1,5}(?![^/?#\s,;.)\]'\"])"
    password = rf"(?:.*@|(?!{port}|\*\*\*)[^/\s]+)" if alone else rf"(?:\S*@|(?!{port}|\s).*@)"
    # user@host:port is whole, a::b is a URL within a URL, and what is hidden already stays.
    found = rf"(://[^/\s:@]*@[^/\s:@]+:{port})|(://[^/\s:]*):(?!\*\*\*@[^\s@]*(?:\s|$)|:[\w+.-]+://){password}"
    text = re.sub(found, lambda match: match[1] or f"{match[2]}:***" + "@" * match[0].endswith("@"), text)
    value = r"(?!\*\*\*(?:[&\s]|$))(?:[^&\s]|&(?![\w.%-]+=)" + (r"|[^\S\n])*" if alone else ")*")
    return re.sub(rf"(?i)([?&]{_SECRET})={value}", r"\1=***", text)


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
        close = closest(name, names)
        meant = "" if close is None else f" Did you mean {close!r}?"
        shown = ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
        where = f" in {context}" if context else ""
        super().__init__(f"there is no {kind} {str(name)!r}{where}.{meant} Known: {shown or 'none'}.")
        self.name, self.known = name, names


def closest(name: object, known: Iterable[str]) -> str | None:
    """The known name that was probably meant: by what other libraries call it, else by its letters, in any case."""
    names = {known.casefold(): known for known in reversed(list(known))}
    asked = str(name).casefold()
    elsewhere = _ELSEWHERE.get(asked)
    if elsewhere in names:
        return elsewhere
    close = difflib.get_close_matches(asked, names, n=1, cutoff=0.5)
    return names[close[0]] if close else None


class OutOfRange(UsageError, IndexError):
    """A row is asked for that is not there, or by something that is no position."""


class NotOffered(UsageError, AttributeError):
    """This model or task has no such method; the message says which one has."""


class DataError(H3labError, ValueError):
    """Rows, columns, labels or files are not what the pipeline or model needs."""


class UnseenValue(DataError):
    """A category that its encoder was not fitted on; ``row`` is the first one that has it, counted from 0 in the part
    or the rows that were given."""

    def __init__(self, said: str, row: int, hint: str, context: str = "", of: str = "these rows") -> None:
        super().__init__(f"{context}{said}; first in row {row} of {of}. {hint}")
        self.row, self._said = row, (said, row, hint, context, of)

    def placed(self, context: str | None = None, of: str | None = None) -> UnseenValue:
        """The same, said of a block and worker, or of a part."""
        said, row, hint, *before = self._said
        return UnseenValue(said, row, hint, before[0] if context is None else context, before[1] if of is None else of)


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


class FeedNotFound(StorageError, LookupError):
    """No feed is stored there."""


class Untrusted(H3labError, RuntimeError):
    """A file's signature is missing or wrong, so it is not opened."""


def guided(what: Guided) -> Guided:
    """Decorates a function, or a class for its constructor and public methods, so that a call which does not fit is
    answered: UnknownName for a keyword, with the closest, UsageError with the signature for an argument that is
    missing or too many. Signature, docstring and what the function raises itself stay as they are."""
    if isinstance(what, type):
        for name, method in list(vars(what).items()):
            if name.startswith("_") and name != "__init__":
                continue
            if isinstance(method, classmethod | staticmethod):
                setattr(what, name, type(method)(guided(method.__func__)))
            elif isinstance(method, FunctionType):
                setattr(what, name, guided(method))
        return what

    @functools.wraps(what)
    def called(*args: Any, **keywords: Any) -> Any:
        try:
            return what(*args, **keywords)
        except TypeError as error:
            # Python refuses a call before the function has a frame, so its traceback ends here. Looking at the
            # arguments first instead would cost each call of a hot loop a microsecond.
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise
            raise _misfit(what, keywords, error) from error

    return cast(Guided, called)


def _misfit(function: Callable[..., Any], keywords: Iterable[str], error: TypeError) -> UsageError:
    called = function.__qualname__.removesuffix(".__init__")
    given = inspect.signature(function).parameters.values()
    parameters = [p.replace(annotation=p.empty) for p in given if p.name not in ("self", "cls")]
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown = [name for name in keywords if name not in known]
    if unknown:
        return UnknownName("argument", unknown[0], known, f"{called}()")
    reason, _, missing = str(error).partition("() ")[2].partition(": ")
    if missing:
        reason = f"misses {missing}"
    elif "multiple values" not in reason:  # Python's own words count self
        reason = "was given more arguments by position than it takes"
    return UsageError(f"{called}() {reason}. Call it as {called}{inspect.Signature(parameters)}.")
