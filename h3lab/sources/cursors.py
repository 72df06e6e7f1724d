"""Cursors: rows by number out of what can only be read from its beginning (compressed text, huge row groups).

A process that reads pieces in order keeps its place between them, so that a file is read once, not once a piece.
"""

from __future__ import annotations

import atexit
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING

from h3lab.errors import DamagedData

if TYPE_CHECKING:
    import pyarrow as pa

_KEPT = 2
_cursors: OrderedDict[Hashable, _Cursor] = OrderedDict()
_lock = threading.Lock()
# Before Python goes: Arrow reads ahead in threads of its own, which abort a process that has lost its files.
atexit.register(_cursors.clear)


class _Cursor:
    """A place in a stream of record batches."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self.batches, self.at, self.rest = batches, 0, None

    def take(self, start: int, stop: int) -> list[pa.RecordBatch]:
        """Rows ``start`` to ``stop``, skipping what lies before."""
        found = []
        while self.at < stop:
            batch = self.rest if self.rest is not None else next(self.batches, None)
            self.rest = None
            if batch is None:
                raise DamagedData(f"it ends after {self.at} rows, row {stop} was there before; it has changed")
            low, high = max(start - self.at, 0), min(stop - self.at, len(batch))
            if low < high:
                found.append(batch.slice(low, high - low))
            self.at += min(high, len(batch))
            if high < len(batch):
                self.rest = batch.slice(high)
        return found


def take(key: Hashable, stream: Callable[[], Iterator[pa.RecordBatch]], start: int, stop: int) -> list[pa.RecordBatch]:
    """Rows ``start`` to ``stop`` of a stream; ``key`` tells it from others, and changes when its file does."""
    with _lock:
        cursor = _cursors.pop(key, None)
    if cursor is None or cursor.at > start:
        cursor = _Cursor(stream())
    found = cursor.take(start, stop)
    with _lock:
        _cursors[key] = cursor
        while len(_cursors) > _KEPT:
            _cursors.popitem(last=False)
    return found
