"""Ahead: threads fetch the rows that an order needs next while those before them are used.

It knows an order and its windows; it does not know batches, nor where rows are fetched from.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Sequence

import numpy as np

from h3lab.feeds.rows import Runs

#: Rows between two that are needed are fetched with them where they are fewer bytes than this: one long read is
#: quicker than two short ones.
GAP_BYTES = 1 << 18
#: Runs of a window that are fetched at once: a store far away lets each wait, and more of them would cost memory.
AT_ONCE = 3


class Ahead:
    """The rows of one order, (rows,) positions, from row ``begin`` of it on. While those of a ``window`` are used those
    of the next ``depth`` ones are fetched. ``scarce``: memory does not hold all, so used windows are given back."""

    def __init__(
        self, runs: Runs, order: np.ndarray, window: int, begin: int = 0, depth: int = 1, scarce: bool = False
    ) -> None:
        self._runs, self._order, self._window, self._begin, self._depth = runs, order, window, begin, depth
        self._scarce = scarce
        self._gap = max(1, GAP_BYTES * len(runs.rows) // max(1, runs.rows.nbytes))
        # Windows begin where they did for whoever came from the start: those of the order have blocks of their own.
        self._asked = self._there = begin // window
        self._due: deque[_Fetching] = deque()

    def until(self, count: int) -> None:
        """Return when the first ``count`` rows of the order are there. Raises what fetching them raised."""
        needed = -(-count // self._window)
        while self._asked < needed + self._depth and self._asked * self._window < len(self._order):
            over = self._cut(self._asked - self._depth - 1) if self._scarce else []
            self._due.append(_Fetching(self._runs, self._cut(self._asked), over))
            self._asked += 1
        while self._there < needed and self._due:
            self._due.popleft().finish()
            self._there += 1

    def _cut(self, window: int) -> list[tuple[int, int, int]]:
        """(part, begin, end) of the runs that hold the rows of a window."""
        low, high = max(window * self._window, self._begin), (window + 1) * self._window
        if high <= low:
            return []
        rows, starts = np.sort(self._order[low:high]), self._runs.rows.starts
        parts = np.searchsorted(starts, rows, "right") - 1
        apart = (np.diff(rows) > self._gap) | (np.diff(parts) > 0)
        firsts = np.concatenate([[0], np.flatnonzero(apart) + 1])
        lasts = np.concatenate([firsts[1:] - 1, [len(rows) - 1]])
        part = parts[firsts]
        begins, ends = rows[firsts] - starts[part], rows[lasts] - starts[part] + 1
        return list(zip(part.tolist(), begins.tolist(), ends.tolist(), strict=True))

    def close(self) -> None:
        """Fetch no more; runs that are being fetched are waited for."""
        for fetching in self._due:
            fetching.left.set()
        for fetching in self._due:
            fetching.join()


class _Fetching:
    """The runs of one window, with threads of its own, so that an epoch that was left in the middle keeps none. Runs
    that are ``over`` make room before."""

    def __init__(self, runs: Runs, cut: Sequence[tuple[int, int, int]], over: Sequence[tuple[int, int, int]]) -> None:
        self._does = runs
        # The iterator of a list gives each thread another run.
        self._runs, self._over = iter(cut), iter(over)
        self._error: Exception | None = None
        self.left = threading.Event()
        count = min(AT_ONCE, len(cut))
        self._threads = [threading.Thread(target=self._run, name="h3lab-ahead", daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        try:
            for run in self._runs:
                if self.left.is_set():
                    return
                for used in itertools.islice(self._over, 1):
                    self._does.release(*used)
                self._does.fetch(*run)
        except Exception as error:  # raised where the rows are due
            self._error = error

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def finish(self) -> None:
        self.join()
        if self._error is not None:
            raise self._error
