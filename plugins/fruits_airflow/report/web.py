"""The pages of the runs as a web application, which plugins/run_report.py has Airflow's API server mount.

Airflow leaves a plugin's routes open to anybody, so the whole application depends on its login and on the
permission to read runs of the DAG. It answers with HTML and one script of its own; it changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import get_user, requires_access_dag
from airflow.models.dagrun import DagRun
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.utils.session import create_session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from cachetools.func import ttl_cache
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.exceptions import HTTPException as StarletteHTTPException

from fruits_airflow.config.dag_ids import PIPELINE
from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.settings import Settings, load_settings
from fruits_airflow.report.archive import REQUESTS_AT_ONCE, RunArchive
from fruits_airflow.report.facts import Facts
from fruits_airflow.report.page import Around, render, render_template
from fruits_airflow.report.places import places
from fruits_airflow.report.runs_page import record_of, render_runs
from fruits_airflow.report.step_page import render_step

log = logging.getLogger(__name__)

SCRIPT = Path(__file__).with_name("page.js")
CLIENT_SECONDS = 600  # a client is made anew after it, so that a changed connection is seen
# A person waits for the page: better an error that says what is wrong than botocore's five minutes.
QUICK = Config(
    connect_timeout=3,
    read_timeout=5,
    retries={"total_max_attempts": 2, "mode": "standard"},
    max_pool_connections=REQUESTS_AT_ONCE,
)
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; img-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}

app = FastAPI(
    title="Fruits! runs",
    openapi_url=None,  # with it go /docs and /redoc, which would be open to anybody
    dependencies=[
        Depends(get_user),
        Depends(requires_access_dag("GET", DagAccessEntity.RUN, param_dag_id=PIPELINE)),
    ],
)


@app.get("/", response_class=HTMLResponse)
def list_runs(page: str = "1") -> Response:
    """The list, newest run first."""
    _, archive = _open()
    # Python reads no number of more than 4,300 digits, and the last page is the last.
    return _html(render_runs(archive, PIPELINE, int(page[:9]) if page.isdecimal() else 1, _airflow_states))


@app.get("/runs/{run_id}", response_class=HTMLResponse)
def show_run(run_id: str, dag_id: str | None = None) -> Response:
    """The page of one run; `dag_id` is given by the tab of a DAG run, which any DAG has.

    Raises:
        HTTPException: 404 when the lake holds nothing of it.
    """
    if dag_id not in (None, PIPELINE):
        raise HTTPException(HTTPStatus.NOT_FOUND, f"Only runs of the DAG {PIPELINE} leave a report.")
    settings, archive = _open()
    stored = archive.run(run_id)
    if stored is None:
        raise HTTPException(
            HTTPStatus.NOT_FOUND, "The lake holds nothing of such a run. Perhaps it has not planned yet."
        )
    record = record_of(stored, None if stored.recorded else _airflow_states([run_id]).get(run_id))
    facts = Facts(record, stored.stages)
    around = Around(
        home="../../plugin/fruits-runs" if dag_id else "../",
        script="../page.js",
        places=list(places(settings, archive.client, "../../", PIPELINE, facts)),
        in_tab=dag_id is not None,
    )
    return _html(
        render(
            record, stored.stages, stored.sample, stored.residency, around, stored.problems, stored.changed
        )
    )


@app.get("/steps/{job_flow_id}/{step_id}", response_class=HTMLResponse)
def show_step(
    job_flow_id: Annotated[str, PathParameter(pattern="^j-[0-9A-Z]{1,30}$")],
    step_id: Annotated[str, PathParameter(pattern="^s-[0-9A-Z]{1,30}$")],
) -> Response:
    """The logs of one step, to which a wait task links."""
    settings, archive = _open()
    return _html(render_step(archive.client, settings.lake_bucket, job_flow_id, step_id))


@app.get("/page.js")
def script() -> Response:
    """The page's script."""
    return Response(SCRIPT.read_bytes(), media_type="text/javascript", headers=HEADERS)


