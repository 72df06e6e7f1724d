"""A manifest: what a stored feed says of itself, readable JSON; and what of it can be used again.

It knows parts, pipelines and their fingerprints; files and numbers of manifests are the store's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from h3lab.errors import DamagedData, FeedNotFound
from h3lab.serial.contents import joint
from h3lab.serial.fingerprints import fingerprint
from h3lab.source import Part, Source

if TYPE_CHECKING:
    from h3lab.pipeline import Pipeline
    from h3lab.preparing.passes import Job

#: What is kept of the writing of a part.
FOUND = ("rows", "dropped", "seconds", "nulls", "blocks")


def of(
    job: Job, results: Sequence[dict[str, Any]], counts: dict[str, Any], on_null_label: str, marks: dict[str, str]
) -> dict[str, Any]:
    """What was prepared from what, and how. ``parts`` are the stored ones, ``source_parts`` all of the source's;
    ``marks``: by block what its columns follow from."""
    pipeline = job.pipeline
    parts, seen = [], []
    bad: Counter[str] = Counter()
    for part, found in zip(job.parts, results, strict=True):
        place = {"name": part.name, "start": part.start, "version": part.version, "position": dict(part.position)}
        mark: dict[str, Any] = {name: found[name] for name in FOUND if name in found}
        mark |= {"identity": identity(part), "own": own(part), "contents": dict(part.contents)}
        mark |= {"reused": "reused" in found}
        seen.append(mark | {"place": place, "stored": "entry" in found})
        bad.update({part.name: part.bad} if part.bad else {})
        if "entry" in found:
            parts.append(found["entry"] | {"source": identity(part)})
    return {
        "spec": pipeline.spec.to_json(),
        "pipeline": pipeline.fingerprint,
        "recipe": pipeline.recipe,
        "description": repr(pipeline),
        "rows": counts["rows"],
        "counts": {**counts, "bad_rows": dict(bad)},
        "on_null_label": on_null_label,
        "label": pipeline.label,
        "join": pipeline.join,
        "blocks": marks,
        "workers": pipeline.state.how,
        "columns": {block.name: list(block.names) for block in pipeline.preprocessors},
        "source": job.source.describe(),
        "source_parts": seen,
        "parts": parts,
    }


def identity(part: Part, columns: Iterable[str] | None = None) -> str:
    """A part of a source; another version of its rows is another one. ``columns``: those that count where each is known
    by its content, None for all."""
    chosen = part.contents if columns is None else set(columns) & part.contents.keys()
    told = joint({name: part.contents[name] for name in chosen})
    return f"{own(part)}:{told}" if part.contents else own(part)


def own(part: Part) -> str:
    """The rows of a part, without what is known of the content of their columns."""
    # By the content of rows and keys a part is the same wherever rows before it came or went.
    place = "" if "" in part.contents else f"{part.name}:{part.start}:"
    return f"{place}{part.rows}:{part.version}"


def mark(source: Source, parts: Sequence[Part]) -> str:
    """By what a source is known again as a whole: what it is, and its parts; ``""`` where it cannot tell."""
    if not all(part.version for part in parts):
        return ""
    return fingerprint(source.describe(), [identity(part) for part in parts])


def current(store: Any) -> dict[str, Any] | None:
    """What of the newest state of a preparation can be used again, or None: its manifest, without the parts that are
    missing, have another size, or were found damaged by a reader (``damaged``: how many). StorageError where its place
    does not answer, or a newer h3lab wrote it: nothing could be stored there either."""
    try:
        found: dict[str, Any] = store.manifest()
    except (FeedNotFound, DamagedData):
        return None
    if "source_parts" not in found:
        return None
    there = store.kept(found["parts"])
    gone = {entry["source"] for entry, kept in zip(found["parts"], there, strict=True) if not kept}
    parts = [entry for entry in found["parts"] if entry["source"] not in gone]
    seen = [seen for seen in found["source_parts"] if seen["identity"] not in gone]
    return found | {"parts": parts, "source_parts": seen, "damaged": len(gone)}


def reusable(store: Any, pipeline: Pipeline, known_by: str, on_null_label: str) -> dict[str, Any] | None:
    """The current manifest, where the same pipeline has made it from a source of this :func:`mark`; else None."""
    found = current(store)
    if found is None or found["on_null_label"] != on_null_label or found["recipe"] != pipeline.recipe:
        return None
    if found["damaged"]:
        return None
    # A source that cannot tell whether its rows have changed has none; then nothing is taken for the same.
    if not known_by or known_by not in found.get("known_by", ()):
        return None
    if pipeline.fitted and found["pipeline"] != pipeline.fingerprint:
        return None
    if not pipeline.fitted and found.get("unsaved"):
        return None  # its pipeline is not there to be opened, so it is fitted again
    if _cross_fitted(found["workers"]) and (found["counts"]["passes"] == 0) != pipeline.fitted:
        return None  # rows that a target encoder was fitted on are encoded otherwise than rows that it is applied to
    try:
        store.pipeline(found)
    except DamagedData:
        return None
    return found


def written(
    found: dict[str, Any] | None, pipeline: Pipeline, on_null_label: str, applied: bool
) -> dict[str, dict[str, Any]]:
    """Parts of a manifest that the same fitted pipeline has made: identity → what writing it had found. ``applied``: it
    came fitted, and was not fitted on these rows."""
    if found is None or found["pipeline"] != pipeline.fingerprint or found["on_null_label"] != on_null_label:
        return {}
    if _cross_fitted(found["workers"]) and not (applied and found["counts"]["passes"] == 0):
        return {}
    entries = {entry["source"]: entry for entry in found["parts"]}
    out = {}
    for seen in found["source_parts"]:
        if seen["place"]["version"]:
            result: dict[str, Any] = {name: seen[name] for name in FOUND if name in seen} | {"reused": True}
            out[seen["identity"]] = result | ({"entry": entries[seen["identity"]]} if seen["stored"] else {})
    return out


def _cross_fitted(workers: Sequence[dict[str, Any]]) -> bool:
    return any("cross_fitted" in how for how in workers)
