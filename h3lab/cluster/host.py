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
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from typing import Any

from h3lab.cluster import processes
from h3lab.cluster.nursery import Nursery
from h3lab.home import write_json

#: A nursery for each kind of child: workers need no torch.
_nurseries = {kind: Nursery([f"h3lab.cluster.preload_{kind}"]) for kind in ("rank", "worker")}
_children: dict[int, Any] = {}
_wanted: set[str] = set()  # reports of children that were asked for and are not there yet

IDLE_SECONDS = 2.0
FIRST_SLOT = "slot0"
#: How often it is looked whether a child is still wanted.
WANTED_SECONDS = 0.1

#: What a child may run: kind → module and function. Nothing else can be asked for.
KINDS = {"rank": "h3lab.cluster.rank:run_rank", "worker": "h3lab.cluster.worker:run_worker"}


def open_host(home: str) -> dict[str, Any]:
    """Make this engine a host, once; answers who and where it is. The imports go on in the forkserver meanwhile."""
    os.environ["H3LAB_HOME"] = home
    _nurseries["worker"].open()
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


def _get_ready() -> None:
    """Start the ranks' forkserver once nothing is being prepared, which would otherwise share its core and its memory
    with imports that it does not need. The first rank does not wait for that, but for the imports."""
    idle = 0
    while idle < IDLE_SECONDS * 10:
        time.sleep(0.1)
        # A child that is asked for may still wait for the imports of its own forkserver.
        idle = 0 if _children or _wanted else idle + 1
    _nurseries["rank"].open()


def start(kind: str, arguments: tuple[Any, ...], log: str, report: str, until: str = "") -> None:
    """Start a child; returns at once, though the first one of its kind waits for imports. Output goes to the file
    ``log``; ``<report>.start.json`` is there once it lives, ``<report>.end.json`` once it has ended. ``until``: the
    child is killed once this file exists, or its folder no longer does."""
    follow(_nurseries[kind], kind, arguments, log, report, until)


def follow(nursery: Nursery, kind: str, arguments: tuple[Any, ...], log: str, report: str, until: str = "") -> None:
    """:func:`start` with a nursery of one's own."""
    _wanted.add(report)
    live = (nursery, (kind, arguments, log), report, until)
    threading.Thread(target=_live, args=live, name=f"child {report}", daemon=True).start()


def _live(nursery: Nursery, given: tuple[str, tuple[Any, ...], str], report: str, until: str) -> None:
    try:
        # Without a lock: the first rank waits here for imports, and a worker must not wait with it.
        child = nursery.bear(_child, given)
    except Exception as error:
        print(f"a {given[0]} did not start: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        _wanted.discard(report)
        _tell(f"{report}.end.json", pid=None, exit=1)
        return
    pid = int(child.pid)
    _children[pid] = child
    _wanted.discard(report)
    _tell(f"{report}.start.json", pid=pid, born=processes.born(pid), engine=os.getpid())
    while not connection.wait([child.sentinel], WANTED_SECONDS if until else None):
        # It may be deep in a part that nobody waits for any more, or stopped.
        if os.path.exists(until) or not os.path.exists(os.path.dirname(until)):
            end(pid)
    code = child.wait()
    child.close()  # or its pipes stay open until garbage is collected
    _children.pop(pid, None)
    # What the child has started itself (a data loader's workers) is of its group and must not outlive it.
    _end_group(pid)
    _tell(f"{report}.end.json", pid=pid, exit=code)


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
    child = _children.get(pid)
    if child is not None:
        child.kill()
    return True


def close_host() -> None:
    """End what this host has started, for an engine that lives on: one of a cluster that is not ours."""
    for pid in list(_children):
        end(pid)
    for nursery in _nurseries.values():
        nursery.close()


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
