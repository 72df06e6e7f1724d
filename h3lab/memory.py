"""Memory: how much this machine has, or the container that this process is in, and how much of it is free.

It knows bytes; it does not know what they are wanted for.
"""

from __future__ import annotations

import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
#: Names of limit and use: of control groups of version 2, and of version 1.
_NAMES = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}


def whole_memory() -> float:
    """Bytes of the machine, or the limit of the container where that is less."""
    machine = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min([machine, *(limit for limit, _, _ in _groups())])


def free_memory() -> float:
    """Bytes that the machine or the container could still hand out; pages of files that nobody uses are given back."""
    try:
        kilobytes = next(told.split()[1] for told in _lines(Path("/proc/meminfo")) if told.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux
        return 0.5 * whole_memory()
    return min([float(kilobytes) * 1024, *(limit - used + unused for limit, used, unused in _groups())])


def _groups() -> list[tuple[float, float, float]]:
    """(limit, use, unused pages of files) of the control groups that this process is in and that have a limit."""
    found = []
    for folder, (limit, used) in _folders():
        try:
            told = dict(line.split()[:2] for line in _lines(folder / "memory.stat"))
            unused = told.get("total_inactive_file", told.get("inactive_file", "0"))
            found.append((_number(folder / limit), _number(folder / used), float(unused)))
        except (OSError, ValueError):  # no limit ("max"), or another system's way to set one
            continue
    return found


def _folders() -> list[tuple[Path, tuple[str, str]]]:
    """In a container the groups' root is mostly the process's own; elsewhere ``/proc`` says where that is."""
    try:
        told = [line.split(":", 2) for line in _lines(Path("/proc/self/cgroup"))]
    except OSError:
        return []
    own = {kind: path.lstrip("/") for _, kind, path in told}
    found = []
    for kind, names in _NAMES.items():
        found += [(_GROUPS / kind / below, names) for below in {"", own.get(kind, "")}]
    return found


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _number(path: Path) -> float:
    return float(int(path.read_text()))
