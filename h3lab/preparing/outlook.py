"""An outlook: what preparing would make of a source, from a sample of its rows, before anything is prepared.

It knows a sample, and what of it may differ for all rows; preparing itself is in ``prepare``, and what a schema alone
says in ``typed``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from h3lab import worlds
from h3lab.errors import H3labError, guided
from h3lab.feeds.feed import Feed
from h3lab.feeds.report import size
from h3lab.pictures import card, shape_of, table_html
from h3lab.preparing.from_sklearn import as_pipeline
from h3lab.preparing.matching import joined_in, opened
from h3lab.preparing.prepare import labelled, prepare
from h3lab.preparing.typed import schema_of, typed
from h3lab.settings import whole
from h3lab.source import Source
from h3lab.spec import Block as SpecBlock
from h3lab.spec import Spec

#: Rows of a sample: what types, shapes and usual categories need, in a second or so.
SAMPLE_ROWS = 20_000


@dataclass(frozen=True)
class Block:
    """One block: ``shape`` of a row, type, ``bytes`` a row; ``grew`` from which number of columns, in half of the
    sample, where it did: such a block will be wider for all rows. From a schema ``shape`` may be None, with ``why`` in
    words; ``bytes`` is None where the rows decide them, as of a sparse block."""

    name: str
    shape: tuple[int, ...] | None
    dtype: str = ""
    sparse: bool = False
    bytes: float | None = None
    grew: int | None = None
    why: str = ""


@dataclass(frozen=True)
class Outlook:
    """``spec`` as the sample gives it; ``blocks``; ``rows`` of the source, None where it does not tell; ``nbytes`` of
    the prepared set, None without rows. ``estimated``: what may be otherwise for all rows, in words. From a schema, or
    no rows: ``spec`` is None where anything of it is unknown until fitted, and so is ``bytes_a_row``."""

    spec: Spec | None
    blocks: Sequence[Block]
    rows: int | None
    sampled: int
    bytes_a_row: float | None
    kept: float
    estimated: Sequence[str]
    task: str = ""

    @property
    def nbytes(self) -> int | None:
        """Bytes of the prepared set, by the sample's rows."""
        if self.rows is None or self.bytes_a_row is None:
            return None
        return round(self.rows * self.kept * self.bytes_a_row)

    def __repr__(self) -> str:
        rows = [_HEADS, *self._cells()]
        widths = [max(len(row[n]) for row in rows) for n in range(len(_HEADS))]
        lines = ["  ".join(w.ljust(n) for w, n in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([f"Outlook: {self._head()}", *lines, *self.estimated])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        foot = "".join(f"<br><small>{escape(line)}</small>" for line in self.estimated)
        html = card(f"<b>Outlook</b> {escape(self._head())}", table_html(_HEADS, self._cells()) + foot)
        return {"text/plain": repr(self), "text/html": html}

    def _head(self) -> str:
        spec = self.spec
        if spec is None:
            task = f"{self.task or 'no label'}, features unknown until fitted"
        else:
            task = str(spec) if spec.outputs else f"no label, {spec.features} features"
        if self.bytes_a_row is None:
            return f"{task} · from the types of the columns"
        if self.nbytes is None or self.rows is None:
            return f"{task} · about {size(self.bytes_a_row)} a row"
        return f"{self.rows:,} rows, about {size(self.nbytes)} · {task}"

    def _cells(self) -> list[list[str]]:
        return [
            [
                b.name,
                "unknown until fitted" if b.shape is None else shape_of(b.shape),
                b.dtype + " sparse" * b.sparse,
                "" if b.bytes is None else size(b.bytes),
                b.why or _growth(b),
            ]
            for b in self.blocks
        ]


_HEADS = ["block", "shape of a row", "type", "bytes a row", ""]


def _growth(block: Block) -> str:
    return "" if block.grew is None else f"at least: {block.grew:,} columns in half of the sample"


@guided
def outlook(
    pipeline: Any,
    source: Any,
    *,
    label: str | None = None,
    sample: int = SAMPLE_ROWS,
    keys: Any = None,
    on_missing: str = "error",
    on_duplicate: str = "error",
    on_null_label: str = "error",
) -> Outlook:
    """What ``lab.prepare(pipeline, source, ...)`` would make, by preparing a sample: its first ``sample`` rows, and
    half of them, to see which blocks grow. Sources that are looked up are read for their keys. Errors are those of
    ``prepare`` as far as the sample shows them.

    A pyarrow Schema (a dict of them where there are several sources), or a source without rows, tells the blocks whose
    width the types of their columns decide; the others are unknown until fitted."""
    if (schema := schema_of(source)) is not None:
        return _of_types(labelled(pipeline, label), schema)
    pipeline = as_pipeline(pipeline, source, label)
    source = opened(pipeline, source, keys, on_missing, on_duplicate)
    pipeline = labelled(pipeline, label)
    whole("sample", sample, 2)
    few = first(source, sample)
    if not _rows_in(few):
        return _of_types(pipeline, source.schema)
    return sampled(pipeline, source, few, sample, on_null_label)[1]


def sampled(pipeline: Any, source: Source, few: Source, sample: int, on_null_label: str) -> tuple[Feed, Outlook]:
    """(the feed of a sample ``few`` of a source's first ``sample`` rows, the outlook for all)."""
    feed = prepare(pipeline, few, on_null_label=on_null_label)
    half = None if pipeline.fitted else _half(pipeline, source, max(1, sample // 2), on_null_label)
    known = [part.rows for part in base_of(source).parts()]
    rows = None if None in known else sum(n or 0 for n in known)
    seen = len(few) if joined_in(source) is None else min(sample, rows or sample)
    blocks = _blocks(feed, None if rows is not None and rows <= seen else half)
    told = _estimated(feed, half, blocks, rows, seen, pipeline.fitted)
    return feed, Outlook(feed.spec, blocks, rows, seen, feed.nbytes / len(feed), len(feed) / max(1, seen), told)


def base_of(source: Source) -> Source:
    """The source that gives the rows, where others are joined to it."""
    found = joined_in(source)
    return source if found is None else found.base


def _of_types(pipeline: Any, schema: Any) -> Outlook:
    found = typed(pipeline, schema)
    blocks = [
        Block(name, None, why=block)
        if isinstance(block, str)
        else Block(name, block.shape, block.dtype, block.sparse, None if block.sparse else _bytes(block))
        for name, block in found.blocks.items()
    ]
    lines = [f"unknown until fitted: {', '.join(b.name for b in blocks if b.shape is None)}"]
    lines = lines if any(block.shape is None for block in blocks) else []
    if found.task and pipeline.label is not None and found.task == "classification" and not pipeline.fitted:
        lines.append(f"unknown until fitted: the classes of {pipeline.label!r}")
    task = found.task if pipeline.label is not None else ""
    return Outlook(found.spec, blocks, None, 0, None, 1.0, lines, task)


def _bytes(block: SpecBlock) -> float:
    return float(np.prod(block.shape) * np.dtype(block.dtype).itemsize)


def _rows_in(source: Source) -> int:
    return int(base_of(source).first(1).num_rows)


def first(source: Source, rows: int) -> Source:
    """A source of the first rows, joined to what the others are."""
    found = joined_in(source)
    sample: Source = worlds.load(worlds.READ)(base_of(source).first(rows))
    return sample if found is None else found.with_base(sample)


def _half(pipeline: Any, source: Source, rows: int, on_null_label: str) -> Feed | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the whole sample has said it
            return prepare(pipeline, first(source, rows), on_null_label=on_null_label)
    except H3labError:  # too few rows for some worker
        return None


def _blocks(feed: Feed, half: Feed | None) -> list[Block]:
    weights = {line["block"]: line["bytes"] for line in feed.report().workers if line.get("bytes") is not None}
    found = []
    for name, block in feed.spec.blocks.items():
        before = None if half is None else int(np.prod(half.spec.blocks[name].shape))
        grew = before if before is not None and before < int(np.prod(block.shape)) else None
        found.append(Block(name, block.shape, block.dtype, block.sparse, weights.get(name, 0) / len(feed), grew))
    return found


def _estimated(
    feed: Feed, half: Feed | None, blocks: Sequence[Block], rows: int | None, sampled: int, fitted: bool
) -> list[str]:
    if rows is not None and rows <= sampled:
        return []
    lines = [f"estimated from the first {sampled:,} rows: bytes a row" + ("" if fitted else ", and what was learned")]
    if rows is None:
        lines.append("the source does not tell its rows without reading them; len(source) counts them")
    growing = [block.name for block in blocks if block.grew is not None]
    if growing:
        lines.append(f"wider for all rows, because half of them gave less: {', '.join(growing)}")
    if half is not None and feed.spec.classes is not None and half.spec.classes != feed.spec.classes:
        lines.append(f"at least {feed.spec.classes} classes: half of these rows had {half.spec.classes}")
    return lines
