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
SLICE_BYTES = 4 << 20


def tokenized(text: pa.Array, lowercase: bool) -> tuple[pa.ChunkedArray, np.ndarray]:
    """All tokens in their order, and (rows,) how many each row has. ``text``: strings without nulls."""
    import pyarrow as pa

    text = text.cast(pa.large_string())
    ends = np.frombuffer(text.buffers()[1], np.int64)[text.offset + 1 : text.offset + 1 + len(text)]
    tokens, counts, start = [], [], 0
    while start < len(text):
        before = ends[start - 1] if start else np.frombuffer(text.buffers()[1], np.int64)[text.offset]
        stop = max(start + 1, int(np.searchsorted(ends, before + SLICE_BYTES, side="right")))
        found, count = _tokenized(text.slice(start, stop - start), lowercase)
        tokens.append(found)
        counts.append(count)
        start = stop
    return pa.chunked_array(tokens, pa.string()), np.concatenate(counts) if counts else np.zeros(0, np.int64)


def lowered(text: pa.Array) -> pa.Array:
    """``str.lower`` of each row; Arrow's own differs from it outside ASCII (final sigma, dotted I)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ascii_ = pc.string_is_ascii(text)
    low = pc.ascii_lower(text)
    if pc.all(ascii_, min_count=0).as_py():
        return low
    others = pa.array([row.lower() for row in text.filter(pc.invert(ascii_)).to_pylist()], low.type)
    return pc.replace_with_mask(low, pc.invert(ascii_), others)


def _tokenized(text: pa.Array, lowercase: bool) -> tuple[pa.Array, np.ndarray]:
    import pyarrow as pa

    text = lowered(text) if lowercase else text
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    data = np.frombuffer(text.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
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
        return _word_table()[:256][data], None
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
