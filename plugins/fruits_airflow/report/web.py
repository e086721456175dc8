"""The pages of the runs as a web application, which plugins/run_report.py mounts in Airflow's API server.

Airflow leaves a plugin's routes open to anybody, so the whole application requires a login and the permission to read
runs of the DAG. It serves HTML and a script of its own, and changes nothing.
"""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

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
from fastapi.responses import HTMLResponse, PlainTextResponse
from sqlalchemy import select
from starlette.exceptions import HTTPException as StarletteHTTPException

from fruits_airflow.config.dag_ids import PIPELINE
from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.settings import Settings, load_settings
from fruits_airflow.records.models import MAX_MESSAGE
from fruits_airflow.report.archive import MAX_REQUESTS, RunArchive
from fruits_airflow.report.cards import render_cards
from fruits_airflow.report.facts import Facts
from fruits_airflow.report.live_run import read_live
from fruits_airflow.report.page import Navigation, render, render_template
from fruits_airflow.report.run_links import run_links
from fruits_airflow.report.runbook_page import render_runbook
from fruits_airflow.report.runs_page import record_of, render_runs
from fruits_airflow.report.step_page import render_step

log = logging.getLogger(__name__)

SCRIPT = Path(__file__).with_name("page.js")
CLIENT_SECONDS = 600  # then a new client reads the connection again
# A person waits for the page: an early error serves better than botocore's five minutes.
QUICK = Config(
    connect_timeout=3,
    read_timeout=5,
    retries={"total_max_attempts": 2, "mode": "standard"},
    max_pool_connections=MAX_REQUESTS,
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
    dependencies=[Depends(get_user), Depends(requires_access_dag("GET", DagAccessEntity.RUN, param_dag_id=PIPELINE))],
)


@app.get("/", response_class=HTMLResponse)
def list_runs(page: str = "1") -> Response:
    """Show the list, newest run first."""
    _, archive = _open()
    # Python reads no number of more than 4,300 digits, and the last page is the last.
    return _html(render_runs(archive, PIPELINE, int(page[:9]) if page.isdecimal() else 1, _airflow_states))


@app.get("/runs/{run_id}", response_class=HTMLResponse)
def show_run(run_id: str, dag_id: str | None = None) -> Response:
    """Show the page of a run; the tab of a DAG run, which any DAG has, passes `dag_id`.

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
    states = _airflow_states([run_id] if stored.may_go_on else [])
    record, changes = record_of(stored, states.get(run_id)), stored.changes
    if record.get("state") == "running":
        try:
            live = read_live(PIPELINE, run_id)
            is_judged = stored.has_record and live["tasks"].get("verdict") == "running"  # its notice may be out already
            record, changes = (record_of(stored, None), changes) if is_judged else ({**record, **live}, [])
        except (
            ArithmeticError,
            AttributeError,
            ImportError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            what = f"What Airflow has of this run cannot be shown: {type(error).__name__}: {error}"
            stored.problems.append(what[:MAX_MESSAGE])
    navigation = Navigation(
        home="../../plugin/fruits-runs" if dag_id else "../",
        script="../page.js",
        links=list(run_links(settings, archive.client, "../../", PIPELINE, Facts(record, stored.stages))),
        is_tab=dag_id is not None,
    )
    return _html(render(record, stored.stages, stored.sample, stored.residency, navigation, stored.problems, changes))


@app.get("/runs/{run_id}/{name}", response_class=PlainTextResponse)
def show_card(run_id: str, name: str) -> Response:
    """Show the model card or the datasheet of a run."""
    stored = _open()[1].run(run_id)
    cards = render_cards(stored.record or {"run_id": run_id}, stored.stages) if stored else {}
    if name not in cards:
        raise HTTPException(HTTPStatus.NOT_FOUND, "The run published nothing, or has no such card.")
    return PlainTextResponse(cards[name], headers=HEADERS)


@app.get("/steps/{job_flow_id}/{step_id}", response_class=HTMLResponse)
def show_step(
    job_flow_id: Annotated[str, PathParameter(pattern="^j-[0-9A-Z]{1,30}$")],
    step_id: Annotated[str, PathParameter(pattern="^s-[0-9A-Z]{1,30}$")],
) -> Response:
    """Show the logs of a step, to which a wait task links."""
    settings, archive = _open()
    return _html(render_step(archive.client, settings.lake_bucket, job_flow_id, step_id))


@app.get("/runbook", response_class=HTMLResponse)
def show_runbook() -> Response:
    """Show docs/runbook.md, to whose sections notices link.

    Raises:
        HTTPException: 404 when the file is not deployed.
    """
    page = render_runbook()
    if page is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "docs/runbook.md is not deployed beside plugins/.")
    return _html(page)


@app.get("/page.js")
def script() -> Response:
    """Serve the page's script."""
    return Response(SCRIPT.read_bytes(), media_type="text/javascript", headers=HEADERS)


