"""Aside: where the bad rows of text files are put down, a file of JSON lines for each file that has some.

Each is written whole whenever the lines of its file are looked at, so it holds what is bad now and nothing twice,
however often that is and in how many processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from h3lab.errors import StorageError, UnknownName, UsageError, redacted
from h3lab.sources.badrows import Bad
from h3lab.sources.places import File, absolute
from h3lab.urls import is_url, reached

#: What is done about bad rows, beside the folder where they are set aside.
POLICIES = ("error", "skip")


def policy_of(on_bad_rows: Any) -> str:
    """``"error"``, ``"skip"``, or a folder from the root on. A word that is neither is a misspelt one: a folder has a
    slash."""
    if isinstance(on_bad_rows, str) and on_bad_rows in POLICIES:
        return on_bad_rows
    if not isinstance(on_bad_rows, str | Path) or not os.fspath(on_bad_rows):
        raise UsageError(
            f"on_bad_rows={on_bad_rows!r} came; expected 'error', 'skip', or a folder to set bad rows aside in, for "
            "example on_bad_rows='bad/'."
        )
    if isinstance(on_bad_rows, str) and not is_url(on_bad_rows) and os.sep not in on_bad_rows:
        raise UnknownName("on_bad_rows", on_bad_rows, [*POLICIES, "or a folder with a slash, such as bad/"])
    return absolute(on_bad_rows)


def check_apart(policy: str, what: Sequence[str], files: Sequence[File]) -> None:
    """UsageError where bad rows would be set aside among the files that are read."""
    if policy in POLICIES:
        return
    below = f"{reached(policy)[1].rstrip('/')}/"
    folders = [f"{reached(text)[1].rstrip('/')}/" for text in what]
    if any(below.startswith(folder) for folder in folders) or any(file.path.startswith(below) for file in files):
        raise UsageError(
            f"on_bad_rows={redacted(policy)!r} lies among the files that are read, so the next reading would take what "
            "is set aside for rows. Give a folder elsewhere, for example on_bad_rows='bad/'."
        )


@contextmanager
def aside(folder: str, file: File) -> Iterator[Any]:
    """A function that puts a bad row of a file down. What it has put down is there when this ends well, instead of what
    was there before. StorageError where the folder cannot be written to."""
    # Files of one name in two folders may be set aside in one.
    mark = hashlib.sha256(file.shown.encode()).hexdigest()[:6]
    name = f"{re.sub(r'^([^/]*://|/)+', '', file.name)}.{mark}.jsonl"
    with tempfile.TemporaryFile("w+b") as draft:
        yield lambda bad: _put(draft, bad, folder, file)
        with _storing(folder, file):
            size = draft.tell()
            draft.seek(0)
            _replace(f"{folder.rstrip('/')}/{name}", draft, size)


@contextmanager
def _storing(folder: str, file: File) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each file system raises what its library does
        raise StorageError(
            f"bad rows of {file.shown} cannot be set aside in {redacted(folder)}: {redacted(str(error))}. Give another "
            "folder, or leave them out with on_bad_rows='skip'."
        ) from error


def _put(draft: IO[bytes], bad: Bad, folder: str, file: File) -> None:
    told: dict[str, Any] = {"file": file.shown, "line": bad.line, "reason": bad.reason}
    try:
        told["text"] = bad.text.decode()
    except UnicodeDecodeError:
        told["bytes"] = bad.text.hex()  # as text it would not be what it was
    with _storing(folder, file):
        draft.write(json.dumps(told, ensure_ascii=False).encode() + b"\n")


def _replace(place: str, draft: IO[bytes], size: int) -> None:
    system, path = reached(place)
    if not size:
        if system.exists(path):
            system.rm_file(path)
        return
    system.makedirs(path.rpartition("/")[0], exist_ok=True)
    if is_url(place):
        with system.open(path, "wb") as file:
            while chunk := draft.read(1 << 20):
                file.write(chunk)
        return
    there = Path(path)
    with tempfile.NamedTemporaryFile("wb", prefix=f".{there.name}.", dir=there.parent, delete=False) as file:
        while chunk := draft.read(1 << 20):
            file.write(chunk)
    os.replace(file.name, there)
