"""The heap: what a part has used and freed goes back to the system, which allocators like to put off.

Two workers that each hold on to a hundred megabytes of nothing cost more than the parts that they work on.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

#: Parts of fewer bytes leave nothing that is worth the call.
WORTH_BYTES = 4 << 20


def give_back(used: int) -> None:
    """Return free pages of Arrow's pool and of the C library, after some work on ``used`` bytes of rows."""
    if used < WORTH_BYTES:
        return
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    library = _library()
    if library is not None:
        library.malloc_trim(0)


@cache
def _library() -> Any:
    """The C library where it can trim: glibc."""
    try:
        library = ctypes.CDLL("libc.so.6")
        return library if hasattr(library, "malloc_trim") else None
    except OSError:
        return None
