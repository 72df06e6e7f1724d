"""Parquet: a feed at any URL that fsspec opens (HDFS, S3, ...), one Parquet file a part, readable without h3lab.

::

    manifest-000002.json       spec, pipeline, parts with rows and files; numbered, the highest one is current
    pipeline-2.h3lab           the fitted pipeline that manifest 2 names
    parts/00003.9f3c….parquet  the rows of a part: lists for x, then y, weight, key, ...

Training reads rows in any order many times over, which no file system far away is for. So a part is fetched once a
machine, into memory-mapped columns under ``$H3LAB_HOME/cache``, which all processes there share; its hash is checked on
the way. Files are only added and, once no manifest names them, removed.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from h3lab import home
from h3lab.batch import Batch
from h3lab.errors import DamagedData, DataError, H3labError, StorageError, redacted
from h3lab.feeds import rows
from h3lab.feeds.rows import Rows, Runs
from h3lab.serial import codec
from h3lab.stores import tables
from h3lab.stores.columns import FORMAT, KEPT, Columns, Parts
from h3lab.urls import reached

#: What the cache of a machine holds at most, in bytes, unless ``$H3LAB_CACHE_BYTES`` says otherwise.
CACHE_BYTES = 50e9
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
        import pyarrow.parquet as pq

        for column, array in rows.columns(batch).items():
            if array.dtype.hasobject:
                raise DataError(f"{name}.{column} has Python objects ({array.dtype}); prepared rows are numbers.")
        size = sum(rows.bytes_of(array) for array in rows.columns(batch).values())
        identity = rows.identity(batch)
        file = f"{name}.{identity[:16]}.parquet"
        with self._writing(size):
            self._system.makedirs(self._path("parts"), exist_ok=True)
            with self._system.open(self._path("parts", file), "wb") as opened:
                pq.write_table(tables.table_of(batch), opened, compression="zstd")
            stored = int(self._system.info(self._path("parts", file))["size"])
        return {"name": name, "rows": len(batch), "size": size, "hash": identity, "file": file, "stored": stored}

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
        with self._writing(len(data)):
            self._system.makedirs(self._path(), exist_ok=True)
            if pipeline_document is not None:
                self._put(f"pipeline-{number}.h3lab", codec.pack(pipeline_document))
            self._put(f"manifest-{number:06d}.json", data)
        return number

    def _put(self, name: str, data: bytes) -> None:
        """A file that is there whole or not at all: an object is; elsewhere a draft is renamed."""
        system, final = self._system, self._path(name)
        if "s3" in system.protocol or "gs" in system.protocol or "abfs" in system.protocol:
            system.pipe_file(final, data)
            return
        draft = self._path(f".draft.{os.getpid()}.{name}")
        system.pipe_file(draft, data)
        system.mv(draft, final)
        if not system.exists(final):
            raise OSError(f"{name} could not be renamed into place")

    def _listing(self, *names: str) -> dict[str, int]:
        """Name → bytes of the files of a folder; none where it is not there."""
        system = self._system
        system.invalidate_cache()  # another process may have written
        try:
            found = system.ls(self._path(*names), detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:  # each file system raises what its library does: botocore, requests, ...
            raise self._refused(error) from error
        return {str(one["name"]).rstrip("/").rpartition("/")[2]: int(one["size"] or 0) for one in found}

    def _numbers(self, beginning: str = "manifest-") -> list[int]:
        names = [name for name in self._listing() if name.startswith(beginning)]
        return sorted(int(name.partition(".")[0].rpartition("-")[2]) for name in names)

    def manifest(self, number: int | None = None) -> dict[str, Any]:
        """A manifest by its number, or the current one. StorageError where nothing is stored, or no longer."""
        numbers = self._numbers()
        if not numbers:
            raise StorageError(f"no feed is stored at {self.place}. Make one with lab.prepare(pipeline, rows, to=...).")
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
            raise StorageError(f"{self.place}/{name} has layout {layout}; this h3lab reads up to {FORMAT}. Update it.")
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
        try:
            return bytes(self._system.cat_file(self._path(*names)))
        except FileNotFoundError as error:
            raise DamagedData(f"{'/'.join([self.place, *names])} is missing; prepare the feed again.") from error
        except Exception as error:
            raise self._refused(error) from error

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
        runs = Runs(Rows(parts, lengths, nbytes), lambda number, begin, end: parts[number], far=True)
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
            self._system.rm_file(path)
        return freed

    @contextmanager
    def _writing(self, wanted: int) -> Iterator[None]:
        try:
            yield
        except H3labError:
            raise
        except Exception as error:
            raise StorageError(
                f"{self.place} cannot be written ({wanted:,} bytes): {redacted(str(error))}. What was stored before is "
                "still usable."
            ) from error

    def _refused(self, error: Exception) -> StorageError:
        return StorageError(f"{self.place} cannot be reached: {redacted(str(error))}")


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
