"""Airflow plugin: the pages of the runs and of step logs, and the host names that Airflow answers to."""

from typing import Any
from urllib.parse import urlsplit

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/fruits-runs"
LOOPBACK_NAMES = ["localhost", "127.0.0.1"]


async def runs_app(scope: Any, receive: Any, send: Any) -> None:
    """Import the application of fruits_airflow.report.web at the first request.

    Airflow imports plugins in every task, too, and only the API server has a use for what the pages need.
    """
    from fruits_airflow.report.web import app

    await app(scope, receive, send)


def trusted_hosts(app: Any) -> Any:
    """Wrap the API server so that one of this machine answers to this machine's names only, against DNS rebinding.

    A web page can make its own name resolve to 127.0.0.1 and then read what a server there answers; only the Host
    header shows it. A server whose `[api] base_url` is elsewhere answers to every name: load balancers and health
    checks call it by names that nobody can list here.
    """
    from airflow.configuration import conf
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    host = urlsplit(conf.get("api", "base_url", fallback=None) or "").hostname
    allowed = LOOPBACK_NAMES if host in LOOPBACK_NAMES else ["*"]
    return TrustedHostMiddleware(app, allowed_hosts=allowed, www_redirect=False)


class RunReportPlugin(AirflowPlugin):
    """Where the pages are mounted, and where Airflow's UI leads to them."""

    name = "fruits_run_report"
    fastapi_apps = [{"app": runs_app, "url_prefix": PREFIX, "name": "Fruits runs"}]  # noqa: RUF012 - Airflow's
    fastapi_root_middlewares = [{"middleware": trusted_hosts, "name": "Fruits trusted hosts"}]  # noqa: RUF012 - Airflow's
    external_views = [  # noqa: RUF012 - Airflow's
        {
            "name": "Fruits runs",
            "href": f"{PREFIX[1:]}/",
            "destination": "nav",
            "url_route": "fruits-runs",
            "nav_top_level": True,
        },
        {
            "name": "Fruits report",
            "href": f"{PREFIX[1:]}/runs/{{RUN_ID}}?dag_id={{DAG_ID}}",
            "destination": "dag_run",
            "url_route": "fruits-report",
        },
    ]
