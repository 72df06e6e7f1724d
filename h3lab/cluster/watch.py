"""A watch on a folder or file: whether it may have changed since it was last looked at, for the price of a stat."""

from __future__ import annotations

import os
import time
from pathlib import Path

#: Younger than this a change may be followed by another one of the same time, so that it is looked at again.
TICK_NANOSECONDS = 100_000_000


class Watch:
    """Ask :attr:`changed` before each look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = (0, 0)

    @property
    def changed(self) -> bool:
        """True at the first time, after a change, and for a while longer, because the clock of a file is coarse.
        FileNotFoundError where there is nothing."""
        found = os.stat(self._path)
        mark = (found.st_mtime_ns, found.st_ino)
        if mark == self._seen and time.time_ns() - found.st_mtime_ns > TICK_NANOSECONDS:
            return False
        self._seen = mark
        return True