@app.get("/{rest:path}", response_class=HTMLResponse)
def refuse_unknown_path() -> Response:
    """Refuse any other address, after the login.

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
    """Return the states of runs in Airflow's database; unknown runs are absent."""
    if not run_ids:
        return {}
    with create_session() as session:
        rows = session.execute(
            select(DagRun.run_id, DagRun.state).where(DagRun.dag_id == PIPELINE, DagRun.run_id.in_(run_ids))
        )
        return {run_id: str(state) for run_id, state in rows}


def _html(page: str, status: int = HTTPStatus.OK) -> Response:
    # A label may hold half of a surrogate pair, which no encoding takes.
    return HTMLResponse(page.encode("utf-8", errors="replace"), status, headers=HEADERS)


def _message(request: Request, status: int, title: str, what: str, detail: str | None = None) -> Response:
    """Return an error as a page; the depth of the request's path locates the list and the script."""
    up = "../" * request.scope["path"].removeprefix(request.scope.get("root_path", "")).strip("/").count("/")
    view: dict[str, Any] = {
        "title": title,
        "what": what,
        "detail": detail,
        "kind": "failed" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "refused",
        "home": (up or "./") if status == HTTPStatus.NOT_FOUND else None,
        "login": f"{up}../api/v2/auth/login?next={quote(request.url.path, safe='')}",
        "script": f"{up}page.js" if status != HTTPStatus.UNAUTHORIZED else None,
    }
    return _html(render_template("message.html.j2", view), status)


@app.exception_handler(StarletteHTTPException)
def show_http_error(request: Request, error: StarletteHTTPException) -> Response:
    """Show what the reader can do about a 401, 403 or 404, and nothing else."""
    titles = {
        HTTPStatus.UNAUTHORIZED: ("Not logged in", "Log in to Airflow, which leads back here."),
        HTTPStatus.FORBIDDEN: (
            "Not allowed",
            f"You may not read the runs of {PIPELINE}, or this login is no longer valid.",
        ),
        HTTPStatus.NOT_FOUND: ("Not found", str(error.detail)),
    }
    title, what = titles.get(HTTPStatus(error.status_code), ("Not possible", str(error.detail)))
    return _message(request, error.status_code, title, what)


@app.exception_handler(RequestValidationError)
def show_bad_request(request: Request, error: RequestValidationError) -> Response:  # noqa: ARG001
    """Refuse a parameter that no link of these pages has."""
    return _message(request, HTTPStatus.BAD_REQUEST, "Not understood", "No link of these pages looks like this.")


@app.exception_handler(ConfigError)
def show_config_error(request: Request, error: ConfigError) -> Response:
    """Show which setting is missing or wrong."""
    what = "The API server’s settings (include/settings.yaml, FRUITS_* variables) do not say where the runs are."
    return _message(request, HTTPStatus.INTERNAL_SERVER_ERROR, "Settings are wrong", what, str(error))


@app.exception_handler(ClientError)
@app.exception_handler(BotoCoreError)
def show_lake_error(request: Request, error: Exception) -> Response:
    """Show that the lake does not answer, or refuses."""
    log.warning("The runs cannot be read: %s", error)
    what = (
        "The runs are in the lake bucket, and the API server cannot read it. Is the bucket there, does AWS "
        "(on a laptop: local_aws) answer, and may the API server read it?"
    )
    return _message(request, HTTPStatus.BAD_GATEWAY, "The lake cannot be read", what, str(error))
