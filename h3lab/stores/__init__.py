"""Stores: where prepared rows are kept. Columns (memory maps of a folder) is the local one, Parquet is for any URL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from h3lab.batch import Batch
from h3lab.feeds.feed import Feed, open_state
from h3lab.home import path_of
from h3lab.source import PART_ROWS
from h3lab.stores.columns import Columns
from h3lab.urls import is_url

if TYPE_CHECKING:
    from h3lab.stores.parquet import Parquet


def open_store(url: str | Path) -> Columns | Parquet:
    """The store of a folder or URL; relative paths start at the current directory."""
    text = url.removeprefix("file://") if isinstance(url, str) else url
    if isinstance(text, str) and is_url(text):
        from h3lab.stores.parquet import Parquet  # a rank on a folder needs no Arrow

        return Parquet(text)
    return Columns(path_of(text, 'to="prepared/reviews"').absolute())


def store(feed: Feed, folder: Path | str) -> Feed:
    """Write a feed to a folder or URL; returns the stored one."""
    columns = open_store(folder)
    with columns.turn:
        number = _stored(feed, columns)
    return open_state(columns.folder, number)


def _stored(feed: Feed, columns: Columns | Parquet) -> int:
    entries = [columns.write(f"{number:05d}", batch) for number, batch in enumerate(_cut(feed))]
    document = None if feed.pipeline is None else feed.pipeline.to_document()
    manifest: dict[str, Any] = {
        "spec": feed.spec.to_json(),
        "pipeline": None if feed.pipeline is None else feed.pipeline.fingerprint,
        "rows": len(feed),
        "parts": entries,
    }
    if feed.parent is not None:
        manifest["fingerprint"] = feed.fingerprint  # that of a selection does not follow from its rows alone
    number = columns.commit(manifest, document)
    columns.collect_garbage()
    return number


def _cut(feed: Feed) -> Iterator[Batch]:
    """The rows as parts; views where they lie in memory as they are."""
    if feed.parent is None:
        yield from (feed._rows.run(*cut, copy=False) for cut in feed._rows.cuts(PART_ROWS))
    else:
        yield from (feed.batch(slice(a, a + PART_ROWS)) for a in range(0, max(1, len(feed)), PART_ROWS))
