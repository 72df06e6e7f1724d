"""Runs: rows of parts in files that are fetched, checked and given back a run at a time.

It knows which bytes of which files a run of rows is; it does not know who asks for it when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from h3lab.batch import Batch
from h3lab.feeds.rows import Rows, columns, is_sparse
from h3lab.stores.checks import Checked


class FileRuns:
    """The runs of ``rows``, whose parts are maps of the files in ``entries``; ``file`` finds what is known of one."""

    def __init__(
        self, rows: Rows, entries: Sequence[Mapping[str, Any]], file: Callable[[Mapping[str, Any]], Checked]
    ) -> None:
        self._rows, self._entries, self._file = rows, entries, file

    def fetch(self, number: int, begin: int, end: int) -> None:
        """Read and check a run of a part's rows, so that they lie in memory when they are gathered."""
        for file, _, start, stop in self._stretches(number, begin, end):
            file.fetch(start, stop)

    def release(self, number: int, begin: int, end: int) -> None:
        """Give back the memory of a run; whoever needs it again reads it again."""
        for file, mapped, start, stop in self._stretches(number, begin, end):
            file.release(mapped, start, stop)

    def _stretches(self, number: int, begin: int, end: int) -> Iterator[tuple[Checked, np.ndarray, int, int]]:
        """(file, its map, first byte, byte behind the last) of each array."""
        part: Batch = self._rows.parts[number]
        for name, column in columns(part).items():
            files, first, last = dict(self._entries[number]["arrays"][name]["files"]), begin, end
            if is_sparse(column):
                del files["indptr"]  # rows cannot be found without it, so it was checked when it was opened
                first, last = column.indptr[[begin, end]].tolist()
            for piece, file in files.items():
                each = file["size"] // max(1, file["shape"][0])
                mapped = getattr(column, piece) if is_sparse(column) else column
                yield self._file(file), mapped, first * each, last * each
