"""One thread a run and kernel that reads on in the run's folder and tells all views what is new.

It knows the folder, the journal and how often to look; what a view does with the news is the view's affair. The thread
ends by itself when the run has ended and everything was read, or when the last view has left.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from h3lab.records import Record
from h3lab.running import journal
from h3lab.running.folder import RunFolder
from h3lab.running.status import line
from h3lab.ui.columns import Columns, Series, binned, smoothed
from h3lab.ui.headline import Speed, ended, headline
from h3lab.ui.marks import Story

#: While somebody watches: a look costs two ``stat`` calls, and finds a flush of the writer while it is fresh.
LOOK_SECONDS = 0.02
#: Reads, and so what the screen shows, are never closer than this.
READ_SECONDS = 0.1
#: While nobody watches: enough for the last picture.
IDLE_SECONDS = 1.0
#: How much is read at once: a long journal as a whole would be a gigabyte of dicts.
CHUNK = 4 << 20

log = logging.getLogger("h3lab.ui")


class Listener(Protocol):
    """A view. Both are called on the follower's thread, with its lock held."""

    @property
    def watching(self) -> bool:
        """Whether news are wanted at once."""
        ...

    def news(self, follower: Follower, drop_from: int | None) -> None:
        """Something changed: first the points with ``step >= drop_from`` were dropped, then others were added."""
        ...


class Follower:
    """What a run's folder says, kept up to date: ``columns``, ``story``, ``state`` and :meth:`head`.

    ``lock`` guards them all.
    """

    def __init__(self, folder: RunFolder, done: Callable[[Follower], None] = lambda follower: None) -> None:
        self.folder = folder
        self.info = folder.info
        self.state = folder.state
        self.complete = False  # it has ended, and everything was read
        self.columns = Columns()
        self.story = Story(self.info.get("values", {}))
        self.last: Record | None = None
        self.trouble = ""
        self.lock = threading.RLock()
        self._speed = Speed()
        self._cursor = journal.Cursor()
        self._listeners: list[Listener] = []
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: tuple[int, ...] = ()
        self._read_at = 0.0
        self._done = done

    def head(self) -> dict[str, Any]:
        """The headline now."""
        head = headline(self.info, self.state, self.columns, self.last, self._speed.rate)
        return {**head, "values": self.story.values, "said": self.story.last, "trouble": self.trouble}

    def line(self) -> str:
        """The same as a line of text."""
        latest = {"epoch": (self.last or {}).get("epoch"), **{name: self.columns.last(name) for name in self.columns}}
        state = {"name": self.folder.name, **self.state, "steps_per_second": self._speed.rate}
        return line(self.info, {**state, **latest, **self.story.values})

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None

    # ---- Views --------------------------------------------------------------------------------------------

    def join(self, listener: Listener) -> None:
        """Add a view; the first one starts the thread."""
        with self.lock:
            self._listeners.append(listener)
            if self._thread is None and not self.complete:
                # The context carries which cell shows the run: whatever this thread sends belongs to that cell, not
                # to the one that happens to run at the time.
                context = contextvars.copy_context()
                self._thread = threading.Thread(
                    target=context.run, args=(self._follow,), name=f"h3lab-follow-{self.folder.name}", daemon=True
                )
                self._thread.start()
        self.hurry()

    def leave(self, listener: Listener) -> None:
        """Remove a view; the thread ends with the last one."""
        with self.lock:
            if listener in self._listeners:
                self._listeners.remove(listener)
        self.hurry()

    def hurry(self) -> None:
        """Look now rather than at the next turn."""
        self._wake.set()

    def catch_up(self) -> None:
        """Read on here and now, and tell the views."""
        with self.lock:
            self._take_in()

    # ---- The thread ---------------------------------------------------------------------------------------

    def _follow(self) -> None:
        while True:
            with self.lock:
                if not self._listeners or self._take_in():
                    self._thread = None
                    break
                watched = any(listener.watching for listener in self._listeners)
            self._wake.wait(self._pause(watched))
            self._wake.clear()
        self._done(self)

    def _pause(self, watched: bool) -> float:
        if self.trouble or not watched:
            return IDLE_SECONDS
        since = time.monotonic() - self._read_at
        return max(LOOK_SECONDS, READ_SECONDS - since)

    def _take_in(self) -> bool:
        """Look once; whether the run has ended and this was the rest."""
        try:
            self.complete = self.complete or self._look()
            return self.complete
        except Exception as error:
            # A folder on a network drive comes back; until then the card says what is wrong, and the thread goes on.
            if not self.trouble:
                log.exception("cannot read %s", self.folder.path)
            self.trouble = f"{type(error).__name__}: {error}"
            self._tell(None)
            return not self.folder.path.exists()

    def _look(self) -> bool:
        # The state is read before the journal: a rank writes its last records, then its end, so that an end seen
        # here means that the records read afterwards are all there are.
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        if not self.folder.path.exists():
            raise FileNotFoundError(f"the run was deleted; its folder was {self.folder.path}")
        over = ended(state := self.folder.state)
        changed, self.state, self.trouble = state != self.state, state, ""
        self._read_at = time.monotonic()
        drop_from, more = None, True
        while more:
            news = journal.read(self.folder.journal, self._cursor, CHUNK)
            more = bool(news)
            changed = changed or more
            self._cursor = news.cursor
            drop_from = self._apply(news, drop_from)
        self._seen = stamps
        if changed or over:
            self._tell(drop_from)
        return over

    def _stamps(self) -> tuple[int, ...]:
        """What changes when there is something to read: sizes and times of the files that grow or are replaced."""
        paths = [self.folder.path / "state.json", self.folder.journal]
        if self._cursor.attempt:
            paths.append(self.folder.journal / f"{self._cursor.attempt:04d}.jsonl")
        return tuple(stamp for path in paths for stamp in _stamp(path))

    def _apply(self, news: journal.News, drop_from: int | None) -> int | None:
        if news.drop_from is not None:
            self.columns.drop_from(news.drop_from)
            drop_from = news.drop_from if drop_from is None else min(drop_from, news.drop_from)
        self.columns.extend(news.records)
        for event in news.events:
            self.story.tell(event)
        if news.records:
            self.last = news.records[-1]
            self._speed.look(self.last.get("seconds", 0.0), self.last["step"])
        return drop_from

    def _tell(self, drop_from: int | None) -> None:
        for listener in list(self._listeners):
            listener.news(self, drop_from)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (status.st_size, status.st_mtime_ns)


