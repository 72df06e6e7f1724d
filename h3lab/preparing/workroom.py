"""A workroom: the folder for what is kept between the passes of a preparation, gone when it ends.

It knows files and forms of inputs; it does not know what they are kept for. What another process left behind when it
was killed is removed by whoever opens the next workroom beside it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from h3lab.errors import StorageError
from h3lab.home import replace_file
from h3lab.preparing.cells import Cells
from h3lab.serial import codec, signed

PREFIX = ".h3lab-work-"


@contextmanager
def workroom(parent: Path) -> Iterator[Path]:
    """A folder of one's own in ``parent``, mode 0700, removed on leaving whatever happens."""
    clear(parent)
    name = f"{os.getpid()}-{secrets.token_hex(4)}"
    draft, folder = parent / f".h3lab-new-{name}", parent / f"{PREFIX}{name}"
    draft.mkdir(mode=0o700, parents=True)
    with open(draft / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        draft.rename(folder)  # it gets its name when it is locked, else another process could clear it away
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def clear(parent: Path) -> None:
    """Remove workrooms whose process has ended: the lock of a living one cannot be taken."""
    for old in parent.glob(f"{PREFIX}*"):
        try:
            with open(old / "lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old, ignore_errors=True)
        except OSError:  # in use, or another user's, or just being made
            continue


def keep(path: Path, x: Any) -> int:
    """Write an input (Cells, an array, a CSR matrix, a digest with ``arrays()``) for :func:`kept`; its bytes."""
    head, arrays = _taken_apart(x)
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    try:
        with open(draft, "wb") as file:
            np.save(file, np.frombuffer(codec.pack({"form": head, "names": list(arrays)}), np.uint8))
            for array in arrays.values():
                np.save(file, array, allow_pickle=False)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise storage_error(error, path) from error
    return sum(array.nbytes for array in arrays.values())


def kept(path: Path, digest: Any = None) -> Any:
    """The inverse of :func:`keep`; ``digest``: the class that its arrays make, where one was kept."""
    with open(path, "rb") as file:
        head = codec.unpack(np.load(file, allow_pickle=False).data)
        arrays = {name: np.load(file, allow_pickle=False) for name in head["names"]}
    return _put_together(head["form"], arrays, digest)


def _taken_apart(x: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if isinstance(x, Cells):
        return {"kind": "cells", "one": x.one, "bare": x.bare}, {"arrow": _stream(x.table)}
    if hasattr(x, "indptr"):
        x = x.tocsr()
        return {"kind": "csr", "columns": x.shape[1]}, {"data": x.data, "indices": x.indices, "indptr": x.indptr}
    if hasattr(x, "arrays"):
        return {"kind": "digest"}, x.arrays()
    if hasattr(x, "columns"):
        import pyarrow as pa

        return {"kind": "frame"}, {"arrow": _stream(pa.Table.from_pandas(x, preserve_index=False))}
    x = np.asarray(x)
    if not x.dtype.hasobject:
        return {"kind": "array"}, {"array": x}
    import pyarrow as pa

    flat = pa.table({str(i): pa.array(column, from_pandas=True) for i, column in enumerate(x.reshape(len(x), -1).T)})
    return {"kind": "objects", "shape": list(x.shape[1:])}, {"arrow": _stream(flat)}


def _put_together(form: dict[str, Any], arrays: dict[str, np.ndarray], digest: Any) -> Any:
    kind = form["kind"]
    if kind == "array":
        return arrays["array"]
    if kind == "digest":
        return digest.of(arrays)
    if kind == "csr":
        from scipy import sparse

        pieces = (arrays["data"], arrays["indices"], arrays["indptr"])
        return sparse.csr_matrix(pieces, shape=(len(pieces[2]) - 1, form["columns"]), copy=False)
    import pyarrow as pa

    table = pa.ipc.open_stream(pa.py_buffer(arrays["arrow"])).read_all()
    if kind == "cells":
        return Cells(table, form["one"], form["bare"])
    if kind == "frame":
        return table.to_pandas()
    values = [column.to_numpy() for column in table.columns]
    return np.stack([value.astype(object) for value in values], axis=1).reshape(len(table), *form["shape"])


def _stream(table: Any) -> np.ndarray:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return np.frombuffer(sink.getvalue(), np.uint8)


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """A failed write in words."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def storage_error(error: OSError, path: Path) -> StorageError:
    """A failed write in words."""
    if isinstance(error, StorageError):
        return error
    # NumPy's own short writes have words and no number.
    short = error.errno is None and "requested and" in str(error)
    if not short and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(f"{path} cannot be written: {error}")
    rooms = [folder.parent for folder in (path, *path.parents) if folder.name.startswith(PREFIX)]
    place = rooms[0] if rooms else path.parent
    elsewhere = "prepare to another folder"
    if rooms and place == Path(tempfile.gettempdir()):
        elsewhere = "set the environment variable TMPDIR to a folder of another disk before Python starts"
    return StorageError(
        f"the disk of {place} is full (or a limit is reached), so nothing was prepared. What was there before is still "
        f"usable. Free some space, or {elsewhere}."
    )


@dataclass(frozen=True, eq=False)
class Shared:
    """A value for all tasks of a pass. In this process it is itself; other processes get its path and open the signed
    file once, so that a vocabulary does not travel with every task."""

    value: Any
    path: Path

    def __reduce__(self) -> Any:
        if not self.path.exists():
            try:
                signed.dump(self.value, self.path)
            except OSError as error:
                raise storage_error(error, self.path) from error
        return _opened, (self.path,)


@lru_cache(maxsize=4)
def _opened(path: Path) -> Shared:
    return Shared(signed.load(path), path)


@dataclass(frozen=True, eq=False)
class Parcel:
    """A tree on its way back from a task. In this process it is itself; from another one it comes as a file, because
    rows and vocabularies do not go through the executor."""

    tree: Any
    path: Path

    def __reduce__(self) -> Any:
        try:
            replace_file(self.path, codec.pack(self.tree))
        except OSError as error:
            raise storage_error(error, self.path) from error
        return _unpacked, (self.path,)


def _unpacked(path: Path) -> Parcel:
    tree = codec.unpack(path.read_bytes())
    path.unlink()
    return Parcel(tree, path)
