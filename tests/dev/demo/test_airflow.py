from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from sqlalchemy import create_engine

from dev.demo.airflow import HEALTH, PASSWORDS, Airflow, _settings
from dev.demo.processes import Processes

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
@pytest.mark.parametrize("part_health", [{"status": "unhealthy"}, {"status": None}, {}])
def test_one_part_that_is_not_up_is_waited_for(health_of, part, part_health):
    assert not health_of(200, json.dumps(WELL | {part: part_health}).encode())


@pytest.mark.parametrize(("status", "body"), [(500, json.dumps(WELL)), (200, "{}"), (200, "starting")])
def test_a_reply_that_says_nothing_of_health_is_waited_for(health_of, status, body):
    assert not health_of(status, body.encode())


def test_each_demo_has_a_password_of_its_own_that_only_this_user_can_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Processes, "run", lambda *_: None)
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        Airflow(Processes(tmp_path), folder, 1, {}).migrate()
    files = [folder / PASSWORDS for folder in folders]
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600, 0o600]
    first, second = (json.loads(path.read_text()) for path in files)
    assert first.keys() == second.keys() == {"admin"}
    assert first["admin"] != second["admin"]


def test_nobody_is_an_admin_without_a_password(tmp_path):
    airflow = Airflow(Processes(tmp_path), tmp_path, 1, {})
    assert "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS" not in airflow._env
    assert airflow._env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"] == str(tmp_path / PASSWORDS)


def test_no_process_listens_to_the_network(tmp_path, monkeypatch):
    commands = {}
    monkeypatch.setattr(Processes, "start", lambda _, name, argv, __: commands.update({name: argv}))
    Airflow(Processes(tmp_path), tmp_path, 1, {}).start()
    assert {name for name, argv in commands.items() if "--skip-serve-logs" in argv} == {
        "airflow-scheduler",
        "airflow-triggerer",
    }
    assert commands["airflow-api-server"][-6:-4] == ["--host", "127.0.0.1"]


def test_a_request_waits_a_minute_for_the_only_writer_of_sqlite(tmp_path):
    engine = create_engine(_settings(tmp_path, "http://127.0.0.1:1")["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000
    assert (tmp_path / "airflow.db").is_file(), "where Airflow has it by default"
