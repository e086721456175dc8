"""The web application of the runs without a browser: settings, permissions, what the plugin hands to Airflow."""

from __future__ import annotations

import ast
import gzip
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from urllib.parse import quote, urljoin

import pytest
from airflow.api_fastapi.core_api import security
from airflow.api_fastapi.core_api.security import get_user
from airflow.models.dag import DagModel
from fastapi.testclient import TestClient
from fruits_airflow.config.settings import Settings
from fruits_airflow.report import live_run, step_page, web
from run_report import RunReportPlugin
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from tests.plugins import laptop
from tests.plugins.laptop import REPOSITORY
from tests.plugins.report.test_live_run import Session


class AuthManager:
    """Airflow's, as far as the application asks it."""

    allowed = True

    def is_authorized_dag(self, *, method: str, access_entity: object, details: object, user: object) -> bool:
        self.request = (method, str(access_entity), details.id)  # type: ignore[attr-defined]
        return self.allowed


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> AuthManager:
    manager = AuthManager()
    monkeypatch.setattr(security, "get_auth_manager", lambda: manager)
    monkeypatch.setattr(DagModel, "get_team_name", lambda _: None)  # would ask Airflow's database
    return manager


@pytest.fixture
def client(manager: AuthManager) -> Iterator[TestClient]:
    """Somebody who has logged in."""
    web._archive.cache_clear()
    web.app.dependency_overrides[get_user] = lambda: SimpleNamespace(get_name=lambda: "somebody")
    yield TestClient(web.app, raise_server_exceptions=False)
    web.app.dependency_overrides.clear()


