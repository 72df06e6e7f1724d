"""Lines: where a text file can be cut, found by one pass over its bytes.

It knows line ends, quotes and blank lines; it does not know columns or types.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from h3lab.source import PART_ROWS
from h3lab.sources.places import File

#: Bytes of a piece, at most by one record: text is decoded to about as much again.
PIECE_BYTES = 16 << 20
_CHUNK = 8 << 20
_NEWLINE, _RETURN, _QUOTE = 10, 13, 34


@dataclass
class Cuts:
    """Pieces as (first byte, last byte, rows, digest), and what makes them doubtful: line ends inside quotes
    (``quoted``), which may also be stray quotes, and carriage returns of their own (``returns``)."""

    pieces: list[tuple[int, int, int, str]] = field(default_factory=list)
    quoted: bool = False
    returns: bool = False


def cuts(file: File, *, header: bool, quotes: bool) -> Cuts:
    """Pieces of whole records, of ``PART_ROWS`` rows or ``PIECE_BYTES``, whichever comes first; they are counted from
    the file's beginning, so that a file that grows keeps its first pieces. Blank lines are no rows."""
    found = Cuts()
    scan = _Scan(header)
    inside = 0  # quotes so far: odd inside a quoted field
    for base, chunk in _chunks(file):
        data = np.frombuffer(chunk, np.uint8)
        ends = np.flatnonzero(data == _NEWLINE)
        if quotes and (marks := np.flatnonzero(data == _QUOTE)).size:
            odd = (np.searchsorted(marks, ends) + inside) % 2 == 1
            inside += marks.size
        else:
            odd = np.full(ends.size, inside % 2 == 1)
        if odd.any():
            found.quoted = True
            ends = ends[~odd]
        if b"\r" in chunk:
            returns = np.flatnonzero(data == _RETURN)
            following = np.append(data, _NEWLINE)[
                returns + 1
            ]  # a return at a chunk's end gets the benefit of the doubt
            found.returns |= bool((following != _NEWLINE).any())
        scan.add(base, chunk, data, ends, found)
    scan.finish(found)
    return found


def _chunks(file: File) -> Iterator[tuple[int, bytes]]:
    with file.open() as source:
        base = 0
        while chunk := source.read(_CHUNK):
            yield base, chunk
            base += len(chunk)


class _Scan:
    """The piece that is being filled."""

    def __init__(self, header: bool) -> None:
        self.header = header  # whether the first record is still to come, which is no row
        self.first, self.rows = 0, 0
        self.end = 0  # of the last record
        self.size = 0  # bytes seen
        self.before = 0  # the byte before this chunk
        self.digest = hashlib.sha1(usedforsecurity=False)

    def add(self, base: int, chunk: bytes, data: np.ndarray, ends: np.ndarray, found: Cuts) -> None:
        lengths = np.diff(ends + base + 1, prepend=self.end)
        previous = np.where(ends > 0, data[np.maximum(ends - 1, 0)], self.before)
        counts = ~((lengths == 1) | ((lengths == 2) & (previous == _RETURN)))
        if self.header and counts.any():
            at = int(np.argmax(counts))
            counts[at], self.header = False, False
            self.first = int(ends[at]) + base + 1
        rows = np.cumsum(counts)
        done, taken = 0, 0
        while ends.size:
            full = int(np.searchsorted(rows, done + PART_ROWS - self.rows))
            large = int(np.searchsorted(ends, self.first + PIECE_BYTES - base - 1))
            at = min(full, large)
            if at >= ends.size or self.header:
                break
            stop = int(ends[at]) + 1
            self.digest.update(memoryview(chunk)[taken:stop])
            self.rows += int(rows[at]) - done
            self._close(base + stop, found)
            done, taken = int(rows[at]), stop
        self.digest.update(memoryview(chunk)[taken:])
        if ends.size:
            self.rows += int(rows[-1]) - done
            self.end = base + int(ends[-1]) + 1
        self.size, self.before = base + len(chunk), chunk[-1]

    def _close(self, stop: int, found: Cuts) -> None:
        if self.rows:
            found.pieces.append((self.first, stop, self.rows, self.digest.hexdigest()[:16]))
        self.first, self.rows, self.end = stop, 0, stop
        self.digest = hashlib.sha1(usedforsecurity=False)

    def finish(self, found: Cuts) -> None:
        """The last record may have no line end."""
        tail = self.size - self.end
        if tail > 1 or (tail == 1 and self.before != _RETURN):
            self.rows += not self.header
        self._close(self.size, found)