@app.get("/{rest:path}", response_class=HTMLResponse)
def nothing_here() -> Response:
    """Any other address: nothing, and that only to those who are logged in.

    Raises:
        HTTPException: 404, always.
    """
    raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such page.")


def _open() -> tuple[Settings, RunArchive]:
    settings = load_settings()
    return settings, _archive(settings.aws_conn_id, settings.region, settings.lake_bucket)


@ttl_cache(maxsize=4, ttl=CLIENT_SECONDS)
def _archive(aws_conn_id: str | None, region: str, bucket: str) -> RunArchive:
    return RunArchive(S3Hook(aws_conn_id=aws_conn_id, region_name=region, config=QUICK).get_conn(), bucket)


def _airflow_states(run_ids: Sequence[str]) -> Mapping[str, str]:
    """The states of runs in Airflow's database; those that it does not know are absent."""
    if not run_ids:
        return {}
    with create_session() as session:
        found = session.execute(
            select(DagRun.run_id, DagRun.state).where(DagRun.dag_id == PIPELINE, DagRun.run_id.in_(run_ids))
        )
        return {run_id: str(state) for run_id, state in found}


def _html(page: str, status: int = HTTPStatus.OK) -> Response:
    # A label may hold half of a surrogate pair, which no encoding takes.
    return HTMLResponse(page.encode("utf-8", errors="replace"), status, headers=HEADERS)


def _message(request: Request, status: int, title: str, what: str, detail: str | None = None) -> Response:
    """An error as a page; `request` tells how deep it lies, and so where the list and the script are."""
    up = "../" * request.scope["path"].removeprefix(request.scope.get("root_path", "")).strip("/").count("/")
    view: dict[str, Any] = {
        "title": title,
        "what": what,
        "detail": detail,
        "kind": "failed" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "refused",
        "home": (up or "./") if status == HTTPStatus.NOT_FOUND else None,
        "script": f"{up}page.js" if status != HTTPStatus.UNAUTHORIZED else None,
    }
    return _html(render_template("message.html.j2", view), status)


@app.exception_handler(StarletteHTTPException)
def refuse(request: Request, error: StarletteHTTPException) -> Response:
    """401, 403, 404: what the reader may do about it, and nothing else."""
    titles = {
        HTTPStatus.UNAUTHORIZED: ("Not logged in", "Log in to Airflow, then load this page again."),
        HTTPStatus.FORBIDDEN: ("Not allowed", f"You may not read the runs of the DAG {PIPELINE}."),
        HTTPStatus.NOT_FOUND: ("Not found", str(error.detail)),
    }
    title, what = titles.get(HTTPStatus(error.status_code), ("Not possible", str(error.detail)))
    return _message(request, error.status_code, title, what)


@app.exception_handler(RequestValidationError)
def misunderstood(request: Request, error: RequestValidationError) -> Response:  # noqa: ARG001 - says it all
    """A parameter that no link of ours has."""
    return _message(
        request, HTTPStatus.BAD_REQUEST, "Not understood", "No link of these pages looks like this."
    )


@app.exception_handler(ConfigError)
def misconfigured(request: Request, error: ConfigError) -> Response:
    """A setting is missing or wrong."""
    what = (
        "The API server’s settings (include/settings.yaml, FRUITS_* variables) do not say where the runs are."
    )
    return _message(request, HTTPStatus.INTERNAL_SERVER_ERROR, "Settings are wrong", what, str(error))


@app.exception_handler(ClientError)
@app.exception_handler(BotoCoreError)
def unreachable(request: Request, error: Exception) -> Response:
    """The lake did not answer, or refused."""
    log.warning("The runs cannot be read: %s", error)
    what = (
        "The runs are in the lake bucket, and the API server cannot read it. Is the bucket there, does AWS "
        "(on a laptop: local_aws) answer, and may the API server read it?"
    )
    return _message(request, HTTPStatus.BAD_GATEWAY, "The lake cannot be read", what, str(error))
