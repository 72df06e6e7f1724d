"""Checks: whether the bytes of a file are those that were written, of all of it or of a stretch, once in a process.

It knows bytes and their sums; it does not know what they mean.
"""

from __future__ import annotations

import base64
import mmap
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from h3lab.errors import DamagedData
from h3lab.stores.states import DAMAGED

#: Bytes with a sum of their own. A run of rows is checked without the rest of its file, so it is small against a run
#: of a shuffle in blocks (a megabyte, ``feeds.orders``); 100 GB have 400,000 sums, 2 MB in a manifest.
STRETCH = 1 << 18

_known: dict[tuple[str, int, int], Checked] = {}


def sums(data: memoryview) -> str:
    """The CRC-32 of each stretch, little-endian, in base 64."""
    found = [zlib.crc32(data[start : start + STRETCH]) for start in range(0, len(data), STRETCH)]
    return base64.b64encode(np.array(found, "<u4").tobytes()).decode()


def known(path: Path, found: os.stat_result, wanted: str) -> Checked:
    """What this process has checked of a file; a file that has changed since is another one."""
    key = (str(path), found.st_size, found.st_mtime_ns)
    return _known.setdefault(key, Checked(path, found.st_size, wanted)) if key not in _known else _known[key]


class Checked:
    """A file of ``size`` bytes with the sums that it should have. Threads may check at once: they agree."""

    def __init__(self, path: Path, size: int, wanted: str) -> None:
        self.path, self.size = path, size
        self._sums = np.frombuffer(base64.b64decode(wanted), "<u4")
        self._open = np.ones(len(self._sums), bool)

    def check(self, mapped: memoryview) -> None:
        """DamagedData where a stretch that was not checked yet has other bytes than were written."""
        for number in np.flatnonzero(self._open).tolist():
            self._one(number, mapped[number * STRETCH : (number + 1) * STRETCH])

    def fetch(self, start: int, stop: int) -> None:
        """Bring bytes into memory and check those that were not; the rest of the file is left alone."""
        stop = min(stop, self.size)
        if start >= stop:
            return
        with open(self.path, "rb", buffering=0) as file:
            first, last = start // STRETCH, -(-stop // STRETCH)
            if not self._open[first:last].any():
                _advise(file.fileno(), start, stop)
                return
            for number, stretch in _stretches(file.fileno(), first, last):
                self._one(number, stretch)

    def release(self, array: np.ndarray, start: int, stop: int) -> None:
        """Take bytes out of memory, whose map ``array`` is; what another process has mapped stays. Left to itself the
        kernel keeps what was used, which is not used again in an epoch, and drops what was fetched for the next window
        (a tenth of the speed, in a container of a third of the feed)."""
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, stop // mmap.PAGESIZE * mmap.PAGESIZE
        mapped = _map_of(array)
        if mapped is not None and last > first and sys.platform == "linux":
            mapped.madvise(mmap.MADV_DONTNEED, first, last - first)
            with open(self.path, "rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), first, last - first, os.POSIX_FADV_DONTNEED)

    def _one(self, number: int, stretch: memoryview) -> None:
        if self._open[number] and zlib.crc32(stretch) != self._sums[number]:
            with suppress(OSError):  # who may only read cannot leave it to be seen
                self.path.with_name(self.path.name + DAMAGED).touch()
            raise DamagedData(f"{self.path} is damaged: its bytes are not those that were written. Prepare again.")
        self._open[number] = False


def _stretches(descriptor: int, first: int, last: int) -> Iterator[tuple[int, memoryview]]:
    """Read, not mapped: a map on a file that has been cut short ends the process."""
    room = memoryview(bytearray(STRETCH))
    _advise(descriptor, first * STRETCH, last * STRETCH)
    for number in range(first, last):
        yield number, room[: os.preadv(descriptor, [room], number * STRETCH)]


def _advise(descriptor: int, start: int, stop: int) -> None:
    """Have the kernel read these bytes, and not what follows them, of which it would read some megabytes too."""
    if sys.platform == "linux":
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        os.posix_fadvise(descriptor, start, stop - start, os.POSIX_FADV_WILLNEED)


def scatter(mapped: mmap.mmap) -> None:
    """Say that rows of a map are read in no order: a fault then reads a page. Otherwise it reads as much as the disk's
    setting says, 128 KB here, 8 MB there, all but a row of it in vain. What is read in order is fetched ahead."""
    if sys.platform == "linux":
        mapped.madvise(mmap.MADV_RANDOM)


def _map_of(array: Any) -> mmap.mmap | None:
    """The map that an array looks on; None of a copy."""
    while isinstance(array, np.ndarray):
        array = array.base
    found = array.obj if isinstance(array, memoryview) else array
    return found if isinstance(found, mmap.mmap) else None
