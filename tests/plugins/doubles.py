"""Stand-ins that change one method of a real client, and a server that never answers."""

from __future__ import annotations

import socketserver
import threading
from dataclasses import dataclass, field
from typing import Any


class Double:
    """`real`, with some attributes replaced."""

    def __init__(self, real: Any, **replaced: Any) -> None:
        self._real = real
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@dataclass
class KnownRuns:
    """What an Airflow knows, by run id."""

    alive: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)

    def has_ended(self, dag_id: str, run_id: str) -> bool:
        return run_id in self.ended

    def is_alive(self, dag_id: str, run_id: str) -> bool:
        return run_id in self.alive


class ClosingServer:
    """Reads each request and closes the connection: a reply that is lost."""

    def __init__(self) -> None:
        self.requests = 0
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                if self.request.recv(65536):
                    outer.requests += 1

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> ClosingServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
