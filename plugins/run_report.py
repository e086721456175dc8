"""Airflow plugin: the page "Fruits runs" in the navigation, and the tab "Fruits report" of a DAG run."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/fruits-runs"


async def runs_app(scope: Any, receive: Any, send: Any) -> None:
    """The application in fruits_airflow.report.web, imported when it is first asked for.

    Airflow imports plugins in every task, too, and only the API server has a use for what the pages need.
    """
    from fruits_airflow.report.web import app

    await app(scope, receive, send)


class RunReportPlugin(AirflowPlugin):
    """Where the pages are mounted, and where Airflow's UI leads to them."""

    name = "fruits_run_report"
    fastapi_apps = [{"app": runs_app, "url_prefix": PREFIX, "name": "Fruits runs"}]  # noqa: RUF012 - Airflow's
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
