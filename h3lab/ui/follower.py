"""One thread a run and kernel that reads on where the run writes and tells all views what is new.

It knows how often to look; where the news come from is its Origin's affair, what a view does with them the view's. The
thread ends by itself when the run has ended and everything was read, or when the last view has left.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from h3lab.records import Record
from h3lab.running import journal
from h3lab.running.folder import RunFolder
from h3lab.running.status import Speed, line
from h3lab.ui.columns import Columns
from h3lab.ui.headline import ended, headline
from h3lab.ui.marks import VERBS, Story
from h3lab.ui.reading import Coarse, FolderReading, coarse

#: While somebody watches: a look costs two ``stat`` calls, and finds a flush of the writer while it is fresh.
LOOK_SECONDS = 0.02
#: Reads, and so what the screen shows, are never closer than this.
READ_SECONDS = 0.1
#: While nobody watches: enough for the last picture.
IDLE_SECONDS = 1.0
#: A loop of this process waits for all that the screen does, here and in the threads that send it: about a millisecond
#: each time.
LOCAL_SECONDS = 0.2
#: Of such a process this thread takes at most so much.
SHARE = 0.01
#: However costly a look was.
LATEST_SECONDS = 1.0

log = logging.getLogger("h3lab.ui")


class Origin(Protocol):
    """Where a run writes: its folder, or the memory of this process (``h3lab.running.local.LocalRun``)."""

    @property
    def name(self) -> str: ...

    @property
    def info(self) -> dict[str, Any]: ...

    @property
    def folder(self) -> RunFolder | None: ...

    @property
    def state(self) -> dict[str, Any]:
        """As it is now."""
        ...

    def look(self) -> tuple[dict[str, Any], Iterable[journal.News]] | None:
        """The state and the news since the last look, in pieces; None where nothing has changed."""
        ...


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
    """What a run says, kept up to date: ``columns``, ``story``, ``state`` and :meth:`head`.

    ``lock`` guards them all.
    """

    def __init__(self, origin: Origin | RunFolder, done: Callable[[Follower], None] = lambda follower: None) -> None:
        self.origin: Origin = origin if not isinstance(origin, RunFolder) else FolderReading(origin)
        self.info = self.origin.info
        self.state = self.origin.state
        self.complete = False  # it has ended, and everything was read
        self.columns = Columns()
        self.story = Story(self.info.get("values", {}), self.info.get("code", VERBS))
        self.last: Record | None = None
        self.trouble = ""
        self.lock = threading.RLock()
        #: Name and coarse curves of the loop of the same name that this process had before.
        self.past = _before.get(self.origin.name) if self.origin.folder is None else None
        self._speed = Speed()
        self._listeners: list[Listener] = []
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._read_at = self._cost = 0.0
        self._done = done

    def head(self) -> dict[str, Any]:
        """The headline now."""
        head = headline(self.info, self.state, self.columns, self.last, self._speed.rate)
        return {**head, "values": self.story.values, "said": self.story.last, "trouble": self.trouble}

    def line(self) -> str:
        """The same as a line of text."""
        last = {name: (self.last or {}).get(name) for name in ("step", "epoch")}
        latest = {**last, **{name: self.columns.last(name) for name in self.columns}}
        state = {"name": self.origin.name, **self.state, "steps_per_second": self._speed.rate}
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
                    target=context.run, args=(self._follow,), name=f"h3lab-follow-{self.origin.name}", daemon=True
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
                began = time.thread_time()
                if not self._listeners or self._take_in():
                    self._thread = None
                    break
                self._cost = time.thread_time() - began
                watched = any(listener.watching for listener in self._listeners)
            self._wake.wait(self._pause(watched))
            self._wake.clear()
        self._done(self)

    def _pause(self, watched: bool) -> float:
        if self.trouble or not watched:
            return IDLE_SECONDS
        since = time.monotonic() - self._read_at
        if self.origin.folder is None:
            return max(LOCAL_SECONDS - since, min(self._cost / SHARE, LATEST_SECONDS))
        return max(LOOK_SECONDS, READ_SECONDS - since)

    def _take_in(self) -> bool:
        """Look once; whether the run has ended and this was the rest."""
        try:
            if not self.complete and self._look():
                self.complete = True
                if self.origin.folder is None:
                    _before[self.origin.name] = ("before", coarse(self.columns))
            return self.complete
        except Exception as error:
            # A folder on a network drive comes back; until then the card says what is wrong, and the thread goes on.
            if not self.trouble:
                log.exception("cannot read %s", self.origin.name)
            self.trouble = f"{type(error).__name__}: {error}"
            self._tell(None)
            return self.origin.folder is None or not self.origin.folder.path.exists()

    def _look(self) -> bool:
        found = self.origin.look()
        if found is None:
            return False
        state, pieces = found
        over = ended(state)
        changed, self.state, self.trouble = state != self.state, state, ""
        self._read_at = time.monotonic()
        drop_from = None
        for news in pieces:
            changed = changed or bool(news)
            drop_from = self._apply(news, drop_from)
        if changed or over:
            self._tell(drop_from)
        return over

    def _apply(self, news: journal.News, drop_from: int | None) -> int | None:
        if news.drop_from is not None:
            self.columns.drop_from(news.drop_from)
            drop_from = news.drop_from if drop_from is None else min(drop_from, news.drop_from)
        self.columns.extend(news.records)
        for event in news.events:
            self.story.tell(event)
        if news.records:
            self.last = news.records[-1]
            self._speed.look(self.last)
        return drop_from

    def _tell(self, drop_from: int | None) -> None:
        for listener in list(self._listeners):
            listener.news(self, drop_from)


_followers: dict[Any, Follower] = {}
_before: dict[str, tuple[str, Coarse]] = {}
_lock = threading.Lock()


def key_of(run: Any) -> Any:
    """What is the same for all views of a run: its folder, or itself where it has none."""
    return run if run.folder is None else run.folder.path.resolve()


def follow(run: Any) -> Follower:
    """The follower of a run (or its folder) in this process: one, however many views there are."""
    with _lock:
        key = run.path.resolve() if isinstance(run, RunFolder) else key_of(run)
        if key not in _followers:
            _followers[key] = Follower(RunFolder(key) if isinstance(key, Path) else run, _forget)
            if not isinstance(key, Path):
                run.drain = _followers[key].catch_up
        return _followers[key]


def _forget(follower: Follower) -> None:
    # The views of an ended run keep its curves; a view that comes later reads the folder again.
    with _lock:
        if not follower.alive:
            _followers.pop(follower.origin if follower.origin.folder is None else follower.origin.folder.path, None)
