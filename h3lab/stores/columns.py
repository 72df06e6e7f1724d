"""Columns: a folder of prepared rows, one file an array and part, mapped into memory by every process that reads them.

::

    manifest-000002.json   spec, pipeline, parts with rows and files; numbered, immutable, the highest one is current
    pipeline-2.h3lab       the fitted pipeline that manifest 2 names
    parts/00003.x.9f3c…    raw bytes of one array, C order, little-endian, named after their hash

It knows files, sizes and hashes; it does not know what the rows mean. Files are never changed, only added and, once no
manifest names them, removed: readers see the old set or the new one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from h3lab.batch import Batch
from h3lab.errors import DamagedData, DataError, FeedNotFound, StorageError
from h3lab.feeds import rows
from h3lab.feeds.rows import Rows, Runs, is_sparse
from h3lab.home import read_json, replace_file
from h3lab.serial import codec
from h3lab.stores import checks
from h3lab.stores.parts import Parts
from h3lab.stores.runs import FileRuns

#: Number of the layout; a reader refuses another one.
FORMAT = 2
#: Manifests that are kept, so that a feed that was just opened can still be read after the next commit.
KEPT = 2
_CHUNK = 1 << 23
_SPECIAL = re.compile(r"[^\w.-]")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Columns:
    """The store of one folder. Any process may ``write`` parts at the same time; one commits."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._parts = self.folder / "parts"

    def write(self, name: str, batch: Batch) -> dict[str, Any]:
        """Write one part; returns its entry for the manifest. Repeatable: equal rows give equal files. StorageError
        where the disk is full; nothing that was committed is touched."""
        arrays = {column: self._write_column(f"{name}.{column}", a) for column, a in rows.columns(batch).items()}
        files = [file for array in arrays.values() for file in array["files"].values()]
        known = {
            column: [array["shape"], {n: [file["dtype"], file["sha256"]] for n, file in array["files"].items()}]
            for column, array in arrays.items()
        }
        size = sum(file["size"] for file in files)
        return {"name": name, "rows": len(batch), "size": size, "hash": rows.identity_of(known), "arrays": arrays}

    def _write_column(self, name: str, column: Any) -> dict[str, Any]:
        if column.dtype.hasobject:
            raise DataError(f"{name} has Python objects ({column.dtype}); prepared rows are numbers.")
        kind = "csr" if is_sparse(column) else "dense"
        written = {}
        for piece, array in rows.pieces(column).items():
            file = self._write_file(f"{name}.{piece}" if kind == "csr" else name, array)
            written[piece] = {"dtype": array.dtype.str, "shape": list(array.shape), **file}
        return {"kind": kind, "shape": [int(n) for n in column.shape], "files": written}

    def _write_file(self, name: str, array: np.ndarray) -> dict[str, Any]:
        view = memoryview(array.reshape(-1).view(np.uint8).data if array.size else b"")
        draft = self._parts / f".draft.{os.getpid()}.{secrets.token_hex(8)}"
        sha = hashlib.sha256()
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
            with open(draft, "xb", buffering=0) as file:
                for start in range(0, len(view), _CHUNK):
                    chunk = view[start : start + _CHUNK]
                    sha.update(chunk)
                    while chunk:
                        chunk = chunk[file.write(chunk) :]
            final = self._parts / f"{_SPECIAL.sub('_', name)}.{sha.hexdigest()[:16]}"
            os.replace(draft, final)
        except OSError as error:
            raise _refused(error, self.folder, len(view)) from error
        finally:
            if draft.exists():
                draft.unlink()
        return {"file": final.name, "size": len(view), "sha256": sha.hexdigest(), "sums": checks.sums(view)}

    def commit(self, manifest: Mapping[str, Any], pipeline_document: Any = None) -> int:
        """Make ``manifest`` (JSON-able, with ``parts``, the entries of :meth:`write`, in order) the current one, and
        return its number. DamagedData names a file that is missing or has another size."""
        known = {file["file"] for number in self._numbers()[-1:] for file in _files(self.manifest(number))}
        for file in _files(manifest):
            self._look(file)
            if file["file"] not in known:
                _sync(self._parts / file["file"])
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _sync(self._parts)
            number = max([*self._numbers(), *self._numbers("pipeline-*.h3lab")], default=0) + 1
            while not self._claim(number, manifest, pipeline_document):
                number += 1
            _sync(self.folder)
        except OSError as error:
            raise _refused(error, self.folder, len(json.dumps(manifest))) from error
        return number

    def _claim(self, number: int, manifest: Mapping[str, Any], document: Any) -> bool:
        """Write both files of a number, the manifest last; False where another process has taken the number."""
        full: dict[str, Any] = {"format": FORMAT, "number": number, **manifest}
        contents = {f"manifest-{number:06d}.json": json.dumps(full, indent=1, allow_nan=False).encode() + b"\n"}
        if document is not None:
            contents = {f"pipeline-{number}.h3lab": codec.pack(document)} | contents
        for name, data in contents.items():
            draft = self.folder / f".draft.{secrets.token_hex(8)}"
            try:
                replace_file(draft, data, durable=True)
                # A link, not a rename: it fails where the number is taken, so a manifest never changes.
                os.link(draft, self.folder / name)
            except FileExistsError:
                return False
            finally:
                draft.unlink(missing_ok=True)
        return True

    def _numbers(self, pattern: str = "manifest-*.json") -> list[int]:
        return sorted(_number(path) for path in self.folder.glob(pattern))

    def manifest(self, number: int | None = None) -> dict[str, Any]:
        """A manifest by its number, or the current one. StorageError where nothing is stored, or no longer."""
        if not (numbers := self._numbers()):
            raise FeedNotFound(
                f"no feed is stored in {self.folder}. Make one with lab.prepare(pipeline, rows, to=...)."
            )
        chosen = numbers[-1] if number is None else number
        if chosen not in numbers:
            raise StorageError(
                f"state {chosen} of the feed in {self.folder} is gone; it was prepared again since. Open it anew."
            )
        path = self.folder / f"manifest-{chosen:06d}.json"
        try:
            found: dict[str, Any] = read_json(path)
            layout = found["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedData(f"{path} cannot be read; prepare the feed again.") from error
        if layout != FORMAT:
            what = "Update h3lab." if layout > FORMAT else "Prepare the feed again."
            raise FeedNotFound(f"{path} has layout {layout}; this h3lab reads {FORMAT}. {what}")
        return found

    def pipeline(self, manifest: Mapping[str, Any]) -> Any:
        """The document of the pipeline that was committed with a manifest, or None."""
        path = self.folder / f"pipeline-{manifest['number']}.h3lab"
        try:
            return codec.unpack(path.read_bytes())
        except FileNotFoundError:
            if manifest.get("pipeline") is None:
                return None
            raise DamagedData(f"{path} is missing; prepare the feed again.") from None
        except DamagedData as error:
            raise DamagedData(f"{path}: {error}") from error

    def rows(self, manifest: Mapping[str, Any]) -> Rows:
        """All parts of a manifest; each is opened and checked when a row of it is first asked for."""
        entries = manifest["parts"]
        if not entries:
            raise DataError(f"the feed in {self.folder} has no parts.")
        for file in _files(manifest):
            self._look(file)

        def one(number: int, name: str) -> Any:
            array = entries[number]["arrays"].get(name)
            return None if array is None else self._column(array)

        nbytes, lengths = sum(entry["size"] for entry in entries), [entry["rows"] for entry in entries]
        unchecked = Rows(Parts(partial(self.read, check=False), entries), lengths, nbytes)
        runs = FileRuns(unchecked, entries, self._file)
        told = Runs(unchecked, runs.fetch, runs.release)
        return Rows(Parts(self.read, entries), lengths, nbytes, one, runs=told)

    def read(self, entry: Mapping[str, Any], check: bool = True) -> Batch:
        """The rows of one part, mapped read-only. DamagedData names a file that is not what its entry says; without
        ``check``, only of what its rows cannot be found without."""
        return rows.batch_of({name: self._column(array, check) for name, array in entry["arrays"].items()})

    def kept(self, entries: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Whether each of these parts is there, with the sizes that were written."""
        sizes = {path.name: path.stat().st_size for path in self._parts.glob("*")}
        return [all(sizes.get(f["file"]) == f["size"] for f in _files({"parts": [entry]})) for entry in entries]

    def _column(self, array: Mapping[str, Any], check: bool = True) -> Any:
        pieces = {piece: self._map(file, check or piece == "indptr") for piece, file in array["files"].items()}
        if array["kind"] == "dense":
            return pieces["data"]
        from scipy import sparse

        return sparse.csr_matrix((pieces["data"], pieces["indices"], pieces["indptr"]), tuple(array["shape"]))

    def _map(self, file: Mapping[str, Any], check: bool = True) -> np.ndarray:
        dtype, shape = np.dtype(file["dtype"]), tuple(file["shape"])
        known = self._file(file)
        if not file["size"]:
            return np.empty(shape, dtype)
        with open(known.path, "rb") as opened:
            mapped = mmap.mmap(opened.fileno(), file["size"], access=mmap.ACCESS_READ)
        if check:
            known.check(memoryview(mapped))
        checks.scatter(mapped)
        return np.frombuffer(mapped, dtype).reshape(shape)

    def _file(self, file: Mapping[str, Any]) -> checks.Checked:
        return checks.known(self._parts / file["file"], self._look(file), file["sums"])

    def _look(self, file: Mapping[str, Any]) -> os.stat_result:
        path = self._parts / file["file"]
        try:
            found = path.stat()
        except FileNotFoundError as error:
            raise DamagedData(f"{path} is missing; prepare the feed again.") from error
        if found.st_size != file["size"]:
            raise DamagedData(
                f"{path} has {found.st_size:,} bytes, {file['size']:,} were written; it is damaged. Prepare again."
            )
        return found

    def collect_garbage(self) -> int:
        """Remove what none of the last two manifests names, and return its bytes. Only while nobody writes parts."""
        kept = self._numbers()[-KEPT:]
        names = {file["file"] for number in kept for file in _files(self.manifest(number))}
        old = [path for path in self._parts.glob("*") if path.name not in names]
        for pattern in (".draft.*", "..draft.*"):  # of a committer that died, the second while it wrote
            old += self.folder.glob(pattern)
        for pattern in ("manifest-*.json", "pipeline-*.h3lab"):
            old += [path for path in self.folder.glob(pattern) if _number(path) not in kept]
        freed = 0
        # Manifests go first, so that none names a file that is gone.
        for path in sorted(set(old), key=lambda path: not path.name.startswith("manifest-")):
            freed += path.stat().st_size
            path.unlink()
        return freed


def _files(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for entry in manifest["parts"]:
        for array in entry["arrays"].values():
            yield from array["files"].values()


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refused(error: OSError, folder: Path, wanted: int) -> StorageError:
    if error.errno in _FULL:
        free = "" if not folder.exists() else f", {_free(folder):,} are free"
        return StorageError(
            f"the disk of {folder} is full (or a limit is reached): {wanted:,} bytes were wanted{free}. "
            "What was stored before is still usable. Free some space, or prepare to another folder."
        )
    return StorageError(f"{folder} cannot be written: {error}")


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
