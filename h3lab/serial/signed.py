"""Signed files: the one place where h3lab unpickles, and only what this user's key has signed.

A launch file carries the user's own code and objects from a notebook to an engine. It is pickled by cloudpickle, put
behind an HMAC-SHA256 of the user's key (``$H3LAB_HOME/keys/user.key``, mode 0600), and opened only after the check.
Nothing that came from a network, a saved model, a snapshot or a feed passes through here.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Any

from h3lab.errors import Untrusted
from h3lab.home import replace_file, room

MAGIC = b"H3SIGNED"
_SIZE = hashlib.sha256().digest_size


def key() -> bytes:
    """The user's key; made on first use."""
    path = room("keys") / "user.key"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    # Two processes may both find no key. A hard link claims the name with the content already in it, so that neither
    # ever reads an empty key.
    temporary = path.with_name(f".user.key.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(32))
        os.close(descriptor)
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)
    return path.read_bytes()


def dumps(value: Any) -> bytes:
    """Pickle and sign."""
    import cloudpickle

    payload: bytes = cloudpickle.dumps(value)
    return MAGIC + hmac.digest(key(), payload, "sha256") + payload


def loads(data: bytes, origin: str = "these bytes") -> Any:
    """Check the signature, then unpickle; Untrusted when it is not this user's."""
    import cloudpickle

    start = len(MAGIC) + _SIZE
    signature, payload = data[len(MAGIC) : start], data[start:]
    if data[: len(MAGIC)] != MAGIC or not hmac.compare_digest(signature, hmac.digest(key(), payload, "sha256")):
        raise Untrusted(
            f"{origin} is not signed with the key of this H3LAB_HOME, so it is not opened. "
            "Start the run again from its notebook, or set H3LAB_HOME to where it was started."
        )
    return cloudpickle.loads(payload)


def dump(value: Any, path: Path) -> None:
    """Write a signed file, mode 0600."""
    replace_file(path, dumps(value), durable=True)


def load(path: Path) -> Any:
    """Open a signed file."""
    return loads(path.read_bytes(), origin=str(path))
