from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from demo.airflow import HEALTH, Airflow
from demo.processes import Processes

WELL = {part: {"status": "healthy"} for part in HEALTH}


@pytest.fixture
def health_of(tmp_path):
    """Whether an Airflow whose health endpoint gives that reply counts as healthy."""
    reply = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(reply["status"])
            self.end_headers()
            self.wfile.write(reply["body"])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    airflow = Airflow(Processes(tmp_path), tmp_path, server.server_address[1], {})

    def ask(status, body):
        reply.update(status=status, body=body)
        return airflow._healthy()

    yield ask
    server.shutdown()
    server.server_close()


def test_all_four_parts_make_a_healthy_airflow(health_of):
    assert health_of(200, json.dumps(WELL).encode())


@pytest.mark.parametrize("part", HEALTH)
@pytest.mark.parametrize("said", [{"status": "unhealthy"}, {"status": None}, {}])
def test_one_part_that_is_not_up_is_waited_for(health_of, part, said):
    assert not health_of(200, json.dumps(WELL | {part: said}).encode())


@pytest.mark.parametrize(("status", "body"), [(500, json.dumps(WELL)), (200, "{}"), (200, "starting")])
def test_a_reply_that_says_nothing_of_health_is_waited_for(health_of, status, body):
    assert not health_of(status, body.encode())
