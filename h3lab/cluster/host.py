"""The host: what runs in an engine under ``apply``. It starts children, reports how they ended, and answers at once.

All user code runs in children of a forkserver that was started with the slot's final environment; the host never
imports a model. A child leads a process group of its own, which ends when the engine does: its pipe closes.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import socket
import sys
import threading
import time
from multiprocessing import connection, forkserver, get_context
from pathlib import Path
from typing import Any

from h3lab.cluster import processes
from h3lab.home import write_json

_context = get_context("forkserver")
_children: dict[int, Any] = {}
# The thread that reaps a child and the call that starts the next must not both read its exit code: the second reader
# finds the pipe empty, and multiprocessing then invents code 255.
_reading = threading.Lock()

#: What a child may run: kind → module and function. Nothing else can be asked for.
KINDS = {"rank": "h3lab.cluster.rank:run_rank", "worker": "h3lab.cluster.worker:run_worker"}


def open_host(home: str) -> dict[str, Any]:
    """Make this engine a host, once; answers who and where it is. The imports go on in the forkserver meanwhile."""
    os.environ["H3LAB_HOME"] = home
    _context.set_forkserver_preload(["h3lab.cluster.preload"])
    forkserver.ensure_running()
    pid = os.getpid()
    return {
        "slot": os.environ.get("H3LAB_SLOT"),
        "pid": pid,
        "born": processes.born(pid),
        "host": socket.gethostname(),
        "python": sys.executable,
        "home_seen": (Path(home) / "keys" / "user.key").exists(),
    }


def start(kind: str, arguments: tuple[Any, ...], log: str, report: str) -> int:
    """Start a child; its process id. Output goes to the file ``log``; ``<report>.start.json`` is there when this
    returns, ``<report>.end.json`` once the child has ended."""
    process = _context.Process(target=_child, args=(kind, arguments, log), daemon=False)
    with _reading:
        process.start()
    pid = int(process.pid or 0)
    _children[pid] = process
    write_json(Path(f"{report}.start.json"), {"pid": pid, "born": processes.born(pid), "at": time.time()})
    threading.Thread(target=_reap, args=(process, pid, report), name=f"reap {pid}", daemon=True).start()
    return pid


def _reap(process: Any, pid: int, report: str) -> None:
    connection.wait([process.sentinel])
    with _reading:
        process.join()
    _children.pop(pid, None)
    # What the child has started itself (a data loader's workers) is of its group and must not outlive it.
    _end_group(pid)
    write_json(Path(f"{report}.end.json"), {"pid": pid, "exit": process.exitcode, "at": time.time()})


def _end_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def end(pid: int) -> bool:
    """Kill a child and its group; False where this host has no such child."""
    if pid not in _children:
        return False
    _end_group(pid)
    # Between fork and setsid the child has no group yet.
    process = _children.get(pid)
    if process is not None:
        process.kill()
    return True


def missing(modules: list[str]) -> list[str]:
    """Which of these top-level modules cannot be found by this engine's Python."""
    return [name for name in modules if name not in sys.modules and importlib.util.find_spec(name) is None]


def _child(kind: str, arguments: tuple[Any, ...], log: str) -> None:
    """The body of every child."""
    os.setsid()
    _redirect(log)
    threading.Thread(target=_follow_engine, name="follow engine", daemon=True).start()
    module, _, function = KINDS[kind].partition(":")
    code = getattr(importlib.import_module(module), function)(*arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: threads of the user's code, and multiprocessing's own exit, may wait for ever.
    os._exit(int(code or 0))


def _redirect(log: str) -> None:
    import faulthandler

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()


def _follow_engine() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    print("The engine has ended, so this process ends too.", file=sys.stderr, flush=True)
    os.killpg(0, signal.SIGKILL)
