"""Parquet: a feed at any URL that fsspec opens (HDFS, S3, ...), one Parquet file a part, readable without h3lab.

::

    manifest-000002.json       spec, pipeline, parts with rows and files; numbered, the highest one is current
    pipeline-2.h3lab           the fitted pipeline that manifest 2 names
    parts/00003.9f3c….parquet  the rows of a part: lists for x, then y, weight, key, ...; named after its bytes

Training reads rows in any order many times over, which no file system far away is for. So a part is fetched once a
machine, into memory-mapped columns under ``$H3LAB_HOME/cache``, which all processes there share; its hash is checked on
the way. Files are only added and, once no manifest names them, removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from h3lab import home, servers
from h3lab.batch import Batch
from h3lab.errors import DamagedData, DataError, FeedNotFound, H3labError, StorageError, redacted
from h3lab.feeds import rows
from h3lab.feeds.rows import Rows, Runs
from h3lab.serial import codec
from h3lab.servers import patiently
from h3lab.stores import tables
from h3lab.stores.cache import make_room
from h3lab.stores.columns import FORMAT, KEPT, Columns
from h3lab.stores.parts import Parts
from h3lab.urls import reached, server

Answer = TypeVar("Answer")

#: How long another process that fetches the same part is waited for.
FETCH_SECONDS = 600.0


class Parquet:
    """The store of one URL. Any process may ``write`` parts at the same time; one commits.

    ``folder``: the URL, with its password where it was given one; ``place``: what may be shown.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder.rstrip("/")
        self.place = redacted(self.folder)

    @property
    def _system(self) -> Any:
        return reached(self.folder)[0]

    def _path(self, *names: str) -> str:
        return "/".join([reached(self.folder)[1].rstrip("/"), *names])

    def write(self, name: str, batch: Batch) -> dict[str, Any]:
        """Write one part; returns its entry for the manifest. Equal rows give equal hashes and names."""
        for column, array in rows.columns(batch).items():
            if array.dtype.hasobject:
                raise DataError(f"{name}.{column} has Python objects ({array.dtype}); prepared rows are numbers.")
        size = sum(rows.bytes_of(array) for array in rows.columns(batch).values())
        data = tables.packed(batch)
        file = f"{name}.{hashlib.blake2b(data, digest_size=8).hexdigest()}.parquet"
        self._asked("be written", lambda: self._put_part(file, data), len(data))
        entry = {"name": name, "rows": len(batch), "size": size, "hash": rows.identity(batch)}
        return {**entry, "file": file, "stored": len(data)}

    def _put_part(self, file: str, data: bytes) -> None:
        system = self._system
        system.invalidate_cache()
        try:
            there = int(system.info(self._path("parts", file))["size"])
        except FileNotFoundError:
            there = -1
        if there == len(data):  # who reads the current feed may be reading it
            return
        if there >= 0:
            system.rm_file(self._path("parts", file))
        system.makedirs(self._path("parts"), exist_ok=True)
        self._put(data, "parts", file)

    def commit(self, manifest: Mapping[str, Any], pipeline_document: Any = None) -> int:
        """Make ``manifest`` (JSON-able, with ``parts``, the entries of :meth:`write`, in order) the current one, and
        return its number. DamagedData names a file that is missing or has another size. One process commits at a time:
        object stores cannot tell two apart."""
        there = self._listing("parts")
        for entry in manifest["parts"]:
            self._look(entry, there)
        number = max([*self._numbers(), *self._numbers("pipeline-")], default=0) + 1
        full: dict[str, Any] = {"format": FORMAT, "number": number, **manifest}
        data = json.dumps(full, indent=1, allow_nan=False).encode() + b"\n"
        self._asked("be written", lambda: self._system.makedirs(self._path(), exist_ok=True))
        if pipeline_document is not None:
            packed = codec.pack(pipeline_document)
            self._asked("be written", lambda: self._put(packed, f"pipeline-{number}.h3lab"), len(packed))
        self._asked("be written", lambda: self._put(data, f"manifest-{number:06d}.json"), len(data))
        return number

    def _put(self, data: bytes, *names: str) -> None:
        """A file that is there whole or not at all: an object is; elsewhere a draft is renamed."""
        system, final = self._system, self._path(*names)
        if {"s3", "gs", "abfs"} & set(system.protocol):
            system.pipe_file(final, data)
            return
        draft = self._path(*names[:-1], f".draft.{secrets.token_hex(8)}.{names[-1]}")
        system.pipe_file(draft, data)
        system.mv(draft, final)
        # WebHDFS refuses a rename onto a file, in silence; whoever was faster, or asked twice, has put the same bytes.
        if int(system.info(final)["size"]) != len(data):
            raise OSError(f"{names[-1]} could not be renamed into place")

    def _listing(self, *names: str) -> dict[str, int]:
        """Name → bytes of the files of a folder; none where it is not there."""
        found = self._asked("be reached", lambda: self._listed(*names))
        return {str(one["name"]).rstrip("/").rpartition("/")[2]: int(one["size"] or 0) for one in found}

    def _listed(self, *names: str) -> list[dict[str, Any]]:
        system = self._system
        system.invalidate_cache()  # another process may have written
        try:
            return list(system.ls(self._path(*names), detail=True))
        except FileNotFoundError as error:
            if servers.no_bucket(error):  # which makedirs would create, under a name that may be misspelt
                bucket = self._path().partition("/")[0]
                raise StorageError(
                    f"there is no bucket {bucket!r} for {self.place}. Create it first, if its name is right."
                ) from error
            return []

    def _numbers(self, beginning: str = "manifest-") -> list[int]:
        names = [name for name in self._listing() if name.startswith(beginning)]
        return sorted(int(name.partition(".")[0].rpartition("-")[2]) for name in names)

    def manifest(self, number: int | None = None) -> dict[str, Any]:
        """A manifest by its number, or the current one. StorageError where nothing is stored, or no longer."""
        numbers = self._numbers()
        if not numbers:
            raise FeedNotFound(f"no feed is stored at {self.place}. Make one with lab.prepare(pipeline, rows, to=...).")
        chosen = numbers[-1] if number is None else number
        name = f"manifest-{chosen:06d}.json"
        if chosen not in numbers:
            raise StorageError(
                f"state {chosen} of the feed at {self.place} is gone; it was prepared again since. Open it anew."
            )
        try:
            found: dict[str, Any] = json.loads(self._bytes(name))
            layout = found["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedData(f"{self.place}/{name} cannot be read; prepare the feed again.") from error
        if layout > FORMAT:
            raise FeedNotFound(f"{self.place}/{name} has layout {layout}; this h3lab reads up to {FORMAT}. Update it.")
        return found

    def pipeline(self, manifest: Mapping[str, Any]) -> Any:
        """The document of the pipeline that was committed with a manifest, or None."""
        name = f"pipeline-{manifest['number']}.h3lab"
        if manifest.get("pipeline") is None and name not in self._listing():
            return None
        try:
            return codec.unpack(self._bytes(name))
        except DamagedData as error:
            raise DamagedData(f"{self.place}/{name}: {error}") from error

    def _bytes(self, *names: str) -> bytes:
        def get() -> bytes:
            try:
                return bytes(self._system.cat_file(self._path(*names)))
            except FileNotFoundError as error:
                raise DamagedData(f"{'/'.join([self.place, *names])} is missing; prepare the feed again.") from error

        return self._asked("be reached", get)

    def rows(self, manifest: Mapping[str, Any]) -> Rows:
        """All parts of a manifest; each is fetched when a row of it is first asked for on this machine."""
        entries = manifest["parts"]
        if not entries:
            raise DataError(f"the feed at {self.place} has no parts.")
        there = self._listing("parts")
        for entry in entries:
            self._look(entry, there)
        parts, lengths = Parts(self.read, entries), [entry["rows"] for entry in entries]
        nbytes = sum(entry["size"] for entry in entries)
        runs = Runs(Rows(parts, lengths, nbytes), lambda number, begin, end: parts[number], _stays, far=True)
        return Rows(parts, lengths, nbytes, runs=runs)

    def read(self, entry: Mapping[str, Any]) -> Batch:
        """The rows of one part, mapped read-only from this machine's cache. DamagedData names a file whose rows are not
        those that were written."""
        folder = home.room("cache") / entry["hash"]
        local = Columns(folder)
        found = _kept(local)
        if found is None:
            with home.alone(folder, _patient(entry)):
                found = _kept(local)
                if found is None:
                    make_room(entry["size"], folder.parent)
                    local.commit({"parts": [local.write("part", self._fetched(entry))]})
                    found = local.manifest()
        os.utime(folder)  # what was used last is removed last
        return local.read(found["parts"][0])

    def _fetched(self, entry: Mapping[str, Any]) -> Batch:
        import pyarrow as pa
        import pyarrow.parquet as pq

        where = f"{self.place}/parts/{entry['file']}"
        data = self._bytes("parts", entry["file"])
        try:
            batch = tables.batch_of(pq.read_table(pa.BufferReader(data)))
            same = rows.identity(batch) == entry["hash"]
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise DamagedData(f"{where} is damaged: {error}. Prepare again.") from error
        if not same:
            raise DamagedData(f"{where} is damaged: its rows are not those that were written. Prepare again.")
        return batch

    def kept(self, entries: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Whether each of these parts is there, with the size that was written."""
        there = self._listing("parts") if entries else {}
        return [there.get(entry["file"]) == entry["stored"] for entry in entries]

    def _look(self, entry: Mapping[str, Any], there: Mapping[str, int]) -> None:
        found = there.get(entry.get("file", ""))
        where = f"{self.place}/parts/{entry.get('file')}"
        if found is None:
            raise DamagedData(f"{where} is missing; prepare the feed again.")
        if found != entry["stored"]:
            raise DamagedData(f"{where} has {found:,} bytes, {entry['stored']:,} were written; it is damaged.")

    def collect_garbage(self) -> int:
        """Remove what none of the last two manifests names, and return its bytes. Only while nobody writes parts."""
        kept = self._numbers()[-KEPT:]
        names = {entry["file"] for number in kept for entry in self.manifest(number)["parts"]}
        freed, here = 0, self._listing()
        # Manifests go first, so that none names a file that is gone.
        old = [n for n in sorted(here) if n.startswith(("manifest-", "pipeline-")) and _number(n) not in kept]
        old += [name for name in here if name.startswith(".draft.")]
        parts = {name: size for name, size in self._listing("parts").items() if name not in names}
        for path, size in [
            *((self._path(n), here[n]) for n in old),
            *((self._path("parts", n), s) for n, s in parts.items()),
        ]:
            freed += size
            self._asked("be tidied", partial(self._remove, path))
        return freed

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):  # asked twice
            self._system.rm_file(path)

    def _asked(self, what: str, ask: Callable[[], Answer], wanted: int = 0) -> Answer:
        """What ``ask`` gives. A server that has gone is waited for; what its library raises comes as StorageError."""
        try:
            return patiently(ask, server(self.folder))
        except H3labError:
            raise
        except Exception as error:  # each file system raises what its library does: botocore, requests, ...
            wanting = f" ({wanted:,} bytes)" if wanted else ""
            raise StorageError(
                f"{self.place} cannot {what}{wanting} at {server(self.folder)}: {servers.said(error)}. "
                f"{servers.advice(error)} What was stored before is still usable."
            ) from servers.shown(error)


def _stays(number: int, begin: int, end: int) -> None:
    """Parts stay mapped: they are this machine's copy, and as often needed again."""


def _number(name: str) -> int:
    return int(name.partition(".")[0].rpartition("-")[2])


def _kept(local: Columns) -> dict[str, Any] | None:
    try:
        return local.manifest()
    except (StorageError, DamagedData):
        return None


def _patient(entry: Mapping[str, Any]) -> Callable[[float], None]:
    def waits(seconds: float) -> None:
        if seconds > FETCH_SECONDS:
            raise StorageError(f"another process has been fetching part {entry['name']} for {seconds:.0f} s.")

    return waits
