"""What somebody who has not logged in sees: nothing."""

from __future__ import annotations

import re
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import quote, unquote

import httpx
import pytest
from fruits_airflow.report.web import app
from playwright.sync_api import Page, expect

from tests.browser.conftest import PASSWORDS, ApiServer, Lake
from tests.browser.runs import FAILED, GOOD

LOGIN = {"username": "viewer", "password": PASSWORDS["viewer"]}
PATHS = sorted({str(getattr(route, "path", "?")) for route in app.routes})


def test_every_route_is_known_to_these_tests() -> None:
    runs = ["/runs/{run_id}", "/runs/{run_id}/{name}"]
    assert ["/", "/page.js", "/runbook", *runs, "/steps/{job_flow_id}/{step_id}", "/{rest:path}"] == PATHS


def ask(airflow: ApiServer, path: str, **options: object) -> httpx.Response:
    filled = path.replace("{run_id}", quote(GOOD, safe="")).replace("{rest:path}", "docs")
    filled = filled.replace("{job_flow_id}/{step_id}", "j-1/s-1").replace("{name}", "model_card.md")
    return httpx.get(f"{airflow.url}/fruits-runs{filled}", timeout=60, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", PATHS)
def test_no_route_tells_anything_to_anybody(path: str, airflow: ApiServer, runs: Lake) -> None:
    for headers, status in ((None, 401), ({"Authorization": "Bearer e30.e30.e30"}, 403), ({"Cookie": "_token=x"}, 403)):
        reply = ask(airflow, path, headers=headers)
        assert reply.status_code == status
        own_address = quote(unquote(reply.request.url.path), safe="")  # where the link to the login leads back to
        text = reply.text.replace(own_address, "")
        assert not re.search(r"scheduled__|manual__|browser-lake|MutationObserver", text)
    known = ask(airflow, path, headers={"Authorization": f"Bearer {airflow.token('viewer')}"})
    assert known.status_code == (404 if "rest" in path else 200)


@pytest.mark.parametrize("path", ["/", "/auth/token", "/api/v2/version", "/execution/health", "/fruits-runs/"])
def test_a_name_that_somebody_else_makes_lead_here_gets_nothing(path: str, airflow: ApiServer) -> None:
    for host in ("evil.com", "evil.com:80", "localhost.evil.com", "169.254.169.254"):
        reply = httpx.post(f"{airflow.url}{path}", headers={"Host": host}, json=LOGIN, timeout=60)
        assert (reply.status_code, reply.text) == (400, "Invalid host header")
    port = httpx.URL(airflow.url).port
    assert httpx.post(f"{airflow.url}/auth/token", headers={"Host": f"localhost:{port}"}, json=LOGIN).is_success


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/redoc", "/runs", "/runs/", "/page.py"])
def test_there_is_nothing_besides(path: str, airflow: ApiServer) -> None:
    assert ask(airflow, path).status_code in (401, 404)


@pytest.mark.parametrize(
    "name", ["..", ".", "%2e%2e", "..%2Fstate", "..%2F..%2Fstate%2Ffruits", "a%2Fb", "a%00b", "%3Cb%3E"]
)
def test_a_run_id_leads_nowhere_but_to_a_run(name: str, airflow: ApiServer, runs: Lake) -> None:
    runs.put({"../state": {"run.json": b"{}"}, "a/b": {"run.json": b"{}"}, "<b>": {"run.json": b"{}"}})
    headers = {"Authorization": f"Bearer {airflow.token('viewer')}"}
    server = HTTPConnection(httpx.URL(airflow.url).netloc.decode(), timeout=60)
    with closing(server):
        # as it is: httpx would make `/runs/..` a request for the list before it sends it
        server.request("GET", f"/fruits-runs/runs/{name}", headers=headers)
        assert server.getresponse().status == 404


def test_airflow_asks_for_a_login_first(anonymous: Page, runs: Lake) -> None:
    for address in ("/plugin/fruits-runs", "/fruits-runs/", f"/fruits-runs/runs/{quote(FAILED, safe='')}"):
        anonymous.goto(address)
        expect(anonymous.get_by_text(re.compile("log in|sign in", re.IGNORECASE)).first).to_be_visible()
        assert "scheduled__" not in anonymous.locator("body").inner_text()


def test_a_page_that_needs_a_login_leads_to_it_and_the_login_back(anonymous: Page, runs: Lake) -> None:
    address = f"/fruits-runs/runs/{quote(FAILED, safe='')}"
    anonymous.goto(address)
    anonymous.get_by_role("link", name="Log in").click()
    anonymous.get_by_label("Username").fill("viewer")
    anonymous.get_by_label("Password").fill(PASSWORDS["viewer"])
    anonymous.get_by_role("button", name=re.compile("sign in|log in", re.IGNORECASE)).click()
    expect(anonymous.get_by_role("heading", level=1)).to_have_text("Failed")
    assert unquote(anonymous.url).endswith(unquote(address))
