"""The host: what runs in an engine under ``apply``. It starts children, reports how they ended, and answers at once.

All user code runs in children of a forkserver that was started with the slot's final environment; the host never
imports a model. A child leads a process group of its own, which ends when the engine does: its pipe closes.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing.process
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from multiprocessing import connection, forkserver, get_context
from pathlib import Path
from typing import Any

from h3lab.cluster import processes
from h3lab.home import write_json

_context = get_context("forkserver")
#: A forkserver for each kind of child; multiprocessing itself knows of one.
_servers = {"rank": forkserver.ForkServer(), "worker": forkserver.ForkServer()}
_children: dict[int, Any] = {}
_wanted: set[str] = set()  # reports of children that were asked for and are not there yet
_starting = threading.local()  # the kind of child that this thread is starting
_connect = forkserver.connect_to_new_process

IDLE_SECONDS = 2.0
FIRST_SLOT = "slot0"

#: What a child may run: kind → module and function. Nothing else can be asked for.
KINDS = {"rank": "h3lab.cluster.rank:run_rank", "worker": "h3lab.cluster.worker:run_worker"}


def open_host(home: str) -> dict[str, Any]:
    """Make this engine a host, once; answers who and where it is. The imports go on in the forkserver meanwhile."""
    os.environ["H3LAB_HOME"] = home
    # The function that a Process asks for its child. In an engine that is not ours others may ask it too.
    forkserver.connect_to_new_process = _new_process  # type: ignore[assignment]
    for kind, server in _servers.items():
        server.set_forkserver_preload([f"h3lab.cluster.preload_{kind}"])
    _servers["worker"].ensure_running()
    # One slot that is ready for a run at once is worth its two hundred megabytes; the others import on their first one.
    if os.environ.get("H3LAB_SLOT", FIRST_SLOT) == FIRST_SLOT:
        threading.Thread(target=_get_ready, name="get ready", daemon=True).start()
    pid = os.getpid()
    return {
        "slot": os.environ.get("H3LAB_SLOT"),
        "pid": pid,
        "born": processes.born(pid),
        "host": socket.gethostname(),
        "python": sys.executable,
        "home_seen": (Path(home) / "keys" / "user.key").exists(),
    }


def _new_process(descriptors: list[int]) -> tuple[int, int]:
    kind = getattr(_starting, "kind", None)
    connect = _connect if kind is None else _servers[kind].connect_to_new_process
    return connect(descriptors)


def _get_ready() -> None:
    """Start the ranks' forkserver once nothing is being prepared, which would otherwise share its core and its memory
    with imports that it does not need. The first rank does not wait for that, but for the imports."""
    idle = 0
    while idle < IDLE_SECONDS * 10:
        time.sleep(0.1)
        # A child that is asked for may still wait for the imports of its own forkserver.
        idle = 0 if _children or _wanted else idle + 1
    _servers["rank"].ensure_running()


def start(kind: str, arguments: tuple[Any, ...], log: str, report: str) -> None:
    """Start a child; returns at once, though the first one of its kind waits for imports. Output goes to the file
    ``log``; ``<report>.start.json`` is there once it lives, ``<report>.end.json`` once it has ended."""
    _wanted.add(report)
    threading.Thread(target=_live, args=(kind, arguments, log, report), name=f"child {report}", daemon=True).start()


def _live(kind: str, arguments: tuple[Any, ...], log: str, report: str) -> None:
    process: Any = _context.Process(target=_child, args=(kind, arguments, log), daemon=False)
    _starting.kind = kind
    try:
        # Without a lock: the first rank waits here for imports, and a worker must not wait with it.
        process.start()
        # Each start makes multiprocessing look for children that have ended, and this thread does too: of two that
        # read one exit code, the second finds the pipe empty and invents code 255. So it shall not know this one.
        multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
    except Exception as error:
        print(f"a {kind} did not start: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        _wanted.discard(report)
        _tell(f"{report}.end.json", pid=None, exit=1)
        return
    pid = int(process.pid)
    _children[pid] = process
    _wanted.discard(report)
    _tell(f"{report}.start.json", pid=pid, born=processes.born(pid))
    connection.wait([process.sentinel])
    process.join()
    _children.pop(pid, None)
    # What the child has started itself (a data loader's workers) is of its group and must not outlive it.
    _end_group(pid)
    _tell(f"{report}.end.json", pid=pid, exit=process.exitcode)


def _tell(path: str, **values: Any) -> None:
    with suppress(FileNotFoundError):  # whoever wanted to know has removed the run or the job
        write_json(Path(path), {**values, "at": time.time()})


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


def close_host() -> None:
    """End what this host has started, for an engine that lives on: one of a cluster that is not ours."""
    for pid in list(_children):
        end(pid)
    for server in _servers.values():
        forked = getattr(server, "_forkserver_pid", None)
        if forked is not None:
            # It may be importing for seconds, and hears of nothing else meanwhile.
            os.kill(forked, signal.SIGKILL)
            server._stop()  # type: ignore[attr-defined]


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
