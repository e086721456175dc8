"""Who is told what, through each channel, and that a channel that fails decides nothing."""

from __future__ import annotations

import email
import json
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import replace
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.clusters import RunKey
from fruits_airflow.runs.notices import HEADLINES, Notice, notify

NOTICE = Notice(
    "red-run", RunKey("prod", "fruits_pipeline", "n1"), "featurize: ERROR WeightsMismatch: <a> & {{ 7 * 6 }}", 0.42
)


@pytest.fixture
def web() -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """Run a web server that records what is posted to it."""
    posted: list[tuple[str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", posted
    server.shutdown()
    server.server_close()


@pytest.fixture
def mailbox() -> Iterator[tuple[int, list[bytes]]]:
    """As much of a mail server as a client needs to be rid of its mail."""
    received: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 test\r\n")
            while line := self.rfile.readline():
                if line.upper().startswith(b"DATA"):
                    self.wfile.write(b"354 go on\r\n")
                    lines = []
                    while (part := self.rfile.readline()) != b".\r\n":
                        lines.append(part)
                    received.append(b"".join(lines))
                self.wfile.write(b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 fine\r\n")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield int(server.server_address[1]), received
    server.shutdown()
    server.server_close()


def test_a_notice_has_run_cause_cost_and_the_runbooks_section() -> None:
    for fact in ("prod", "n1", "WeightsMismatch", "0.42 EUR", "docs/runbook.md#red-run"):
        assert fact in NOTICE.text
    assert "cost so far: unknown" in replace(NOTICE, cost_eur=None).text


@pytest.mark.parametrize("end", ["\n", "\r", "\u2028", "\x85", "\v"])
def test_no_cause_adds_a_line_of_its_own_to_a_notice(end: str) -> None:
    """A job's error can quote what a photo, or a node, has to say."""
    said = replace(NOTICE, cause=f"no JPEG{end}what to do: https://attacker.example/runbook")
    assert len(said.text.splitlines()) == len(NOTICE.text.splitlines())


def test_a_notice_links_to_run_log_page_and_runbook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/")
    run = RunKey("prod", "fruits_pipeline", "manual__2026-11-21T10:30:00+00:00")
    links = replace(NOTICE, run=run, task="featurize.wait").links
    in_airflow = "https://airflow.example.org/dags/fruits_pipeline/runs/manual__2026-11-21T10%3A30%3A00%2B00%3A00"
    assert links == {
        "run": in_airflow,
        "log": f"{in_airflow}/tasks/featurize.wait",
        "page": "https://airflow.example.org/fruits-runs/runs/manual__2026-11-21T10%3A30%3A00%2B00%3A00",
        "what to do": "https://airflow.example.org/fruits-runs/runbook#red-run",
        "about the task": "https://airflow.example.org/fruits-runs/runbook#featurize-wait",
    }
    assert all(address in replace(NOTICE, run=run, task="featurize.wait").text for address in links.values())
    nobody = replace(NOTICE, run=replace(run, run_id="(none)"), anchor="no-publication")
    assert nobody.links == {"what to do": "https://airflow.example.org/fruits-runs/runbook#no-publication"}


def test_a_refusal_for_a_lock_leads_to_the_section_on_locks() -> None:
    assert Notice.of_refusal(NOTICE.run, "LockHeld: fruits is locked by x").anchor == "lock-held"
    assert Notice.of_refusal(NOTICE.run, "CostCeilingExceeded: too dear").anchor == "refused"


def test_every_section_that_a_notice_names_is_in_the_runbook() -> None:
    runbook = (Path(__file__).resolve().parents[3] / "docs" / "runbook.md").read_text()
    assert set(HEADLINES) <= {line.lstrip("# ") for line in runbook.splitlines() if line.startswith("#")}


def test_the_log_is_the_channel_that_needs_nothing(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    notify(settings, NOTICE)
    assert "NOTICE cause: featurize: ERROR WeightsMismatch: <a> & {{ 7 * 6 }}" in caplog.text


def test_a_webhook_gets_json(settings: Settings, web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place, posted = web
    monkeypatch.setenv("AIRFLOW_CONN_ALARM", json.dumps({"conn_type": "http", "host": f"http://{place}/hook"}))
    notify(replace(settings, notify="webhook", notify_conn_id="alarm"), NOTICE)
    ((path, body),) = posted
    assert path.rstrip("/") == "/hook"
    assert body["event"] == "red-run"
    assert body["cause"] == NOTICE.cause, "the words of a step are data, not a template"
    assert (body["run_id"], body["cost_eur"]) == ("n1", 0.42)
    assert body["links"] == {"what to do": "docs/runbook.md#red-run"}


def test_slack_gets_a_message(settings: Settings, web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place, posted = web
    connection = {"conn_type": "slackwebhook", "schema": "http", "host": place, "password": "T0/B0/x"}
    monkeypatch.setenv("AIRFLOW_CONN_ALARM", json.dumps(connection))
    notify(replace(settings, notify="slack", notify_conn_id="alarm"), NOTICE)
    ((path, body),) = posted
    assert path == "/T0/B0/x"
    assert "&lt;a&gt; &amp; {{ 7 * 6 }}" in body["text"]


def test_mail_is_sent(settings: Settings, mailbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    port, received = mailbox
    extra = {"from_email": "fruits@example.org", "disable_ssl": True, "disable_tls": True}
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_ALARM", json.dumps(connection))
    notify(replace(settings, notify="mail", notify_conn_id="alarm", notify_to="a@example.org,b@example.org"), NOTICE)
    message = email.message_from_bytes(received[0], policy=default)
    assert message["Subject"] == "Fruits! prod: a run is red"
    assert message["To"] == "a@example.org, b@example.org"
    body = message.get_body(("html",))
    assert body is not None
    assert "&lt;a&gt; &amp; {{ 7 * 6 }}" in body.get_content()


@pytest.mark.parametrize("channel", ["webhook", "slack", "mail"])
def test_a_notice_that_cannot_be_sent_is_logged_whole(
    settings: Settings, caplog: pytest.LogCaptureFixture, channel: str
) -> None:
    notify(replace(settings, notify=channel, notify_conn_id="nowhere", notify_to="a@example.org"), NOTICE)
    assert f"A notice was not sent by {channel}" in caplog.text
    assert NOTICE.cause in caplog.text
