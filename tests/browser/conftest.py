"""A real API server over a lake of its own, and a real Chromium."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.aws_keys import FOR_CLIENT
from tests.browser.forwarder import Forwarder
from tests.browser.runs import FAILED, GOOD, SECOND, failed_run, good_run
from tests.plugins import laptop

REPOSITORY = Path(__file__).resolve().parents[2]
LAKE = "browser-lake"
PASSWORDS = {"admin": "orchard", "viewer": "hedge"}
START_SECONDS = 240

# As long as Playwright waits for a page: a loaded machine is slow, not wrong.
PATIENCE_MS = 120_000
expect.set_options(timeout=PATIENCE_MS)


@dataclass(frozen=True)
class Lake:
    """The bucket that the API server reads."""

    s3: Any
    aws: Forwarder

    def put(self, folders: Mapping[str, Mapping[str, bytes]]) -> None:
        """Writes runs: their objects by name, by run id."""
        with ThreadPoolExecutor(16) as pool:
            list(
                pool.map(
                    lambda item: self.s3.put_object(Bucket=LAKE, Key=item[0], Body=item[1]),
                    [(f"runs/{run}/{name}", body) for run, parts in folders.items() for name, body in parts.items()],
                )
            )

    def clear(self) -> None:
        """Delete every object."""
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=LAKE):
            if keys := [{"Key": item["Key"]} for item in page.get("Contents", [])]:
                self.s3.delete_objects(Bucket=LAKE, Delete={"Objects": keys})


@dataclass(frozen=True)
class ApiServer:
    """`airflow api-server`; runs triggered in it stay queued, as nothing schedules them."""

    url: str
    run_id: str

    def token(self, user: str) -> str:
        reply = httpx.post(f"{self.url}/auth/token", json={"username": user, "password": PASSWORDS[user]})
        return str(reply.raise_for_status().json()["access_token"])


def chromium() -> str:
    """Return the path of a Chromium; skip, with the reason, where none can be installed."""
    installed = os.environ.get("FRUITS_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if installed:
        return installed
    done = subprocess.run(
        [REPOSITORY / "dev" / "chromium.sh"], capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        pytest.skip(f"no Chromium here: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"], timeout=120_000, chromium_sandbox=False
        )
        yield started
        started.close()


@pytest.fixture(scope="package")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with laptop.local_aws(tmp_path_factory.mktemp("aws")) as endpoint:
        forwarder = Forwarder(urlsplit(endpoint).port or 0)
        s3 = boto3.client("s3", endpoint_url=endpoint, region_name=laptop.REGION, **FOR_CLIENT)
        s3.create_bucket(Bucket=LAKE, CreateBucketConfiguration={"LocationConstraint": laptop.REGION})
        yield Lake(s3, forwarder)
        forwarder.close()


@pytest.fixture
def runs(lake: Lake) -> Iterator[Lake]:
    """The lake with two finished runs and a failed one."""
    lake.put({GOOD: good_run(GOOD), SECOND: good_run(SECOND, mode="demo"), FAILED: failed_run(FAILED)})
    yield lake
    lake.clear()


@pytest.fixture
def empty(lake: Lake) -> Iterator[Lake]:
    """The lake with nothing in it."""
    yield lake
    lake.clear()


@pytest.fixture(scope="package")
def airflow(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    home = tmp_path_factory.mktemp("airflow")
    (home / "passwords.json").write_text(json.dumps(PASSWORDS))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "FRUITS_", "AWS_"))},
        **laptop.aws_environment(f"http://127.0.0.1:{lake.aws.port}"),
        "FRUITS_DEPLOYMENT_ID": "browser",
        "FRUITS_RAW_BUCKET": "browser-raw",
        "FRUITS_LAKE_BUCKET": LAKE,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    airflow = [sys.executable, "-m", "airflow"]
    log = (home / "airflow.log").open("w")
    subprocess.run([*airflow, "db", "migrate"], env=env, stdout=log, stderr=log, check=True, timeout=START_SECONDS)
    server = subprocess.Popen(
        [*airflow, "api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        env=env,
        stdout=log,
        stderr=log,
    )
    try:
        subprocess.run(
            [*airflow, "dags", "reserialize"], env=env, stdout=log, stderr=log, check=True, timeout=START_SECONDS
        )
        until(lambda: healthy(url), lambda: (home / "airflow.log").read_text()[-4000:])
        yield ApiServer(url, trigger(url))
    finally:
        server.terminate()
        server.wait(60)
        log.close()


def trigger(url: str) -> str:
    """Create a run in Airflow's database that no scheduler takes up; return its id."""
    reply = httpx.post(f"{url}/auth/token", json={"username": "admin", "password": PASSWORDS["admin"]})
    with httpx.Client(base_url=f"{url}/api/v2", timeout=60) as api:
        api.headers["Authorization"] = f"Bearer {reply.raise_for_status().json()['access_token']}"
        api.patch("/dags/fruits_pipeline", json={"is_paused": False}).raise_for_status()
        run = {"dag_run_id": SECOND, "logical_date": None, "conf": {}}
        return str(api.post("/dags/fruits_pipeline/dagRuns", json=run).raise_for_status().json()["dag_run_id"])


def healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/v2/monitor/health").is_success
    except httpx.HTTPError:
        return False


def until(done: Callable[[], bool], words: Callable[[], str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not done():
        assert time.monotonic() < deadline, words()
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def anonymous(browser: Browser, airflow: ApiServer) -> Iterator[Page]:
    """A browser that has not logged in."""
    context = browser.new_context(base_url=airflow.url)
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


@pytest.fixture(params=["light"])
def page(browser: Browser, airflow: ApiServer, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A browser in which somebody who may only look has logged in."""
    context = browser.new_context(
        base_url=airflow.url, color_scheme=request.param, viewport={"width": 1360, "height": 900}
    )
    context.set_default_timeout(PATIENCE_MS)
    context.add_cookies([{"name": "_token", "value": airflow.token("viewer"), "url": airflow.url}])
    opened = context.new_page()
    opened.on("pageerror", lambda error: pytest.fail(f"the page's script: {error}"))
    yield opened
    context.close()