@pytest.fixture
def deployed(account: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("deployment_id", "raw_bucket", "lake_bucket"):
        monkeypatch.setenv(f"FRUITS_{name.upper()}", getattr(account, name))
    return account


def test_an_account_without_runs_has_an_empty_list(client: TestClient, deployed: Settings) -> None:
    reply = client.get("/")
    assert reply.status_code == 200
    assert "No runs yet" in reply.text
    assert deployed.lake_bucket in reply.text


def test_missing_settings_are_named(client: TestClient) -> None:
    for path in ("/", "/runs/manual__1"):
        reply = client.get(path)
        assert reply.status_code == 500
        assert "FRUITS_DEPLOYMENT_ID" in reply.text


def test_a_lake_bucket_that_is_not_there_is_named(
    client: TestClient, deployed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRUITS_LAKE_BUCKET", "no-such-lake")
    reply = client.get("/")
    assert reply.status_code == 502
    assert "NoSuchBucket" in reply.text


def test_a_lake_that_never_answers_is_given_up_while_the_reader_still_waits(
    client: TestClient, deployed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("FRUITS_LAKE_BUCKET", "silent-lake")
        began = time.monotonic()
        reply = client.get("/")
    assert reply.status_code == 502
    assert "The lake cannot be read" in reply.text
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("path", ["/", "/runs/r", "/runs/r/model_card.md", "/steps/j-1/s-1", "/page.js", "/anything"])
def test_who_may_not_read_the_dags_runs_gets_nothing(path: str, client: TestClient, manager: AuthManager) -> None:
    manager.allowed = False
    reply = client.get(path)
    assert reply.status_code == 403
    assert manager.request == ("GET", "DagAccessEntity.RUN", "fruits_pipeline")


def test_a_run_of_another_dag_has_no_report(client: TestClient, deployed: Settings) -> None:
    reply = client.get("/runs/manual__1?dag_id=cluster_janitor")
    assert reply.status_code == 404
    assert "Only runs of the DAG fruits_pipeline" in reply.text


def test_the_page_of_a_publication_leads_to_its_cards(client: TestClient, deployed: Settings) -> None:
    s3, bucket, run_id = laptop.client("s3"), deployed.lake_bucket, "scheduled__2026-01-01T02:00:00+00:00"
    s3.put_object(Bucket=bucket, Key=f"runs/{run_id}/run.json", Body=b'{"state": "succeeded"}')
    page = f"/runs/{quote(run_id)}"
    assert "model_card.md" not in client.get(page).text, "nothing says that it published"
    assert client.get(f"{page}/model_card.md").status_code == 404
    s3.put_object(Bucket=bucket, Key=f"runs/{run_id}/stages/publish.json", Body=b'{"published": true}')
    for name, title in (("model_card.md", "# Model card"), ("datasheet.md", "# Datasheet")):
        (address,) = re.findall(rf'href="([^"]+{name})"', client.get(page).text)
        reply = client.get(urljoin(page, address))
        assert (reply.status_code, reply.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
        assert reply.text.startswith(title)
        assert reply.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert client.get(f"{page}/run.json").status_code == 404


def test_a_run_is_called_what_its_folder_is_called(client: TestClient, deployed: Settings) -> None:
    record = json.dumps({"run_id": "manual__other", "state": "succeeded"}).encode()
    laptop.client("s3").put_object(Bucket=deployed.lake_bucket, Key="runs/manual__1/run.json", Body=record)
    page = client.get("/runs/manual__1").text
    assert "runs/manual__1/tasks/plan" in page
    assert "run.json of manual__1 names another run" in page
    assert "State not known" in page


def test_the_list_marks_a_simulated_run(client: TestClient, deployed: Settings) -> None:
    for run_id, simulated in (("manual__1", True), ("manual__2", False)):
        record = json.dumps({"state": "succeeded", "simulated": simulated}).encode()
        laptop.client("s3").put_object(Bucket=deployed.lake_bucket, Key=f"runs/{run_id}/run.json", Body=record)
    assert client.get("/").text.count("simulated, not billed") == 1


def test_a_file_that_changed_after_the_verdict_raises_an_alarm(client: TestClient, deployed: Settings) -> None:
    s3, bucket = laptop.client("s3"), deployed.lake_bucket
    record = json.dumps({"state": "succeeded", "digests": {"stages/publish.json": "0" * 64}}).encode()
    s3.put_object(Bucket=bucket, Key="runs/manual__1/run.json", Body=record)
    s3.put_object(Bucket=bucket, Key="runs/manual__1/stages/publish.json", Body=b'{"published": true}')
    page = client.get("/runs/manual__1").text
    assert "Changed since the verdict." in page
    assert "stages/publish.json has changed" in page


@pytest.mark.parametrize("page", ["0", "-1", "x", "", "9" * 24, "9" * 5000, "1.5", "²"])
def test_a_page_that_is_none_is_the_first_or_last(page: str, client: TestClient, deployed: Settings) -> None:
    assert client.get(f"/?page={page}").status_code == 200


def put_log(bucket: str, name: str, text: bytes) -> None:
    key = f"logs/j-1A/steps/s-2B/{name}.gz"
    laptop.client("s3").put_object(Bucket=bucket, Key=key, Body=gzip.compress(text, compresslevel=1))


def test_the_logs_of_a_step_are_shown_as_text(client: TestClient, deployed: Settings) -> None:
    put_log(deployed.lake_bucket, "stderr", b"first line\n<script>alert(1)</script> \xff\xe2\x80\xae\n")
    page = client.get("/steps/j-1A/s-2B")
    assert page.status_code == 200
    assert "first line\n&lt;script&gt;alert(1)&lt;/script&gt; \ufffd\\u202e" in page.text
    assert "<script>alert" not in page.text
    assert page.text.count("Not there, or not yet") == 2


def test_of_a_long_log_the_end_is_shown(client: TestClient, deployed: Settings) -> None:
    put_log(deployed.lake_bucket, "stdout", b"begin" + b"x" * 500_000 + b"end")
    page = client.get("/steps/j-1A/s-2B").text
    assert "xend</pre>" in page
    assert "begin" not in page
    assert "only the last 131,072 of 500,008 bytes are shown" in page
    assert len(page) < 300_000


def test_a_log_that_inflates_without_end_is_given_up(
    client: TestClient, deployed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_page, "READ_BYTES", 1_000_000)
    put_log(deployed.lake_bucket, "controller", bytes(3_000_000))
    page = client.get("/steps/j-1A/s-2B").text
    assert "larger than 1,000,000 bytes" in page


@pytest.mark.parametrize("path", ["j-1A/..%2F..", "j-1a/s-2B", "x/s-2B", "j-1A/s-2B%00", "j-1A/s-2B%0a"])
def test_what_is_no_id_of_a_step_leads_nowhere(path: str, client: TestClient, deployed: Settings) -> None:
    assert client.get(f"/steps/{path}").status_code in (400, 404)


@pytest.mark.parametrize(
    ("base_url", "host", "status"),
    [
        ("http://localhost:8080", "localhost:8080", 200),
        ("http://localhost:8080", "127.0.0.1:8080", 200),
        ("http://127.0.0.1:8080", "localhost", 200),
        ("http://127.0.0.1:8080", "evil.com", 400),
        ("http://127.0.0.1:8080", "127.0.0.1.evil.com:8080", 400),
        ("https://airflow.example.org", "10.0.0.7:8080", 200),
        ("", "airflow.internal", 200),
    ],
)
def test_a_server_of_this_machine_answers_to_its_own_names(
    base_url: str, host: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    server = Starlette(routes=[Route("/", lambda _: Response("hello"))])
    (middleware,) = RunReportPlugin.fastapi_root_middlewares
    server.add_middleware(middleware["middleware"])
    assert TestClient(server).get("/", headers={"Host": host}).status_code == status


def test_every_answer_forbids_what_the_page_does_not_need(client: TestClient, deployed: Settings) -> None:
    for path in ("/", "/runs/nobody", "/steps/j-1/s-1", "/page.js", "/anything"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "frame-ancestors 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "private, no-store"


def test_the_plugin_costs_a_task_next_to_nothing() -> None:
    """Airflow imports plugins in every task; the web application and what it needs are for the API server alone."""
    code = (
        "import sys, airflow.plugins_manager; before = set(sys.modules)\n"
        "import run_report; print([n for n in sys.modules if n not in before])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY / "plugins",
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(REPOSITORY / "plugins"), "PATH": "", "HOME": "/tmp"},
    )
    assert ast.literal_eval(done.stdout.splitlines()[-1]) == ["run_report"]


@pytest.mark.parametrize(
    "forged",
    [
        {"planned_at": 1},
        {"planned_at": "yesterday"},
        {"planned_at": "2026-01-01T02:00:00"},
        {"planned_at": "2026-01-01T02:00:00+00:00", "images": [1]},
        {"planned_at": "2026-01-01T02:00:00+00:00", "typical_s": [1]},
    ],
)
def test_a_forged_result_of_plan_leaves_a_page_that_says_so(
    client: TestClient, deployed: Settings, monkeypatch: pytest.MonkeyPatch, forged: dict[str, object]
) -> None:
    @contextmanager
    def create_session() -> Iterator[Session]:
        yield Session({"plan": "success"}, {"plan": forged})

    monkeypatch.setattr(live_run, "create_session", create_session)
    monkeypatch.setattr(web, "_airflow_states", lambda run_ids: dict.fromkeys(run_ids, "running"))
    s3 = laptop.client("s3")
    s3.put_object(Bucket=deployed.lake_bucket, Key="runs/manual__1/listing.parquet", Body=b"x")
    finished = json.dumps({"state": "succeeded", "mode": "demo", "seconds": {"total": 60.0}}).encode()
    s3.put_object(Bucket=deployed.lake_bucket, Key="runs/manual__0/run.json", Body=finished)
    reply = client.get("/runs/manual__1")
    assert reply.status_code == 200
    assert "What Airflow has of this run cannot be shown" in reply.text
