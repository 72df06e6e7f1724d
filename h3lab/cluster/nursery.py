"""A nursery: a forkserver that has imported what its children will need, so that each of them starts in milliseconds.

It knows processes; it does not know what they are for. multiprocessing knows one forkserver a process, and makes each
child run the caller's main script again: a script without ``if __name__ == "__main__"`` would begin anew in every
child. Here functions are importable or come signed by value, so no child needs that script.
"""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import context, forkserver, popen_forkserver, reduction, spawn, util
from typing import Any


class Nursery:
    """A forkserver of one's own, which imports ``preload`` once. Its children end by themselves when this process does:
    they hold a pipe to it (``multiprocessing.parent_process().sentinel``)."""

    def __init__(self, preload: Sequence[str]) -> None:
        self._preload = list(preload)
        self._server = self._made()

    def _made(self) -> Any:
        server = forkserver.ForkServer()
        server.set_forkserver_preload(self._preload)
        return server

    @property
    def pid(self) -> int | None:
        """The forkserver's process id; None where it is not up."""
        found: int | None = self._server._forkserver_pid
        return found

    def open(self) -> None:
        """Start the forkserver where it is not up; its imports go on meanwhile."""
        self._server.ensure_running()

    def bear(self, target: Callable[..., None], arguments: tuple[Any, ...]) -> Any:
        """A child that runs ``target(*arguments)``: something with ``pid``, ``sentinel``, ``wait()``, ``kill()``,
        ``close()``. The first one waits for the imports."""
        return _Child(self._server, context.ForkServerProcess(target=target, args=arguments))

    def close(self) -> None:
        """End the forkserver; children that live go on. It is started again when it is needed."""
        old, self._server = self._server, self._made()
        if old._forkserver_pid is None:
            return
        with suppress(ProcessLookupError):
            # Closing its pipe would be waited for, as long as the imports take.
            os.kill(old._forkserver_pid, signal.SIGKILL)
        with suppress(OSError):
            old._stop()


class _Child(popen_forkserver.Popen):
    """multiprocessing's own, by a forkserver that is named, and without the caller's main script. Process.start() is
    passed by: it keeps a list of children which every start looks through, and of two threads that read one exit code
    the second finds the pipe empty and invents code 255."""

    def __init__(self, server: Any, process: Any) -> None:
        self._server = server
        super().__init__(process)

    def _launch(self, process_obj: Any) -> None:
        about = spawn.get_preparation_data(process_obj._name)
        about = {name: value for name, value in about.items() if not name.startswith("init_main")}
        buffer = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            reduction.dump(about, buffer)
            reduction.dump(process_obj, buffer)
        finally:
            context.set_spawning_popen(None)
        self.sentinel, given = self._server.connect_to_new_process(self._fds)  # type: ignore[attr-defined]
        # The child notices by this end that its parent has ended.
        mine = os.dup(given)
        self.finalizer = util.Finalize(self, util.close_fds, (mine, self.sentinel))  # type: ignore[attr-defined]
        with open(given, "wb", closefd=True) as file:
            file.write(buffer.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)
