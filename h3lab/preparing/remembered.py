"""Remembered: what earlier preparations of a feed have found in its parts, so that a part which has not changed is not
read again to fit: its rows, its labels, and the partial state of each worker whose fit is merged; and what one that did
not come to its end has written, so that the next one goes on from there.

A hidden folder beside the feed, bounded (``$H3LAB_STATES_BYTES``, 256 MB without it), packed by the codec and checked
by hash; what is missing or damaged is found out anew. It knows parts and marks; a mark says all that a finding follows
from beside the rows of its part (``marks``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from h3lab.errors import DamagedData
from h3lab.feeds.manifest import identity
from h3lab.home import replace_file
from h3lab.preparing.labels import Labels
from h3lab.serial import codec
from h3lab.serial.fingerprints import fingerprint

if TYPE_CHECKING:
    from h3lab.preparing.passes import Job

FOLDER = ".h3lab-states"
LIMIT = 256 << 20
#: The mark of what every part has: rows and labels.
ROWS = ""
#: The mark of what was written of a part, among a job's marks.
WRITTEN = "written"
_FORMAT = 2
_HASH = 16


@dataclass(frozen=True)
class Memory:
    """Findings by mark and part in a folder; one larger than ``most`` bytes is not kept."""

    folder: Path
    most: int

    @classmethod
    def of(cls, folder: Path, parts: int) -> Memory:
        """The memory beside a feed of so many parts."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(folder, limit() // max(parts, 1))

    def recall(self, mark: str, part: str) -> Any:
        """What was kept of a part (its identity), or None."""
        path = self._path(mark, part)
        try:
            data = path.read_bytes()
            if hashlib.blake2b(data[_HASH:], digest_size=_HASH).digest() != data[:_HASH]:
                return None
            os.utime(path)  # what was used last is removed last
            return codec.unpack(data[_HASH:])
        except (OSError, DamagedData):
            return None

    def keep(self, mark: str, part: str, tree: Any) -> None:
        """Keep it for the next preparation; of a part that nobody could know again nothing is kept."""
        if not part:
            return
        # A full disk, or a state of somebody's own type, is no harm to this preparation.
        with suppress(OSError, TypeError, ValueError):
            data = codec.pack(tree)
            if len(data) <= self.most:
                replace_file(self._path(mark, part), hashlib.blake2b(data, digest_size=_HASH).digest() + data)

    def _path(self, mark: str, part: str) -> Path:
        return self.folder / hashlib.blake2b(f"{mark}:{part}".encode(), digest_size=16).hexdigest()

    def forget(self) -> None:
        """Remove what was used the longest ago, until the rest is within the limit."""
        found = []
        for path in self.folder.iterdir():
            with suppress(OSError):
                found.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= limit():
                return
            path.unlink(missing_ok=True)
            total -= size


def limit() -> int:
    """Bytes that are kept beside one feed at most."""
    try:
        return int(os.environ.get("H3LAB_STATES_BYTES", LIMIT))
    except ValueError:
        return LIMIT


def marks(job: Job) -> dict[str, str]:
    """By block what its findings in this pass follow from, and by :data:`ROWS` what rows and labels do."""
    import sklearn

    pipeline = job.pipeline
    rows = (_FORMAT, sklearn.__version__, pipeline.label, pipeline.task, job.drop)
    found = {ROWS: fingerprint("rows", *rows)}
    for block in pipeline.preprocessors:
        pending = job.pending.get(block.name)
        if pending is None and not job.survey or pending is not None and not pending.merge:
            continue
        types = [str(job.schema.field(name).type) for name in block.names]
        learned = (job.stages.get(block.name, ()), None if pending is None else pending.workers)
        found[block.name] = fingerprint("block", *rows, job.survey, block.columns, block.source, types, *learned)
    return found


def resumed(job: Job, store: Any) -> dict[str, dict[str, Any]]:
    """Parts that the same fitted pipeline has written in a preparation which did not live to commit them: identity →
    what writing it had found."""
    if job.memory is None or WRITTEN not in job.marks:
        return {}
    parts = [identity(part) for part in job.parts if part.version]
    found = {part: job.memory.recall(job.marks[WRITTEN], part) for part in parts}
    known = {name: seen | {"reused": True} for name, seen in found.items() if seen is not None}
    stored = [name for name, seen in known.items() if "entry" in seen]
    there = dict(zip(stored, store.kept([known[name]["entry"] for name in stored]), strict=True))
    return {name: seen for name, seen in known.items() if there.get(name, True)}


def mark_of_writing(job: Job) -> dict[str, str]:
    """The mark of what this job writes. Rows that a target encoder was fitted on are not what it makes of others, and
    which they are does not follow from the fitted pipeline."""
    if any("cross_fitted" in how for how in job.pipeline.state.how):
        return {}
    return {WRITTEN: fingerprint(WRITTEN, _FORMAT, job.pipeline.fingerprint, job.drop)}


def told(rows: int, dropped: int, labels: Labels | None) -> dict[str, Any] | None:
    """What every part has, as a tree; None for labels of a type that does not come back as it was, such as dates."""
    found: dict[str, Any] = {"rows": rows, "dropped": dropped, "labels": None}
    if labels is not None:
        values, counts = list(labels.counts), list(labels.counts.values())
        if not all(type(value) in (str, bool, int, float) for value in values):
            return None
        found["labels"] = {"type": labels.type, "rows": labels.rows, "nulls": labels.nulls}
        found["labels"] |= {"values": values, "counts": counts}
    return found


def labels_of(found: Mapping[str, Any]) -> Labels | None:
    """The inverse of :func:`told`, for the labels."""
    kept = found["labels"]
    if kept is None:
        return None
    return Labels(kept["type"], kept["rows"], kept["nulls"], dict(zip(kept["values"], kept["counts"], strict=True)))
