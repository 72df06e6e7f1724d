"""Objects: the files of a URL, through fsspec; whole or not there, claimed by one process.

It knows what kinds of file systems promise; it does not know what the files mean.
"""

from __future__ import annotations

import errno
import secrets
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any, TypeVar

from h3lab import servers
from h3lab.errors import DamagedData, H3labError, StorageError, redacted
from h3lab.servers import patiently
from h3lab.urls import reached, server

Answer = TypeVar("Answer")

#: Where a file comes into being whole, once its last byte has come, and can be made on condition that there is none.
_STORES = {"s3", "s3a", "gs", "gcs", "memory"}
#: In memory that is for this process to see to.
_memory = threading.Lock()
#: What a store of objects answers that cannot make a file on condition.
_UNKNOWN = {errno.ENOSYS, errno.EINVAL}


class Objects:
    """``stores.states.Files`` of a URL. A name is claimed by one process alone on S3 and GCS (a conditional write) and
    on HDFS (a rename onto a name that is there is refused); elsewhere it is looked for first, and two that come within
    the same moment may both find it free."""

    def __init__(self, url: str) -> None:
        self.url, self.place = url, redacted(url)

    @property
    def _system(self) -> Any:
        return reached(self.url)[0]

    def _path(self, *names: str) -> str:
        return "/".join([reached(self.url)[1].rstrip("/"), *filter(None, names)])

    def listing(self, folder: str = "") -> dict[str, int]:
        """See ``Files``."""
        found = self._asked("be reached", partial(self._list, self._path(folder)))
        return {str(one["name"]).rstrip("/").rpartition("/")[2]: int(one["size"] or 0) for one in found}

    def _list(self, path: str) -> list[dict[str, Any]]:
        system = self._system
        system.invalidate_cache()  # another process may have written
        try:
            return list(system.ls(path, detail=True))
        except FileNotFoundError as error:
            if servers.no_bucket(error):  # which makedirs would create, under a name that may be misspelt
                bucket = self._path().partition("/")[0]
                raise StorageError(
                    f"there is no bucket {bucket!r} for {self.place}. Create it first, if its name is right."
                ) from error
            return []

    def read(self, name: str) -> bytes:
        """See ``Files``."""

        def get() -> bytes:
            try:
                return bytes(self._system.cat_file(self._path(name)))
            except FileNotFoundError as error:
                raise DamagedData(f"{self.place}/{name} is missing; prepare the feed again.") from error

        return self._asked("be reached", get)

    def put(self, name: str, data: bytes) -> None:
        """Write a file of a name that nobody else writes, ever: until it is whole nobody may be told of it."""

        def put() -> None:
            self._system.makedirs(self._path(name.rpartition("/")[0]), exist_ok=True)
            self._system.pipe_file(self._path(name), data)

        self._asked("be written", put, len(data))

    def claim(self, name: str, data: bytes) -> bool:
        """See ``Files``. ``data`` differs from what others would write there, so who asks twice knows it again."""

        def claim() -> None:
            self._system.makedirs(self._path(name.rpartition("/")[0]), exist_ok=True)
            make = self._create if _STORES & {*_protocols(self._system)} else self._rename
            make(self._path(name), data)

        self._asked("be written", claim, len(data))
        try:
            return self.read(name) == data
        except DamagedData:  # it was there, and is gone: its owner's
            return False

    def _create(self, path: str, data: bytes) -> None:
        within: AbstractContextManager[Any] = _memory if "memory" in _protocols(self._system) else nullcontext()
        with within, suppress(FileExistsError):
            try:
                self._system.pipe_file(path, data, mode="create")
            except OSError as error:
                if error.errno not in _UNKNOWN or self._system.exists(path):
                    raise
                self._system.pipe_file(path, data)

    def _rename(self, path: str, data: bytes) -> None:
        system = self._system
        if system.exists(path):
            return
        folder, _, last = path.rpartition("/")
        draft = f"{folder}/.draft.{secrets.token_hex(8)}.{last}"
        system.pipe_file(draft, data)
        try:
            system.mv(draft, path)
        finally:
            if system.exists(draft):
                self._remove(draft)

    def remove(self, name: str) -> None:
        """See ``Files``."""
        self._asked("be tidied", partial(self._remove, self._path(name)))

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._system.rm_file(path)

    def retire(self, name: str) -> bool:
        """See ``Files``. Who reads from far away cannot be seen; two states are kept for them."""
        self.remove(name)
        return True

    def _asked(self, what: str, ask: Callable[[], Answer], wanted: int = 0) -> Answer:
        """What ``ask`` gives. A server that has gone is waited for; what its library raises comes as StorageError."""
        try:
            return patiently(ask, server(self.url))
        except H3labError:
            raise
        except Exception as error:  # each file system raises what its library does: botocore, requests, ...
            wanting = f" ({wanted:,} bytes)" if wanted else ""
            raise StorageError(
                f"{self.place} cannot {what}{wanting} at {server(self.url)}: {servers.said(error)}. "
                f"{servers.advice(error)} What was stored before is still usable."
            ) from servers.shown(error)


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)
