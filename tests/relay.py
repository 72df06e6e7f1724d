"""A relay: a port that passes everything on to a server, and is cut, silenced and mended, as servers go and come."""

import contextlib
import socket
import threading
from collections.abc import Callable


class Relay:
    """``cut`` ends its connections and refuses new ones, ``silence`` takes connections and says nothing, ``mend`` ends
    both. ``fate`` is asked with each piece that comes back; where it gives a number, so many bytes of it
    are passed on and the relay is cut."""

    def __init__(self, host: str, port: int, fate: Callable[[bytes], int | None] = lambda piece: None) -> None:
        self.port, self.fate = 0, fate
        self._to = (host, port)
        self._listener: socket.socket | None = None
        self._ends: list[socket.socket] = []
        self._silent = False
        self.mend()

    def mend(self) -> None:
        self._silent = False
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=True)
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        ends, self._ends = self._ends, []
        for end in ends:
            _end(end)

    def silence(self) -> None:
        self._silent = True

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near = listener.accept()[0]
                far = socket.create_connection(self._to)
            except OSError:
                return
            self._ends += [near, far]
            threading.Thread(target=self._pass, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, True), daemon=True).start()

    def _pass(self, a: socket.socket, b: socket.socket, back: bool) -> None:
        try:
            while data := a.recv(65536):
                if back and (whole := self.fate(data)) is not None:
                    b.sendall(data[:whole])
                    self.cut()
                if not self._silent:
                    b.sendall(data)
        except OSError:
            pass
        finally:
            _end(a), _end(b)

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *error: object) -> None:
        self.cut()


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # closing alone tells nobody while a thread waits for bytes
    connection.close()
