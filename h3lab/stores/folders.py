"""Folders: the files of a local folder, which appear whole, are claimed by one process and held by their readers.

It knows links, renames, locks and full disks; it does not know what the files mean.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import secrets
from contextlib import suppress
from pathlib import Path

from h3lab.errors import DamagedData, StorageError
from h3lab.home import replace_file

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Folder:
    """``stores.states.Files`` of a folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.place = path, str(path)

    def listing(self, folder: str = "") -> dict[str, int]:
        """See ``Files``."""
        found = {}
        try:
            with os.scandir(self.path / folder) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # removed meanwhile
                        if entry.is_file():
                            found[entry.name] = entry.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise StorageError(f"{self.path / folder} cannot be read: {error}") from error
        return found

    def read(self, name: str) -> bytes:
        """See ``Files``."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError as error:
            raise DamagedData(f"{self.path / name} is missing; prepare the feed again.") from error
        except OSError as error:
            raise StorageError(f"{self.path / name} cannot be read: {error}") from error

    def claim(self, name: str, data: bytes) -> bool:
        """See ``Files``. It is on the disk when this returns."""
        draft = self.path / f".draft.{secrets.token_hex(8)}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            replace_file(draft, data, durable=True)
            # A link, not a rename: it fails where the name is taken, so a manifest never changes.
            os.link(draft, self.path / name)
            sync(self.path)
        except FileExistsError:
            return False
        except OSError as error:
            raise refused(error, self.path, len(data)) from error
        finally:
            with suppress(OSError):
                draft.unlink()
        return True

    def remove(self, name: str) -> None:
        """See ``Files``."""
        (self.path / name).unlink(missing_ok=True)

    def hold(self, name: str) -> Hold | None:
        """Keep a manifest, and so what it names, from being removed as long as what is returned lives. None where it is
        gone."""
        with suppress(FileNotFoundError):
            held = Hold(self.path / name)
            if held.there:
                return held
        return None

    def retire(self, name: str) -> bool:
        """See ``Files``."""
        try:
            descriptor = os.open(self.path / name, os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.remove(name)  # while it is locked: who comes later sees that it has no name any more
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True


class Hold:
    """A shared lock on a file. One descriptor for all parts of a feed, however many; the lock ends with its process."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    @property
    def there(self) -> bool:
        """Whether the file still has a name."""
        return os.fstat(self._descriptor).st_nlink > 0

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            os.close(self._descriptor)


def allow_open(count: int) -> None:
    """Let this process have so many files open, as far as it may: a map keeps its file open, and the usual limit of
    1,024 is less than the arrays of 400 parts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if count > soft // 4:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def too_many(error: OSError, place: str) -> StorageError | None:
    """What is said where a process may not open one more file; None of another error."""
    if error.errno not in (errno.EMFILE, errno.ENFILE):
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return StorageError(
        f"{place} cannot be read: this process may have {soft:,} files open at a time. Allow it more (ulimit -n), or "
        "prepare from fewer, larger parts."
    )


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refused(error: OSError, folder: Path, wanted: int) -> StorageError:
    """A write that failed, in words."""
    if error.errno in _FULL:
        free = "" if not folder.exists() else f", {_free(folder):,} are free"
        return StorageError(
            f"the disk of {folder} is full (or a limit is reached): {wanted:,} bytes were wanted{free}. "
            "What was stored before is still usable. Free some space, or prepare to another folder."
        )
    return StorageError(f"{folder} cannot be written: {error}")


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
