"""A run's folder read on from where the last look ended, and the curves of the run before it.

It knows the folder and its journal; it does not know threads or views.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from h3lab.running import journal
from h3lab.running.folder import RunFolder
from h3lab.ui.columns import Columns, Series, binned, smoothed

#: How much is read at once: a long journal as a whole would be a gigabyte of dicts.
CHUNK = 4 << 20

Coarse = dict[str, dict[str, list[float | None]]]


class FolderReading:
    """An Origin that is a folder; a look costs a few ``stat`` calls where nothing has changed."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.name, self.info = folder, folder.name, folder.info
        self._cursor = journal.Cursor()
        self._seen: tuple[int, ...] = ()

    @property
    def state(self) -> dict[str, Any]:
        """As it stands in the folder."""
        return self.folder.state

    def look(self) -> tuple[dict[str, Any], Iterator[journal.News]] | None:
        """See Origin; FileNotFoundError where the run was deleted."""
        # The state is read before the journal: a rank writes its last records, then its end, so that an end seen
        # here means that the records read afterwards are all there are.
        stamps = self._stamps()
        if stamps == self._seen:
            return None
        if not self.folder.path.exists():
            raise FileNotFoundError(f"the run was deleted; its folder was {self.folder.path}")
        return self.folder.state, self._news(stamps)

    def _news(self, stamps: tuple[int, ...]) -> Iterator[journal.News]:
        while news := journal.read(self.folder.journal, self._cursor, CHUNK):
            self._cursor = news.cursor
            yield news
        self._cursor = news.cursor
        self._seen = stamps  # only now: a look that failed half-way is taken again

    def _stamps(self) -> tuple[int, ...]:
        """What changes when there is something to read: sizes and times of the files that grow or are replaced."""
        paths = [self.folder.path / "state.json", self.folder.journal]
        if self._cursor.attempt:
            paths.append(self.folder.journal / f"{self._cursor.attempt:04d}.jsonl")
        return tuple(stamp for path in paths for stamp in _stamp(path))


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (status.st_size, status.st_mtime_ns)


def read_columns(folder: RunFolder) -> Columns:
    """The curves of a run as they are now, read here and at once."""
    columns, cursor = Columns(), journal.Cursor()
    while news := journal.read(folder.journal, cursor, CHUNK):
        if news.drop_from is not None:
            columns.drop_from(news.drop_from)
        columns.extend(news.records)
        cursor = news.cursor
    return columns


def earlier(folder: RunFolder) -> tuple[str, Coarse] | None:
    """The name and the coarse curves of the run of the same name before this one that has any; None without one."""
    numbers = sorted((int(p.name) for p in folder.path.parent.iterdir() if p.name.isdigit()), reverse=True)
    for number in numbers:
        if number < int(folder.path.name):
            other = RunFolder(folder.path.parent / str(number))
            columns = read_columns(other)
            if any(columns.sizes().values()):
                return other.name, coarse(columns)
    return None


def coarse(columns: Columns) -> Coarse:
    """Curves as a dashed line needs them, ready for JSON."""
    return {name: _points(name, columns[name]) for name in columns}


def _points(name: str, series: Series) -> dict[str, list[float | None]]:
    steps, values = binned(series)
    values = values if name.startswith("val_") else smoothed(values)
    return {"x": steps.tolist(), "y": [float(value) if np.isfinite(value) else None for value in values]}
