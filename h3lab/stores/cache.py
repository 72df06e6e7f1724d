"""The cache of a machine: parts of far feeds, fetched once, mapped by all processes, forgotten when room is needed."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

#: What it holds at most, in bytes, unless ``$H3LAB_CACHE_BYTES`` says otherwise.
CACHE_BYTES = 50e9


def make_room(wanted: int, cache: Path) -> None:
    """Remove the parts that were used the longest ago until ``wanted`` more bytes are within the limit. Who has mapped
    one keeps it: a file without a name lives as long as its maps."""
    try:
        limit = float(os.environ.get("H3LAB_CACHE_BYTES", CACHE_BYTES))
    except ValueError:
        limit = CACHE_BYTES
    held = []
    for folder in cache.iterdir():
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        held.append((folder.stat().st_mtime, size, folder))
    total = sum(size for _, size, _ in held)
    for used, size, folder in sorted(held):
        if total + wanted <= limit or time.time() - used < 60:
            return
        shutil.rmtree(folder, ignore_errors=True)
        total -= size
