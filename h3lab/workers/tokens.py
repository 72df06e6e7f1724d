"""Tokens: scikit-learn's default word tokens of a column of text, for all rows at once.

It is exactly the analyzer of ``CountVectorizer(token_pattern=r"(?u)\\b\\w\\w+\\b")``: a token is a run of two or more
word characters, after ``str.lower``. A regular expression a row takes ten times as long as arrays of bytes do.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

#: The one pattern that this module is.
PATTERN = r"(?u)\b\w\w+\b"
#: Bytes of text that are worked on at a time; the arrays of positions need about twenty times as much.
SLICE_BYTES = 1 << 20


def tokenized(text: pa.Array, lowercase: bool) -> tuple[pa.ChunkedArray, np.ndarray]:
    """All tokens in their order, and (rows,) how many each row has. ``text``: strings without nulls."""
    import pyarrow as pa

    text = text.cast(pa.large_string())
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    tokens, counts, start = [], [np.zeros(0, np.int64)], 0
    while start < len(text):
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + SLICE_BYTES, side="right")) - 1)
        data = np.frombuffer(text.buffers()[2] or b"", np.uint8)[offsets[start] : offsets[stop]]
        bounds = offsets[start : stop + 1] - offsets[start]
        if lowercase:
            data, bounds = _lowered(data, bounds)
        found, count = _runs(data, bounds)
        tokens.append(found)
        counts.append(count)
        start = stop
    return pa.chunked_array(tokens, pa.string()), np.concatenate(counts)


def _lowered(data: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``str.lower`` of rows of UTF-8. Arrow's own differs outside ASCII (final sigma, dotted I), and inside it reads
    the wrong bytes of a slice (26.0)."""
    if not len(data) or data.max() < 128:
        return _ASCII_LOWER[data], bounds
    joined = data.tobytes()
    rows = [
        joined[a:b].decode().lower().encode() for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]
    bounds = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=bounds[1:])
    return np.frombuffer(b"".join(rows), np.uint8), bounds


_ASCII_WORD = np.array([bool(re.match(r"\w", chr(point), re.ASCII)) for point in range(256)])
_ASCII_LOWER = np.frombuffer(bytes(range(256)).lower(), np.uint8)


def _runs(data: np.ndarray, offsets: np.ndarray) -> tuple[pa.Array, np.ndarray]:
    """The runs of word characters in rows of UTF-8, and how many each row has."""
    import pyarrow as pa

    word, characters = _words(data)
    # A boundary before each byte and after the last; a row's ends are boundaries whatever stands in the next row.
    begins, ends = np.ones(len(data) + 1, bool), np.ones(len(data) + 1, bool)
    np.logical_not(word, out=begins[1:])
    np.logical_not(word, out=ends[:-1])
    begins[offsets] = ends[offsets] = True
    starts = np.flatnonzero(word & begins[:-1])
    stops = np.flatnonzero(word & ends[1:]) + 1
    long = (stops - starts if characters is None else characters[stops] - characters[starts]) >= 2
    if not long.all():
        word = word.copy()
        for byte in range(4):  # one character is at most four bytes
            at = starts[~long] + byte
            word[at[at < stops[~long]]] = False
        starts, stops = starts[long], stops[long]
    bounds = np.zeros(len(starts) + 1, np.int32)
    np.cumsum(stops - starts, out=bounds[1:])
    tokens = pa.StringArray.from_buffers(len(starts), pa.py_buffer(bounds), pa.py_buffer(data[word]))
    return tokens, np.diff(np.searchsorted(starts, offsets))


def _words(data: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """For each byte of UTF-8 whether it belongs to a word character; and, outside ASCII, the characters before each."""
    if not len(data) or data.max() < 128:
        return _ASCII_WORD[data], None
    points = np.frombuffer(data.tobytes().decode().encode("utf-32-le"), np.uint32)
    first = (data & 0xC0) != 0x80
    before = np.zeros(len(data) + 1, np.int64)
    np.cumsum(first, out=before[1:])
    return _word_table()[points][before[1:] - 1], before


@cache
def _word_table() -> np.ndarray:
    """(all code points,) whether ``\\w`` matches it, asked of ``re`` itself."""
    table = np.zeros(0x110000, bool)
    # Surrogates are no characters of UTF-8, and none of them is a word character.
    every = "".join(map(chr, [*range(0xD800), *[0x20] * 0x800, *range(0xE000, 0x110000)]))
    for run in re.finditer(r"\w+", every):
        table[run.start() : run.end()] = True
    return table
