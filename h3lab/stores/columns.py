"""Columns: a folder of prepared rows, one file an array and part, mapped into memory by every process that reads them.

::

    manifest-000002.json   and pipeline-2.h3lab: a state (``stores.states``)
    parts/00003.x.9f3c…    raw bytes of one array, C order, little-endian, named after their hash

It knows files, sizes and hashes; it does not know what the rows mean. Files are never changed, only added and, once no
state names them, removed: readers see the old set or the new one.
"""

from __future__ import annotations

import hashlib
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
from h3lab.errors import DamagedData, DataError, FeedNotFound
from h3lab.feeds import rows
from h3lab.feeds.rows import Rows, Runs, is_sparse
from h3lab.stores import checks
from h3lab.stores.folders import Folder, Hold, allow_open, refused, sync, too_many
from h3lab.stores.parts import Parts
from h3lab.stores.runs import FileRuns
from h3lab.stores.states import DAMAGED, States, name_of
from h3lab.stores.turns import FolderTurn

_CHUNK = 1 << 23
_SPECIAL = re.compile(r"[^\w.-]")


class Columns:
    """The store of one folder. Any process may ``write`` parts at the same time; one commits."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.turn = FolderTurn(self.folder)
        self._parts = self.folder / "parts"
        self._files = Folder(self.folder)
        self._states = States(self._files)

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
            final.with_name(final.name + DAMAGED).unlink(missing_ok=True)  # said of what was there before
        except OSError as error:
            raise refused(error, self.folder, len(view)) from error
        finally:
            if draft.exists():
                draft.unlink()
        return {"file": final.name, "size": len(view), "sha256": sha.hexdigest(), "sums": checks.sums(view)}

    def commit(self, manifest: Mapping[str, Any], pipeline_document: Any = None) -> int:
        """Make ``manifest`` (JSON-able, with ``parts``, the entries of :meth:`write`, in order) the current one, and
        return its number. DamagedData names a file that is missing or has another size."""
        known = self._synced()
        try:
            for file in _files(manifest):
                self._look(file)
                if file["file"] not in known:
                    sync(self._parts / file["file"])
            if self._parts.exists():
                sync(self._parts)
        except OSError as error:
            raise refused(error, self.folder, 0) from error
        return self._states.add(manifest, pipeline_document)

    def _synced(self) -> set[str]:
        """Files that are on the disk, because the current state names them."""
        try:
            return {file["file"] for file in _files(self.manifest())}
        except (FeedNotFound, DamagedData):
            return set()

    def manifest(self, number: int | None = None) -> dict[str, Any]:
        """A manifest by its number, or the current one. StorageError where nothing is stored, or no longer; DamagedData
        where it cannot be read."""
        return self._states.manifest(number)

    def pipeline(self, manifest: Mapping[str, Any]) -> Any:
        """The document of the pipeline that was committed with a manifest, or None; DamagedData where it is not what
        was written."""
        return self._states.pipeline(manifest)

    def rows(self, manifest: Mapping[str, Any]) -> Rows:
        """All parts of a manifest; each is opened and checked when a row of it is first asked for. They stay readable
        as long as these rows live, whatever is committed meanwhile."""
        entries = manifest["parts"]
        if not entries:
            raise DataError(f"the feed in {self.folder} has no parts.")
        hold = self._holding(manifest["number"])
        allow_open(2 * sum(self._look(file).st_size > 0 for file in _files(manifest)))  # gathered, and fetched ahead

        def one(number: int, name: str) -> Any:
            array = entries[number]["arrays"].get(name)
            return None if array is None else self._column(array)

        nbytes, lengths = sum(entry["size"] for entry in entries), [entry["rows"] for entry in entries]
        unchecked = Rows(Parts(partial(self.read, check=False), entries, hold), lengths, nbytes)
        runs = FileRuns(unchecked, entries, self._file)
        told = Runs(unchecked, runs.fetch, runs.release)
        return Rows(Parts(self.read, entries, hold), lengths, nbytes, one, runs=told)

    def _holding(self, number: int) -> Hold:
        hold = self._files.hold(name_of(number))
        if hold is None:
            raise self._states.gone(number)
        return hold

    def kept(self, entries: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Whether each of these parts is there with the sizes that were written, and no reader found other bytes."""
        there = self._files.listing("parts") if entries else {}
        return [
            all(there.get(file["file"]) == file["size"] and file["file"] + DAMAGED not in there for file in files)
            for files in (list(_files({"parts": [entry]})) for entry in entries)
        ]

    def read(self, entry: Mapping[str, Any], check: bool = True) -> Batch:
        """The rows of one part, mapped read-only. DamagedData names a file that is not what its entry says; without
        ``check``, only of what its rows cannot be found without."""
        return rows.batch_of({name: self._column(array, check) for name, array in entry["arrays"].items()})

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
        try:
            with open(known.path, "rb") as opened:
                mapped = mmap.mmap(opened.fileno(), file["size"], access=mmap.ACCESS_READ)
        except OSError as error:
            if told := too_many(error, str(self.folder)):
                raise told from error
            raise
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
        """Remove all but the newest two states and those that a living reader has opened, and what they do not name;
        the bytes that became free. StorageError while another process prepares here."""
        with self.turn.also():
            return self._states.collect_garbage(lambda manifest: (file["file"] for file in _files(manifest)))


def _files(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for entry in manifest["parts"]:
        for array in entry["arrays"].values():
            yield from array["files"].values()
