"""Reuse: which blocks of which stored parts are still what preparing them again would give.

A block is the same where its columns, its fitted workers and its place in the spec are, and a part where its identity
is; then its columns are taken out of the stored rows, bit for bit, and nothing of it is computed. Blocks are stored
side by side in one matrix, which training reads without joining; a cache of each block beside it would double the feed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from h3lab.errors import DamagedData
from h3lab.feeds import manifest
from h3lab.pipeline import Pipeline
from h3lab.preparing import chain
from h3lab.preparing.passes import Job
from h3lab.serial.fingerprints import fingerprint
from h3lab.spec import Block, Spec


@dataclass(frozen=True)
class Reuse:
    """``entries``: number of a part → its stored entry; ``seen``: what writing it had found; ``places``: block → its
    columns in the stored rows, None where they are a dict of blocks; ``same``: number of a part → its blocks that have
    not changed."""

    entries: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    seen: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    places: Mapping[str, tuple[int, int] | None] = field(default_factory=dict)
    same: Mapping[int, Sequence[str]] = field(default_factory=dict)

    def blocks(self, store: Any, job: Job, number: int, rows: int) -> dict[str, Any]:
        """The blocks of a part that have not changed, by name; none where the part has, or is damaged."""
        entry = self.entries.get(number)
        if entry is None or entry["rows"] != rows:
            return {}
        spec = job.pipeline.spec
        try:
            x = store.read(entry).x
        except DamagedData:
            return {}
        return {name: _taken(x, name, self.places[name], spec.blocks[name]) for name in self.same[number]}


def _taken(x: Any, name: str, place: tuple[int, int] | None, block: Block) -> Any:
    found = x[name] if place is None else x.reshape(len(x), -1) if not hasattr(x, "indptr") else x
    if place is not None:
        found = found[:, slice(*place)]
    if not hasattr(found, "indptr"):
        found = found.reshape(len(found), *block.shape)
    # A block that is dense by itself has been joined to a sparse one.
    return chain.conform(found, block, f"block {name!r}")


def unchanged(found: dict[str, Any] | None, job: Job, on_null_label: str) -> Reuse:
    """What of a manifest can be used again."""
    pipeline = job.pipeline
    if found is None or found["on_null_label"] != on_null_label or "blocks" not in found:
        return Reuse()
    if found.get("label") != pipeline.label and job.drop:
        return Reuse()  # other rows were left out
    spec, marks = Spec.from_json(found["spec"]), marks_of(pipeline)
    crossed = {how["block"] for how in (*found["workers"], *pipeline.state.how) if "cross_fitted" in how}
    places: dict[str, tuple[int, int] | None] = {}
    start, concat = 0, found["join"] == "concat"
    form = _joined(spec.blocks) if concat else None
    for name, block in spec.blocks.items():
        stop = start + int(np.prod(block.shape))
        same = marks.get(name) == found["blocks"].get(name) and name in marks and name not in crossed
        if same and (form is None or _survives(block, form, pipeline)):
            places[name] = (start, stop) if concat else None
        start = stop
    stored = {entry["source"]: entry for entry in found["parts"]}
    before = {seen["own"]: seen for seen in found["source_parts"] if seen["place"]["version"]}
    entries, known, same = {}, {}, {}
    for number, part in enumerate(job.parts if places else ()):
        seen = before.get(manifest.own(part))
        if seen is None or seen["identity"] not in stored:
            continue
        if blocks := [name for name in places if not changed_columns(job, number, seen, name)]:
            entries[number], known[number], same[number] = stored[seen["identity"]], seen, blocks
    return Reuse(entries, known, places, same)


def changed_columns(job: Job, number: int, seen: Mapping[str, Any], block: str) -> list[str]:
    """The columns of a block, and the label where rows without one are left out, that have other values in a part than
    they had when it was stored; of a part whose source tells versions, only those that are looked up can be named."""
    pipeline, contents = job.pipeline, job.parts[number].contents
    names = next(given.names for given in pipeline.preprocessors if given.name == block)
    told = [*names, *([pipeline.label] if job.drop and pipeline.label else [])]
    return [name for name in told if seen["contents"].get(name) != contents.get(name)]


def marks_of(pipeline: Pipeline) -> dict[str, str]:
    """By block what its prepared columns follow from, beside the rows."""
    state = pipeline.state
    return {
        block.name: fingerprint(
            block.columns,
            block.source,
            [str(state.schema.field(name).type) for name in block.names],
            state.stages[block.name],
            repr(state.spec.blocks[block.name]),
        )
        for block in pipeline.preprocessors
    }


def _joined(blocks: Mapping[str, Block]) -> tuple[Any, bool]:
    """Type and form of blocks side by side."""
    dtype = np.result_type(*(np.dtype(block.dtype) for block in blocks.values()))
    return dtype, any(block.sparse for block in blocks.values())


def _survives(block: Block, form: tuple[Any, bool], pipeline: Pipeline) -> bool:
    """Whether a block comes out of the joined matrix as it went in."""
    dtype, (joined, sparse) = np.dtype(block.dtype), form
    exact = dtype == joined or (np.can_cast(dtype, joined) and not (dtype.kind in "iu" and dtype.itemsize == 8))
    # A sparse matrix forgets the sign of a zero, which matters nowhere but in a dense one.
    again = pipeline.join == "concat" and _joined(pipeline.spec.blocks)[1]
    return exact and (block.sparse or not sparse or again)
