"""Home: where runs, feeds, labs and keys live, and how files there are replaced whole.

``$H3LAB_HOME`` is read at call time; without it, ``h3lab`` in Jupyter's data directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from h3lab.errors import UsageError

POLL_SECONDS = 0.01


def home() -> Path:
    """``$H3LAB_HOME``, made with mode 0700 where it is missing."""
    named = os.environ.get("H3LAB_HOME")
    if named:
        path = Path(named).expanduser().absolute()
    else:
        from jupyter_core.paths import jupyter_data_dir

        path = Path(jupyter_data_dir()) / "h3lab"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def room(name: str) -> Path:
    """A folder of the home (``runs feeds labs keys locks``), made with mode 0700 where it is missing."""
    path = home() / name
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def path_of(value: Any, what: str) -> Path:
    """A path as somebody gave it, ``~`` resolved; UsageError where it is none. ``what``: the argument, for example
    ``to="prepared/reviews"``."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise UsageError(f"{value!r} came as a path; expected text or a pathlib.Path, for example {what}.")
    return Path(value).expanduser()


def replace_file(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file so that readers see the old or the new content, never a mixture; mode 0600.

    ``durable`` also waits for the disk, for what must survive a power cut.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def lock_file(path: Path) -> int | None:
    """Take the lock of a file: its open descriptor, closed with the process; None while another one holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    except BlockingIOError:
        os.close(descriptor)
        return None


@contextmanager
def alone(what: str | Path, waits: Callable[[float], None]) -> Iterator[None]:
    """One process (and thread) at a time does this to ``what``. While it is another's turn ``waits(seconds)`` is called
    and may raise. The lock goes with its process, so one that dies within blocks nobody."""
    path = room("locks") / hashlib.sha256(str(what).encode()).hexdigest()[:32]
    began = time.monotonic()
    while (descriptor := lock_file(path)) is None:
        waits(time.monotonic() - began)
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Replace a file by readable JSON."""
    replace_file(path, json.dumps(value, indent=1, allow_nan=False).encode() + b"\n")


def read_json(path: Path, default: Any = None) -> Any:
    """The JSON of a file, or ``default`` where there is none."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return default
