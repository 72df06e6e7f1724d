"""Processes of this machine: which one it is, whether it lives, and how it ends with its children.

A process id alone is no name, because the system gives it away again; with the time of its start it is one.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress


def born(pid: int) -> float | None:
    """When a living process started (seconds since the epoch), or None where there is none."""
    import psutil

    try:
        process = psutil.Process(pid)
        # A zombie is dead: where init does not reap (containers), an orphan stays one for ever.
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def alive(pid: int | None, since: float | None = None) -> bool:
    """Whether the process lives and, where ``since`` is given, is still the one that started then."""
    start = born(pid) if pid else None
    return start is not None and (since is None or abs(start - since) < 0.05)


class Pulse:
    """The life of one process of this machine, held by a descriptor: to ask costs a microsecond, not the fifty of
    reading its times, and a stranger that gets its id is not taken for it."""

    def __init__(self, pid: int | None, since: float | None = None) -> None:
        self._pid, self._since = pid, since
        self._poll: select.poll | None = None
        self._descriptor: int | None = None
        # Kernels before 5.3, and systems other than Linux, have no such descriptor.
        with suppress(OSError, AttributeError):
            self._descriptor = os.pidfd_open(pid or 0)
            self._poll = select.poll()
            self._poll.register(self._descriptor, select.POLLIN)
        self._lived = alive(pid, since)  # only now, when it is held

    @property
    def beats(self) -> bool:
        """Whether it lives; a zombie does not."""
        if not self._lived or self._poll is None:
            return self._lived and alive(self._pid, self._since)
        return not self._poll.poll(0)

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def command(pid: int) -> str:
    """The command line of a process, empty where there is none."""
    import psutil

    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def end_group(pid: int) -> None:
    """SIGKILL a process that leads a group, and the group with it."""
    with suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)


def end_orphans(group: int, program: str) -> None:
    """SIGKILL what is left of a process group whose leader has died. By name, because a group's number is given away
    again once nobody is in it."""
    import psutil

    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) == group and program in command(pid):
                os.kill(pid, signal.SIGKILL)


def exit_text(code: int | None) -> str:
    """``exit code 3``, ``killed by SIGKILL``: how a process ended, in words."""
    if code is None:
        return "ended without a word"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
