"""Places: files by path, URL, glob or folder, in their natural order, each with the name that its row keys derive from.

It knows fsspec; it does not know what is in a file.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

from h3lab import servers
from h3lab.errors import DataError, H3labError, redacted
from h3lab.servers import patiently
from h3lab.urls import is_url, reached, server

Answer = TypeVar("Answer")

_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class File:
    """One file. ``root``: what its file system is reached by (with a password, where one was given); ``path`` in it;
    ``name``: relative to the folder that was searched, so that a moved folder keeps its row keys."""

    root: str
    path: str
    name: str

    @property
    def shown(self) -> str:
        """The file as it may be printed."""
        if not is_url(self.root):
            return self.path
        return (
            redacted(self.root) if self.root.endswith(self.path) else f"{self.root.partition('://')[0]}://{self.path}"
        )

    def patiently(self, read: Callable[[], Answer]) -> Answer:
        """What ``read`` gives; a server that has gone is waited for."""
        return patiently(read, server(self.root)) if is_url(self.root) else read()

    def open(self) -> Any:
        """A readable file, as Arrow takes it. Never a memory map: reading one whose file was cut ends the process."""
        import pyarrow as pa

        if is_url(self.root):
            return _held(_system(self.root), self.path)
        return pa.OSFile(self.path, "rb")

    def bytes(self, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop``, fewer at the end of the file."""
        if is_url(self.root):
            stop = min(stop, self.size)
            data = bytes(_system(self.root).cat_file(self.path, start=start, end=stop))
            # A web server that knows no ranges sends all of the file.
            return data if len(data) <= stop - start else data[start:stop]
        with open(self.path, "rb") as file:
            file.seek(start)
            return file.read(stop - start)

    @property
    def size(self) -> int:
        """In bytes."""
        return int(self._info()["size"])

    @property
    def version(self) -> str:
        """Changes when the file does."""
        info = self._info()
        marks = ("size", "mtime", "ETag", "etag", "LastModified", "modificationTime", "last_modified", "md5Hash")
        known = [f"{mark}={info[mark]}" for mark in marks if info.get(mark) is not None]
        return hashlib.sha256(";".join(known).encode()).hexdigest()[:16]

    def _info(self) -> dict[str, Any]:
        if not is_url(self.root):
            found = os.stat(self.path)
            return {"size": found.st_size, "mtime": found.st_mtime_ns}
        return dict(_system(self.root).info(self.path))


def _held(system: Any, path: str) -> Any:
    import pyarrow as pa

    class Held(pa.PythonFile):
        """A file that keeps its file system: an archive closes with the last who knows it, its members with it."""

    opened = system.open(path, "rb")
    if isinstance(opened, BytesIO):  # memory:// hands the same object, with one position, to all who open it
        return pa.BufferReader(opened.getvalue())
    file = Held(opened, mode="r")
    file.system = system
    return file


def absolute(what: str | Path) -> str:
    """A URL as it is; a path from the root on, so that it means the same in every process."""
    text = os.fspath(what)
    if is_url(text) and not text.startswith("file://"):
        return text
    return str(Path(os.path.abspath(Path(text.removeprefix("file://")).expanduser())))


def find(what: Sequence[str]) -> list[File]:
    """The files of paths, URLs, globs and folders, in order; DataError where one names none, or a file comes twice."""
    files = [file for text in what for file in _find(text)]
    seen: set[tuple[str, str]] = set()
    for file in files:
        if (file.root if is_url(file.root) else "", file.path) in seen:
            raise DataError(f"{file.shown} is named twice; its rows would count twice.")
        seen.add((file.root if is_url(file.root) else "", file.path))
    names = [file.name for file in files]
    if len(set(names)) < len(names):  # files of the same name in several folders
        files = [File(file.root, file.path, file.shown) for file in files]
    return files


def _find(text: str) -> list[File]:
    try:
        return patiently(lambda: _listed(text), server(text)) if is_url(text) else _listed(text)
    except H3labError:
        raise
    except Exception as error:  # each file system raises what its library does: botocore, aiohttp, paramiko, ...
        advice = servers.advice(error) or "Is the address right, and are the credentials where its library looks?"
        raise DataError(
            f"{redacted(text)} cannot be reached at {server(text)}: {servers.said(error)}. {advice}"
        ) from servers.shown(error)


def _listed(text: str) -> list[File]:
    system, path = reached(text)
    system.invalidate_cache()  # else files that came since the last look are not there
    kind = _kind(system, path)
    if kind == "file":
        return [File(text, path, path.rpartition("/")[2])]
    if kind == "nothing":
        meant = (
            " Its server answers, and has nothing there (404)." if "http" in system.protocol else _meant(system, path)
        )
        raise DataError(f"there is no file {redacted(text)}.{meant}")
    if kind == "directory" and not system.ls(path):
        raise DataError(f"the folder {redacted(text)} is empty; expected one with files, or the path of a file.")
    base = path.rstrip("/") if kind == "directory" else _MAGIC.split(path)[0].rpartition("/")[0]
    listing = system.find(path) if kind == "directory" else system.glob(path, detail=True)
    paths = listing if kind == "directory" else [p for p, info in listing.items() if info["type"] != "directory"]
    names = {p: p[len(base) :].lstrip("/") for p in paths}
    # Names that begin with a dot or an underscore are other programs' notes (Spark's _SUCCESS), unless asked for.
    asked = path.rpartition("/")[2].startswith((".", "_")) and kind == "glob"
    kept = [p for p in paths if asked or not re.search(r"(^|/)[._]", names[p])]
    if not kept:
        raise DataError(f"no file matches {redacted(text)}.{_meant(system, path)}")
    return [File(text, p, names[p]) for p in sorted(kept, key=lambda p: natural(names[p]))]


def _kind(system: Any, path: str) -> str:
    try:
        return str(system.info(path)["type"])
    except FileNotFoundError as error:
        # What fsspec says of every failure of HTTP, a server that is not there included.
        cause = error.__cause__
        if cause is not None and (servers.gone(cause) or servers.refused(cause)):
            raise cause from None
        if servers.no_bucket(error):
            raise DataError(
                f"there is no bucket {path.partition('/')[0]!r}. Is its name right, and the server?"
            ) from error
        return "glob" if _MAGIC.search(path) else "nothing"


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A key that sorts ``part-2`` before ``part-10``."""
    pieces = re.split(r"(\d+)", name)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in pieces if p], name


def _meant(system: Any, path: str) -> str:
    folder, _, name = path.rpartition("/")
    try:
        there = sorted(str(found).rpartition("/")[2] for found in system.ls(folder or "/", detail=False))
    except (OSError, NotImplementedError):
        return f" The folder {redacted(folder)} is not there either."
    close = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" There are: {', '.join(there[:10])}{', ...' if len(there) > 10 else ''}." if there else " It is empty."


def _system(text: str) -> Any:
    return reached(text)[0]
