"""Turns: one process at a time prepares into a place, wherever it runs; everybody else is refused, and told who it is.

Two that prepare at once would remove each other's parts as nobody's, or mix two sets. A folder's turn is a lock of the
operating system, which ends with its process. At a URL it is a lease beside it: a file that says who and until when,
renewed while its owner lives. It knows files; it does not know what is prepared.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import socket
import threading
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from h3lab.errors import DamagedData, H3labError, StorageError
from h3lab.home import lock_file, room
from h3lab.stores.states import Files

#: How long a lease holds unless it is renewed, and how often it is. Clocks may differ by the rest of it.
LEASE_SECONDS, RENEW_SECONDS = 120.0, 20.0
_NAME = ".lease-"


class Turn(ABC):
    """``with turn:`` waits for nobody: StorageError says who prepares there, and since when."""

    #: Whether it is this object's turn.
    held = False

    @abstractmethod
    def _take(self) -> None: ...

    @abstractmethod
    def _leave(self, error: object) -> None: ...

    @abstractmethod
    def confirm(self) -> None:
        """StorageError where it is no longer this process's turn."""

    def __enter__(self) -> Turn:
        self._take()
        self.held = True
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.held = False
        self._leave(error)

    def also(self) -> AbstractContextManager[Any]:
        """The same where it may be this object's turn already."""
        return nullcontext(self) if self.held else self


class FolderTurn(Turn):
    """The turn of a folder, made where it is missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = -1

    def _take(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StorageError(
                f"{self.folder} is no folder to write to ({error.strerror}). Give another one."
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(self._lock, _signature())
        except OSError as error:
            told = _told(_read(self._lock))
            os.close(self._lock)
            if not isinstance(error, BlockingIOError):
                raise StorageError(f"{self.folder} cannot be locked ({error.strerror}). Give another one.") from error
            raise _busy(str(self.folder), told, "folder") from error

    def _leave(self, error: object) -> None:
        os.close(self._lock)

    def confirm(self) -> None:
        """See :class:`Turn`. The operating system keeps it."""


class Lease(Turn):
    """The turn of a URL. A lease is a file ``.lease-7``, only ever made, where its number is free, and removed: no
    two processes have one number. The highest number holds. Its owner goes on to the next number in time;
    whoever finds one that has run out takes the next one, and the owner, should it still live, sees that and gives up.

    On the same machine nobody waits for a lease to run out: its owner has locked a file that holds the owner's name."""

    def __init__(self, files: Files, url: str) -> None:
        self._files, self._url = files, url
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._lock, self._number = -1, 0
        self._told: dict[str, Any] = {}
        self._lost = ""

    def _take(self) -> None:
        path = room("locks") / f"turn-{hashlib.sha256(self._url.encode()).hexdigest()[:32]}"
        lock = lock_file(path)
        if lock is None:
            raise _busy(self._files.place, self._newest()[1], "URL")
        try:
            before = _told(_read(lock)).get("owner")
            self._told, self._lost = _signature(), ""
            _write(lock, self._told)
            self._first(before)
        except BaseException:
            os.close(lock)
            raise
        self._lock, self._over = lock, threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="h3lab lease", daemon=True)
        self._renewing.start()

    def _first(self, before: str | None) -> None:
        """Make a lease. ``before``: who has had the lock of this machine, and has it no longer."""
        number, told = self._newest()
        alive = told.get("until", 0.0) > time.time() and told.get("owner") != before
        if alive or not self._make(number + 1):
            raise _busy(self._files.place, told if alive else self._newest()[1], "URL")

    def _make(self, number: int) -> bool:
        """Make the lease of a number, and remove those before it; False where another process holds one."""
        data = json.dumps(self._told | {"until": time.time() + LEASE_SECONDS}).encode()
        if not self._files.claim(f"{_NAME}{number}", data):
            return False
        self._number = number
        numbers = self._numbers()
        if numbers[-1:] != [number]:  # whoever took one that had run out has gone on meanwhile
            self._files.remove(f"{_NAME}{number}")
            return False
        for old in numbers[:-1]:
            self._files.remove(f"{_NAME}{old}")
        return True

    def confirm(self) -> None:
        """See :class:`Turn`."""
        with self._guard:
            if not self._lost and (self._number not in self._numbers() or not self._make(self._number + 1)):
                self._lost = (
                    f"this preparation into {self._files.place} was cut off for more than {LEASE_SECONDS:.0f} s, and "
                    f"another one has begun there: {_who(self._newest()[1])}. Nothing of it was made current. Prepare "
                    "again when the other one has ended."
                )
            if self._lost:
                raise StorageError(self._lost)

    def _renew(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            with suppress(H3labError):  # a server that is away may be back before the lease runs out
                self.confirm()
            if self._lost:
                return

    def _leave(self, error: object) -> None:
        self._over.set()
        self._renewing.join()
        # A server that has gone was waited for already: the lease runs out, and this machine sees by the lock that its
        # owner has ended.
        if not self._lost and not isinstance(error, StorageError):
            with suppress(StorageError):
                self._files.remove(f"{_NAME}{self._number}")
        os.close(self._lock)

    def _numbers(self) -> list[int]:
        names = [name.removeprefix(_NAME) for name in self._files.listing() if name.startswith(_NAME)]
        return sorted(int(name) for name in names if name.isdigit())

    def _newest(self) -> tuple[int, dict[str, Any]]:
        """The highest number, and what its lease says; nothing where it is gone by then, or unreadable."""
        number = max(self._numbers(), default=0)
        try:
            return number, _told(self._files.read(f"{_NAME}{number}") if number else b"")
        except DamagedData:
            return number, {}


def _signature() -> dict[str, Any]:
    return {"owner": secrets.token_hex(16), "host": socket.gethostname(), "process": os.getpid(), "since": time.time()}


def _told(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, 4096, 0)


def _write(descriptor: int, told: dict[str, Any]) -> None:
    data = json.dumps(told).encode()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)


def _who(told: dict[str, Any]) -> str:
    if "since" not in told:
        return "another process"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(told["since"]))
    return f"process {told['process']} on {told['host']}, since {since}"


def _busy(place: str, told: dict[str, Any], kind: str) -> StorageError:
    until = ""
    if "until" in told:
        until = f" Should it have died, its lease ends at {time.strftime('%H:%M:%S', time.localtime(told['until']))}."
    who = _who(told).removeprefix("another process")
    return StorageError(
        f"another process is preparing into {place}{' (' * bool(who)}{who}{')' * bool(who)}. Wait until it has ended, "
        f"or give another {kind}.{until}"
    )
