"""The journal of a run: JSON lines, one segment an attempt, written by one rank and followed by any number of viewers.

A line is a record (it has ``step``) or an event (it has ``event``). The first line of a segment has ``attempt`` and
``from_step``: an attempt that starts from a snapshot repeats steps, so readers drop older records from that step on.
Readable without h3lab; nothing here knows what a metric means.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from h3lab import records
from h3lab.records import Record

FLUSH_SECONDS = 0.1
EVENT = b'{"event"'


class Writer:
    """Appends to one segment. A record is on disk at most ``FLUSH_SECONDS`` and one step after it was made; an event
    at once."""

    def __init__(self, folder: Path, attempt: int, from_step: int) -> None:
        folder.mkdir(exist_ok=True)
        # "x": a second writer of the same attempt would interleave lines; it must fail instead.
        self._file = open(folder / f"{attempt:04d}.jsonl", "xb", buffering=0)
        self._lines: list[str] = []
        self._unwritten = b""
        self._flushed = 0.0
        self.size = 0
        self.event("attempt", attempt=attempt, from_step=from_step)

    def record(self, record: Mapping[str, Any]) -> None:
        """Append a record of a step."""
        self._lines.append(records.encode(record))
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def event(self, event: str, **values: Any) -> None:
        """Append what happened between two steps: ``set``, ``pause``, ``resume``, ``snapshot``, ``end``, ..."""
        self._lines.append(records.encode({"event": event, **values, "at": time.time()}))
        self.flush()

    def flush(self) -> None:
        """Hand all lines to the operating system in one write."""
        if self._lines:
            self._unwritten += ("\n".join(self._lines) + "\n").encode()
            self._lines.clear()
        # An unbuffered file may write a part. On a full disk the rest stays here, so that a later flush goes on within
        # the line that was begun.
        while self._unwritten:
            written = self._file.write(self._unwritten) or 0
            self.size += written
            self._unwritten = self._unwritten[written:]
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close; twice is fine."""
        if not self._file.closed:
            self.flush()
            self._file.close()


@dataclass(frozen=True)
class Cursor:
    """A viewer's place: ``attempt`` and the byte offset after the last whole line seen in its segment."""

    attempt: int = 0
    offset: int = 0


@dataclass
class News:
    """What a viewer has not seen yet. Apply in order: drop the records with ``step >= drop_from`` (None: none), then
    append ``records``. ``events`` are in order too."""

    records: list[Record] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    drop_from: int | None = None
    cursor: Cursor = Cursor()

    def __bool__(self) -> bool:
        return bool(self.records or self.events)


def read(folder: Path, cursor: Cursor = Cursor(), limit: int = -1) -> News:
    """All whole lines after ``cursor``; the news' own cursor continues from there. With a ``limit`` at most so many
    bytes of one segment are read: as long as the news are true there may be more."""
    news = News(cursor=cursor)
    for path in sorted(folder.glob("*.jsonl")):
        attempt = int(path.stem)
        if attempt < cursor.attempt:
            continue
        offset = cursor.offset if attempt == cursor.attempt else 0
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(limit)
        end = data.rfind(b"\n") + 1
        for value in records.decode_lines(data[:end]):
            _apply(value, news)
        if end or attempt > cursor.attempt:
            news.cursor = Cursor(attempt, offset + end)
        if len(data) == limit:
            break
    return news


def _apply(value: Record, news: News) -> None:
    if "event" not in value:
        news.records.append(value)
        return
    if value["event"] == "attempt":
        start = value["from_step"]
        news.records = [record for record in news.records if record["step"] < start]
        if news.drop_from is None or start < news.drop_from:
            news.drop_from = start
    news.events.append(value)


class Reader:
    """Follows a journal and keeps its merged records: :meth:`poll`, then look at ``records`` and ``events``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cursor = Cursor()
        self.records: list[Record] = []
        self.events: list[dict[str, Any]] = []

    def poll(self) -> News:
        """Read on; what is new is returned and already merged here."""
        news = read(self.folder, self.cursor)
        if news.drop_from is not None:
            while self.records and self.records[-1]["step"] >= news.drop_from:
                self.records.pop()
        self.records += news.records
        self.events += news.events
        self.cursor = news.cursor
        return news


def last_step(folder: Path) -> int:
    """The last step that a journal has, 0 for none."""
    reader = Reader(folder)
    reader.poll()
    return int(reader.records[-1]["step"]) if reader.records else 0


def newest(folder: Path, size: int = 1 << 16) -> Record:
    """The last record, and what was last measured on held-out rows before it, from the last ``size`` bytes of the
    newest segment that has a record: for a table of hundreds of runs, each with a journal of megabytes."""
    for path in sorted(folder.glob("*.jsonl"), reverse=True):
        with open(path, "rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - size)
            file.seek(start)
            data = file.read()
        whole = data[data.find(b"\n") + 1 if start else 0 : data.rfind(b"\n") + 1]
        last = next((line for line in _backwards(whole) if not line.startswith(EVENT)), None)
        if last is not None:
            return {**_held_out(whole), **records.decode(last)}
    return {}


def _backwards(data: bytes) -> Iterator[bytes]:
    end = len(data)
    while end:
        start = data.rfind(b"\n", 0, end - 1) + 1
        yield data[start:end]
        end = start


def _held_out(data: bytes) -> Record:
    at = data.rfind(b'"val_')
    while at >= 0:
        start = data.rfind(b"\n", 0, at) + 1
        line = data[start : data.find(b"\n", at)]
        if not line.startswith(EVENT):
            return {name: value for name, value in records.decode(line).items() if name.startswith("val_")}
        at = data.rfind(b'"val_', 0, start)
    return {}
