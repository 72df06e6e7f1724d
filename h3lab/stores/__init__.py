"""Stores: where prepared rows are kept. Columns (memory maps of one folder) is the local one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from h3lab.errors import UsageError
from h3lab.feed import Feed, open_feed
from h3lab.stores.columns import Columns

#: Rows a part: large enough that a file is worth its name, small enough that parts fit beside one another.
PART_ROWS = 65_536


def open_store(url: str | Path) -> Columns:
    """The store of a folder; relative paths start at the current directory."""
    text = str(url).removeprefix("file://")
    if "://" in text:
        raise UsageError(f"{text!r} came; feeds are kept in a folder that every process of the lab can reach.")
    return Columns(Path(text).expanduser().absolute())


def store(feed: Feed, folder: Path | str) -> Feed:
    """Write a feed to a folder; returns the stored one."""
    columns = open_store(folder)
    count = len(feed)
    entries = []
    for number, start in enumerate(range(0, max(count, 1), PART_ROWS)):
        entries.append(columns.write(f"{number:05d}", feed.batch(slice(start, start + PART_ROWS))))
    document = None if feed.pipeline is None else feed.pipeline.to_document()
    manifest: dict[str, Any] = {
        "spec": feed.spec.to_json(),
        "pipeline": None if feed.pipeline is None else feed.pipeline.fingerprint,
        "fingerprint": feed.fingerprint,
        "rows": count,
        "parts": entries,
    }
    columns.commit(manifest, document)
    columns.collect_garbage()
    return open_feed(columns.folder)
