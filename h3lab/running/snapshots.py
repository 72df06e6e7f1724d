"""Snapshots: what a training needs to go on, in numbered files that are there whole or not at all.

``snapshots/00000812.h3lab`` is the state after step 812, in the codec's form: nothing in it is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from h3lab.errors import DamagedData
from h3lab.home import replace_file
from h3lab.running.folder import RunFolder
from h3lab.serial import codec

KEPT = 2


def write(folder: RunFolder, step: int, tree: Mapping[str, Any]) -> Path:
    """Commit a snapshot, and remove those before the last two."""
    path = folder.snapshots / f"{step:08d}.h3lab"
    replace_file(path, codec.pack(tree), durable=True)
    for old in _paths(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def read(folder: RunFolder) -> tuple[int, dict[str, Any]] | None:
    """(step, tree) of the newest one that is whole, or None. One is skipped only when its bytes are damaged, as after
    a power cut; the one before it is then still there."""
    for path in reversed(_paths(folder)):
        try:
            return int(path.stem), codec.unpack(path.read_bytes())
        except (DamagedData, FileNotFoundError):
            continue
    return None


def newest_step(folder: RunFolder) -> int:
    """The step of the newest snapshot, 0 where there is none."""
    paths = _paths(folder)
    return int(paths[-1].stem) if paths else 0


def _paths(folder: RunFolder) -> list[Path]:
    # By number: a name of nine digits sorts before those of eight.
    return sorted(folder.snapshots.glob("[0-9]*.h3lab"), key=lambda path: int(path.stem))
