"""Servers: they go away and come back, refuse, and run full. Which error says so, how long a server that has gone is
asked again, and what its user is told.

It knows foreign errors by their names, so that no library is imported to look at one; it does not know what was asked.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from h3lab.errors import H3labError, redacted

Answer = TypeVar("Answer")
log = logging.getLogger("h3lab.servers")

#: How long a server that has gone is asked again, from its first failure on ($H3LAB_RETRY_SECONDS), and how long a
#: server that has been asked may say nothing ($H3LAB_TIMEOUT_SECONDS).
RETRY_SECONDS, TIMEOUT_SECONDS = 60.0, 60.0
#: Between two tries: so long after the first one, twice as long after each other one, at most so long.
_FIRST_SECONDS, _LONGEST_SECONDS = 0.25, 8.0

#: Errors of a connection, by the libraries that raise them.
_GONE = {
    *("builtins.ConnectionError", "builtins.TimeoutError", "http.client.IncompleteRead"),
    *("requests.exceptions.ConnectionError", "requests.exceptions.Timeout", "requests.exceptions.ChunkedEncodingError"),
    *("urllib3.exceptions.HTTPError", "botocore.exceptions.HTTPClientError", "botocore.exceptions.ConnectionError"),
    # An answer that was cut short in its head has no body: no JSON either.
    *("requests.exceptions.JSONDecodeError", "botocore.exceptions.ResponseStreamingError"),
    # Nor has one that was cut short in its body the sum that its head has promised.
    *("botocore.parsers.ResponseParserError", "botocore.exceptions.FlexibleChecksumError"),
    *("aiohttp.client_exceptions.ClientConnectionError", "aiohttp.client_exceptions.ClientPayloadError"),
}
#: Answers of HTTP by which a server asks for patience: too many requests, and what gateways say of one that restarts.
_BUSY = {408, 429, 500, 502, 503, 504}
_BUSY_ERRNO = {errno.EBUSY, errno.EREMOTEIO, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}
#: What a Hadoop says while it starts, or while a data node is away: WebHDFS has one status for this and all else.
_STARTING = re.compile(
    r"in safe ?mode|in state standby|RetriableException|could only be written to 0 of|lease is currently owned"
)
_QUOTA = re.compile(r"quota of .* is exceeded|no space left|disk is full|DiskOutOfSpace|QuotaExceeded", re.I)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_KEYS = {
    f"botocore.exceptions.{kind}Error" for kind in ("NoCredentials", "PartialCredentials", "CredentialRetrieval")
}

#: Of a database: its class of errors, SQLSTATEs of a server that comes or goes or has too many guests, and what servers
#: say of a login, for which drivers have no number.
_DATABASE = "sqlalchemy.exc.DBAPIError"
_GOING_STATES = ("08", "57P01", "57P02", "57P03", "57P05", "53300")
_LOGIN = re.compile(
    r"password|authenticat|(access|permission) denied|pg_hba\.conf|(role|database) .* does not exist", re.I
)

#: Servers that have answered in this process. One that never has is not waited for: its address is wrong.
_met: set[str] = set()


def _seconds(name: str, usual: float) -> float:
    try:
        return max(0.0, float(os.environ.get(name, usual)))
    except ValueError:
        return usual


def retry_seconds() -> float:
    """How long a server that has gone is asked again."""
    return _seconds("H3LAB_RETRY_SECONDS", RETRY_SECONDS)


def timeout_seconds() -> float:
    """How long a server may say nothing."""
    return _seconds("H3LAB_TIMEOUT_SECONDS", TIMEOUT_SECONDS) or TIMEOUT_SECONDS


def patiently(ask: Callable[[], Answer], server: str, passing: Callable[[BaseException], bool] | None = None) -> Answer:
    """What ``ask`` gives. While ``passing`` (:func:`gone` without it) says of its error that the server is away, it is
    asked again, with pauses that grow and differ from process to process; each is logged. The last error is raised.
    ``ask`` must be repeatable. A server that this process has not heard of is not asked again, unless on an engine,
    where whoever began has."""
    passing = passing or gone
    until, tried = None, 0
    while True:
        try:
            answer = ask()
        except Exception as error:
            tried += 1
            if not passing(error):
                if not isinstance(error, H3labError):
                    _met.add(server)  # it has answered
                raise
            known = server in _met or "H3LAB_SLOT" in os.environ
            now = time.monotonic()
            until = until or now + retry_seconds()
            pause = min(_FIRST_SECONDS * 2 ** (tried - 1), _LONGEST_SECONDS) * random.uniform(0.5, 1.0)
            if not known or now + pause > until:
                error.h3lab_tried = tried if known else 0  # type: ignore[attr-defined]
                raise
            left = until - now
            log.warning("%s is away (%s): asked again in %.1f s, for %.0f s", server, said(error), pause, left)
        else:
            _met.add(server)
            return answer
        time.sleep(pause)


def gone(error: BaseException) -> bool:
    """Whether an error says that a server is away or busy, so that asking again may help."""
    names = _names(error)
    if _DATABASE in names:
        return _database_gone(error)
    if _GONE & names or _status(error) in _BUSY or getattr(error, "errno", None) in _BUSY_ERRNO:
        return not isinstance(error, H3labError)
    return isinstance(error, RuntimeError | OSError) and bool(_STARTING.search(said(error)))


def _database_gone(error: Any) -> bool:
    """Drivers have one class of error for a server that went away and for much else."""
    if "sqlalchemy.exc.OperationalError" not in _names(error) and "sqlalchemy.exc.InterfaceError" not in _names(error):
        return bool(error.connection_invalidated)
    if type(error.orig).__module__ == "sqlite3":
        return "locked" in str(error.orig)
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    return str(state).startswith(_GOING_STATES) if state else not refused(error) and not full(error)


def refused(error: BaseException) -> bool:
    """Whether an error says that a server does not take this user, password or key."""
    names = _names(error)
    if _DATABASE in names:
        return bool(_LOGIN.search(said(error)))
    if _status(error) in (401, 403):
        return not full(error) and not _STARTING.search(said(error))
    return isinstance(error, PermissionError) or bool(_NO_KEYS & names)


def full(error: BaseException) -> bool:
    """Whether an error says that there is no space left, or a quota used up."""
    if isinstance(error, FileNotFoundError) or _GONE & _names(error):
        return False  # their words hold paths, which may have any name
    return getattr(error, "errno", None) in _FULL or bool(_QUOTA.search(said(error)))


def _names(error: BaseException) -> set[str]:
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}


def no_bucket(error: BaseException) -> bool:
    """Whether an error says that not only a file, but its whole bucket is not there."""
    return type(error.__cause__).__name__ == "NoSuchBucket"


def advice(error: BaseException) -> str:
    """What to do about it, in sentences."""
    if full(error):
        return "There is no space left, or a quota is used up. Free some space, or choose another place."
    if refused(error):
        return "Look at user, password or key, and at what they may do there; it was not asked again."
    tried = getattr(error, "h3lab_tried", None)
    if tried:
        times = "once" if tried == 1 else f"{tried} times"
        return (
            f"It was asked {times} within {retry_seconds():g} s ($H3LAB_RETRY_SECONDS). Nothing is lost: when it is "
            "back, do the same again, which goes on with what is done."
        )
    return "Is the address right, and is the server running?" if gone(error) else ""


def said(error: BaseException) -> str:
    """What a server or its library said, in one line, without passwords."""
    words = _remote(getattr(error, "response", None)) or str(getattr(error, "orig", None) or error)
    words = words or type(error).__name__
    return redacted(" ".join(words.split())).rstrip(".")


def shown(error: BaseException) -> BaseException | None:
    """An error to be named as the cause of another one; None where it, or what lies behind it, shows a password, which
    a traceback would print."""
    return None if any(redacted(text) != text for text in _texts(error)) else error


def _texts(error: BaseException | None) -> Iterator[str]:
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield str(error)
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):  # botocore's
        answer = answer.get("ResponseMetadata", {})
        return int(answer["HTTPStatusCode"]) if "HTTPStatusCode" in answer else None
    found = getattr(answer, "status_code", getattr(error, "status", None))
    return found if isinstance(found, int) else None


def _remote(answer: Any) -> str | None:
    """The words of Hadoop, which stand in the body; the status alone says ``403 Forbidden`` of a full disk."""
    try:
        return str(answer.json()["RemoteException"]["message"]).splitlines()[0]
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        return None
