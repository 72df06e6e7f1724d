"""Parquet: a feed at any URL that fsspec opens (HDFS, S3, ...), one Parquet file a part, readable without h3lab.

::

    manifest-000002.json       and pipeline-2.h3lab: a state (``stores.states``)
    parts/00003.9f3c….parquet  the rows of a part: lists for x, then y, weight, key, ...
    .lease-3                   who prepares there at the moment (``stores.turns``)

Training reads rows in any order many times over, which no file system far away is for. So a part is fetched once a
machine, into memory-mapped columns under ``$H3LAB_HOME/cache``, which all processes there share; its hash is checked on
the way. Files are only added and, once no manifest names them, removed.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from h3lab import home
from h3lab.batch import Batch
from h3lab.errors import DamagedData, DataError, H3labError, StorageError
from h3lab.feeds import rows
from h3lab.feeds.rows import Rows, Runs
from h3lab.stores import tables
from h3lab.stores.cache import make_room
from h3lab.stores.columns import Columns
from h3lab.stores.folders import allow_open
from h3lab.stores.objects import Objects
from h3lab.stores.parts import Parts
from h3lab.stores.states import DAMAGED, States
from h3lab.stores.turns import Lease

#: How long another process that fetches the same part is waited for.
FETCH_SECONDS = 600.0


class Parquet:
    """The store of one URL. Any process may ``write`` parts at the same time; one commits.

    ``folder``: the URL, with its password where it was given one; ``place``: what may be shown.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder.rstrip("/")
        self._files = Objects(self.folder)
        self.place = self._files.place
        self.turn = Lease(self._files, self.folder)
        self._states = States(self._files)

    def write(self, name: str, batch: Batch) -> dict[str, Any]:
        """Write one part; returns its entry for the manifest. Equal rows give equal hashes. Each part that is written
        is a file of its own: one that a reader may be reading is never written over, and a damaged one never taken for
        good."""
        for column, array in rows.columns(batch).items():
            if array.dtype.hasobject:
                raise DataError(f"{name}.{column} has Python objects ({array.dtype}); prepared rows are numbers.")
        size = sum(rows.bytes_of(array) for array in rows.columns(batch).values())
        identity, data = rows.identity(batch), tables.packed(batch)
        file = f"{name}.{identity[:16]}.{secrets.token_hex(8)}.parquet"
        self._files.put(f"parts/{file}", data)
        return {"name": name, "rows": len(batch), "size": size, "hash": identity, "file": file, "stored": len(data)}

    def commit(self, manifest: Mapping[str, Any], pipeline_document: Any = None) -> int:
        """Make ``manifest`` (JSON-able, with ``parts``, the entries of :meth:`write`, in order) the current one, and
        return its number. DamagedData names a file that is missing or has another size; StorageError where it is no
        longer this process's turn."""
        if self.turn.held:
            self.turn.confirm()
        there = self._files.listing("parts")
        for entry in manifest["parts"]:
            self._look(entry, there)
        return self._states.add(manifest, pipeline_document)

    def manifest(self, number: int | None = None) -> dict[str, Any]:
        """A manifest by its number, or the current one. StorageError where nothing is stored, or no longer; DamagedData
        where it cannot be read."""
        return self._states.manifest(number)

    def pipeline(self, manifest: Mapping[str, Any]) -> Any:
        """The document of the pipeline that was committed with a manifest, or None; DamagedData where it is not what
        was written."""
        return self._states.pipeline(manifest)

    def rows(self, manifest: Mapping[str, Any]) -> Rows:
        """All parts of a manifest; each is fetched when a row of it is first asked for on this machine."""
        entries = manifest["parts"]
        if not entries:
            raise DataError(f"the feed at {self.place} has no parts.")
        number, there = manifest["number"], self._files.listing("parts")
        try:
            for entry in entries:
                self._look(entry, there)
        except DamagedData as error:
            self._still(number, error)
            raise
        allow_open(4 * len(entries))  # x, y, keys and another one
        parts, lengths = Parts(partial(self._of_state, number), entries), [entry["rows"] for entry in entries]
        nbytes = sum(entry["size"] for entry in entries)
        runs = Runs(Rows(parts, lengths, nbytes), lambda number, begin, end: parts[number], _stays, far=True)
        return Rows(parts, lengths, nbytes, runs=runs)

    def _of_state(self, number: int, entry: Mapping[str, Any]) -> Batch:
        try:
            return self.read(entry)
        except DamagedData as error:
            self._still(number, error)
            raise

    def _still(self, number: int, error: DamagedData) -> None:
        """StorageError where a part cannot be read because its whole state was removed."""
        if number not in self._states.numbers():
            raise self._states.gone(number) from error

    def kept(self, entries: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Whether each of these parts is there with the size that was written, and no reader found other rows."""
        there = self._files.listing("parts") if entries else {}
        return [
            there.get(entry["file"]) == entry["stored"] and entry["file"] + DAMAGED not in there for entry in entries
        ]

    def read(self, entry: Mapping[str, Any]) -> Batch:
        """The rows of one part, mapped read-only from this machine's cache. DamagedData names a file whose rows are not
        those that were written."""
        folder = home.room("cache") / entry["hash"]
        found = _cached(folder)
        if found is None:
            with home.alone(folder, _patient(entry)):
                found = _cached(folder)
                if found is None:
                    fetched = self._fetched(entry)
                    shutil.rmtree(folder, ignore_errors=True)  # damaged, or half of it
                    make_room(entry["size"], folder.parent)
                    local = Columns(folder)
                    local.commit({"parts": [local.write("part", fetched)]})
                    found = local.read(local.manifest()["parts"][0])
        with suppress(FileNotFoundError):  # another process has made room, and who has mapped a part keeps it
            os.utime(folder)  # what was used last is removed last
        return found

    def _fetched(self, entry: Mapping[str, Any]) -> Batch:
        import pyarrow as pa
        import pyarrow.parquet as pq

        name = f"parts/{entry['file']}"
        data = self._files.read(name)
        try:
            batch = tables.batch_of(pq.read_table(pa.BufferReader(data)))
            if rows.identity(batch) == entry["hash"]:
                return batch
            why: Any = "its rows are not those that were written"
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            why = error
        with suppress(H3labError):  # who may only read cannot leave it to be seen
            self._files.put(name + DAMAGED, b"")
        raise DamagedData(f"{self.place}/{name} is damaged: {why}. Prepare the feed again.")

    def _look(self, entry: Mapping[str, Any], there: Mapping[str, int]) -> None:
        found = there.get(entry.get("file", ""))
        where = f"{self.place}/parts/{entry.get('file')}"
        if found is None:
            raise DamagedData(f"{where} is missing; prepare the feed again.")
        if found != entry["stored"]:
            raise DamagedData(
                f"{where} has {found:,} bytes, {entry['stored']:,} were written; it is damaged. Prepare the feed again."
            )

    def collect_garbage(self) -> int:
        """Remove all but the newest two states and what they do not name; the bytes that became free. StorageError
        while another process prepares here."""
        with self.turn.also():
            self.turn.confirm()
            return self._states.collect_garbage(lambda manifest: (entry["file"] for entry in manifest["parts"]))


def _stays(number: int, begin: int, end: int) -> None:
    """Parts stay mapped: they are this machine's copy, and as often needed again."""


def _cached(folder: Path) -> Batch | None:
    """The rows of a part in the cache; None where they are not there whole and sound."""
    local = Columns(folder)
    try:
        return local.read(local.manifest()["parts"][0])
    except (StorageError, DamagedData):
        return None


def _patient(entry: Mapping[str, Any]) -> Callable[[float], None]:
    def waits(seconds: float) -> None:
        if seconds > FETCH_SECONDS:
            raise StorageError(f"another process has been fetching part {entry['name']} for {seconds:.0f} s.")

    return waits
