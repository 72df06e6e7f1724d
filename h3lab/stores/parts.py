"""Parts of a manifest, as a sequence that opens each when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from h3lab.batch import Batch


class Parts(Sequence[Batch]):
    """The parts of a manifest, opened once each by ``read`` and kept. ``hold``: what keeps their files."""

    def __init__(
        self, read: Callable[[Mapping[str, Any]], Batch], entries: Sequence[Mapping[str, Any]], hold: Any = None
    ) -> None:
        self._read, self._entries, self._hold = read, entries, hold
        self._open: dict[int, Batch] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, number: Any) -> Any:
        if number not in self._open:
            self._open[number] = self._read(self._entries[number])
        return self._open[number]
