"""The cache of a machine: parts of far feeds, fetched once, mapped by all processes, forgotten when room is needed."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

#: What it holds at most, in bytes, unless ``$H3LAB_CACHE_BYTES`` says otherwise.
CACHE_BYTES = 50e9


def make_room(wanted: int, cache: Path) -> None:
    """Remove the parts that were used the longest ago until ``wanted`` more bytes are within the limit. Who has mapped
    one keeps it: a file without a name lives as long as its maps. Any process may make room at the same time."""
    try:
        limit = float(os.environ.get("H3LAB_CACHE_BYTES", CACHE_BYTES))
    except ValueError:
        limit = CACHE_BYTES
    held = []
    for folder in cache.iterdir():
        with suppress(FileNotFoundError):  # another process has removed it, or files of it
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            held.append((folder.stat().st_mtime, size, folder))
    total = sum(size for _, size, _ in held)
    for used, size, folder in sorted(held):
        if total + wanted <= limit or time.time() - used < 60:
            return
        _remove(folder)
        total -= size


def _remove(folder: Path) -> None:
    # At once: file by file, another process could have fetched the part anew meanwhile, and lose some of that. Should
    # this process be killed here, what is left is the oldest next time.
    gone = folder.with_name(f".gone.{secrets.token_hex(8)}")
    with suppress(FileNotFoundError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
