"""Matching: whether all rows find what they look up, counted before anything is fitted.

It knows parts and counts; how keys are looked up is in ``joining``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from h3lab import worlds
from h3lab.errors import UnknownName, UsageError
from h3lab.joining.joined import Joined, join, with_lookups
from h3lab.joining.policies import Policies
from h3lab.pipeline import Pipeline
from h3lab.preparing.executor import Executor
from h3lab.preparing.fitting import Progress
from h3lab.preparing.landed import in_memory, land
from h3lab.preparing.workroom import Shared
from h3lab.source import Part, Source


def opened(pipeline: Pipeline, source: Any, keys: Any, on_missing: str, on_duplicate: str) -> Source:
    """A source of whatever came; several in a dict are joined by their keys."""
    Policies(on_missing, on_duplicate)  # a misspelt one is said where nothing is joined, too
    if isinstance(source, Source):
        if keys is not None and joined_in(source) is None:
            raise UsageError(f"keys={keys!r} came with one source, {source.title}; they are for a dict of several.")
        return source
    own = any(block.source is not None for block in pipeline.preprocessors)
    if keys is not None or (own and isinstance(source, Mapping) and not pipeline.fitted):
        return join(source, keys, on_missing, on_duplicate)
    if own and pipeline.fitted:
        source = with_lookups(source, pipeline.state.lookups)
    return source if isinstance(source, Source) else worlds.load(worlds.READ)(source)


def joined_in(source: Any) -> Joined | None:
    """The joined source that a source is, or is a part of (one side of a split)."""
    while source is not None and not isinstance(source, Joined):
        source = getattr(source, "base", None)
    return source


def lookups_of(source: Source) -> dict[str, Any] | None:
    """How to look up again what a source has looked up; None where it has not."""
    found = joined_in(source)
    return None if found is None else found.lookups


def settled(
    pipeline: Pipeline, source: Source, folder: Path, executor: Executor, progress: Progress, by_content: bool
) -> Source:
    """The same source, ready to be read by all processes: what it looks up is put down in ``folder``; so are rows in
    memory where others work on them, and, ``by_content``, rows that nothing but their content could tell from changed
    ones."""
    found = joined_in(source)
    base = source if found is None else found.base
    used = [*pipeline.columns, *filter(None, (pipeline.label, pipeline.weight))]
    unknown = by_content and not all(part.version for part in base.parts())
    if unknown or (not executor.local and in_memory(base.describe())):
        by = [] if found is None else [here for pairs in found.keys_of.values() for here, _ in pairs]
        columns = [name for name in dict.fromkeys([*used, *by]) if name in base.schema.names]
        base = land(base, columns, folder, executor, progress, by_content)
    return base if found is None else _with(source, found.landed(folder, used, _blocks(pipeline)).with_base(base))


def matched(
    pipeline: Pipeline, source: Source, folder: Path, executor: Executor, progress: Progress
) -> tuple[Source, dict[str, Any]]:
    """The same source (:func:`settled`), knowing what each part looks up; and counts."""
    found = joined_in(source)
    if found is None:
        return source, {}
    known, counts = match(pipeline, found, list(found.parts()), folder, executor, progress)
    return _with(source, known), counts


def _with(source: Any, landed: Joined) -> Source:
    """A source with the joined one in its depth replaced."""
    if isinstance(source, Joined):
        return landed
    new = copy.copy(source)
    new.__dict__ = {name: value for name, value in source.__dict__.items() if name != "_known"}
    new.base = _with(source.base, landed)
    return new  # type: ignore[no-any-return]


def _blocks(pipeline: Pipeline) -> dict[str, list[str]]:
    """Source → the blocks that look something up in it."""
    found: dict[str, list[str]] = {}
    for block in pipeline.preprocessors:
        if block.source is not None:
            found.setdefault(block.source, []).append(block.name)
    return found


def check_blocks(pipeline: Pipeline, source: Source) -> None:
    """UsageError or UnknownName where a block's source is not among those that came."""
    for block in pipeline.preprocessors:
        if block.source is None:
            continue
        found = joined_in(source)
        if found is None:
            raise UsageError(
                f"block {block.name!r} has a source of its own, {block.source!r}, and one source came. Pass them all, "
                f"the one that gives the rows first: {{'rows': ..., {block.source!r}: ...}}, with the columns that "
                f"rows are looked up by: keys={{{block.source!r}: ...}}."
            )
        if block.source == found.first_name:
            raise UsageError(
                f"block {block.name!r} has source={block.source!r}, which gives the rows and needs no key. Leave "
                "source= out of this block."
            )
        if block.source not in found.keys_of:
            raise UnknownName("source", block.source, found.keys_of, f"block {block.name!r}")


def match(
    pipeline: Pipeline, source: Joined, parts: Sequence[Part], folder: Path, executor: Executor, progress: Progress
) -> tuple[Joined, dict[str, Any]]:
    """The source with what each part has found, and counts for the report: rows ``dropped``, and by source ``missing``
    keys, ``duplicates`` and ``surplus`` rows that nobody looked up. DataError names block, key and rows that are
    missing, where that is an error."""
    shared = Shared(source, folder / "match")
    missing = dict.fromkeys(source.keys_of, 0)
    examples: dict[str, list[str]] = {name: [] for name in source.keys_of}
    used: dict[str, np.ndarray] = {}
    dropped, matches = 0, []
    with closing(executor.map(_match, [(shared, part) for part in parts], "matching")) as done:
        for number, found in enumerate(done, 1):
            progress("matching", number, len(parts))
            dropped += found["dropped"]
            matches.append({"kept": found["kept"], "contents": found["contents"]})
            for name in source.keys_of:
                missing[name] += found["missing"][name]
                examples[name] = [*examples[name], *found["examples"][name]][:3]
                used[name] = found["used"][name] | used.get(name, 0)
    for name, count in missing.items():
        if count and source.policies.on_missing == "error":
            raise source.absent(name, count, examples[name], _blocks(pipeline).get(name, ()))
    told = {}
    for name, bits in used.items():
        counts = source.lookup(name).counts
        surplus = counts["rows"] - counts["duplicates"] - counts["without_key"] - int(np.unpackbits(bits).sum())
        told[name] = {**counts, "missing": missing[name], "surplus": surplus}
    unmatched = dropped if source.policies.on_missing == "drop" else 0
    return source.with_matches(matches), {"lookups": told, "unmatched": unmatched}


def _match(task: tuple[Shared, Part]) -> dict[str, Any]:
    source: Joined = task[0].value
    return source.match(task[1])
