"""A port that leads to another, until it is told not to: how a service goes away while its client lives on."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Forwarder:
    """Forwards connections on a loopback port to `target`; while `cut`, it drops them.

    Args:
        target: port on loopback.
    """

    def __init__(self, target: int) -> None:
        self.cut = False
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                if self.cut:
                    client.close()
                    continue
                there = socket.create_connection(("127.0.0.1", self._target))
                for source, sink in ((client, there), (there, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while (content := source.recv(65536)) and not self.cut:
                sink.sendall(content)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
