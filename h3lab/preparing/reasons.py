"""Reasons: which blocks a preparation has computed again where the feed was there before, and why, in words.

It knows two manifests' worth of a feed, the former and what has just been done; what is reused is decided in ``reuse``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from h3lab.feeds import manifest
from h3lab.pipeline import Pipeline
from h3lab.preparing.passes import Job
from h3lab.preparing.reuse import changed_columns, marks_of
from h3lab.serial.fingerprints import fingerprint


def recipes_of(pipeline: Pipeline) -> dict[str, str]:
    """By block a fingerprint of what was written, fitted or not."""
    rest = (pipeline.dtype, pipeline.seed)
    return {b.name: fingerprint(b.columns, b.workers, b.source, *rest) for b in pipeline.preprocessors}


def reasons(before: Mapping[str, Any] | None, job: Job, results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """By block that was computed again in any part, why; nothing where no feed was there."""
    if before is None or "recipes" not in before:
        return {}
    computed = {
        name
        for found in results
        for name, block in found.get("blocks", {}).items()
        if "reused" not in found and "reused" not in block
    }
    recipes, marks = recipes_of(job.pipeline), marks_of(job.pipeline)
    seen = {found["own"]: found for found in before["source_parts"]}
    told = {}
    for name in (block.name for block in job.pipeline.preprocessors if block.name in computed):
        if before["recipes"].get(name) != recipes[name]:
            told[name] = "its recipe has changed" if name in before["recipes"] else "it is new"
            continue
        why = _in_rows(seen, job, name)
        if marks[name] != before["blocks"].get(name):
            why.append("it has learned other numbers")
        told[name] = "; ".join(why) or "it cannot be taken out of the rows that were stored"
    return told


def _in_rows(seen: Mapping[str, Mapping[str, Any]], job: Job, block: str) -> list[str]:
    """What of the rows that a block is made of has changed."""
    parts = [seen.get(manifest.own(part)) for part in job.parts]
    other: dict[str, int] = {}
    for number, found in enumerate(parts):
        for name in changed_columns(job, number, found, block) if found is not None else ():
            other[name] = other.get(name, 0) + 1
    count, new = len(parts), sum(found is None for found in parts)
    why = [f"{new} of {count} parts are new or changed"] if new else []
    return why + [f"{name} has other values in {some} of {count} parts" for name, some in other.items()]