_followers: dict[Path, Follower] = {}
_lock = threading.Lock()


def follow(folder: RunFolder) -> Follower:
    """The follower of a run in this process: one, however many views there are."""
    with _lock:
        path = folder.path.resolve()
        if path not in _followers:
            _followers[path] = Follower(RunFolder(path), _forget)
        return _followers[path]


def _forget(follower: Follower) -> None:
    # The views of an ended run keep its curves; a view that comes later reads the folder again.
    with _lock:
        if not follower.alive:
            _followers.pop(follower.folder.path, None)


def read_columns(folder: RunFolder) -> Columns:
    """The curves of a run as they are now, read here and at once."""
    columns, cursor = Columns(), journal.Cursor()
    while news := journal.read(folder.journal, cursor, CHUNK):
        if news.drop_from is not None:
            columns.drop_from(news.drop_from)
        columns.extend(news.records)
        cursor = news.cursor
    return columns


def earlier(folder: RunFolder) -> tuple[str, dict[str, dict[str, list[float | None]]]] | None:
    """The name and the coarse curves of the run of the same name before this one that has any; None without one."""
    numbers = sorted((int(p.name) for p in folder.path.parent.iterdir() if p.name.isdigit()), reverse=True)
    for number in numbers:
        if number < int(folder.path.name):
            other = RunFolder(folder.path.parent / str(number))
            columns = read_columns(other)
            if any(columns.sizes().values()):
                return other.name, {name: _points(name, columns[name]) for name in columns}
    return None


def _points(name: str, series: Series) -> dict[str, list[float | None]]:
    steps, values = binned(series)
    values = values if name.startswith("val_") else smoothed(values)
    return {"x": steps.tolist(), "y": [float(value) if np.isfinite(value) else None for value in values]}
