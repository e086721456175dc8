"""Links from a run's page: its tasks in Airflow, its logs, its folder, its tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from fruits_airflow.aws.links import console_address
from fruits_airflow.emr.stage_steps import STAGES
from fruits_airflow.report.facts import Facts
from fruits_airflow.report.flow import NAMES
from fruits_airflow.storage.lake import run_key

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from fruits_airflow.config.settings import Settings


@dataclass(frozen=True)
class Link:
    """A link; `address` is None when no browser can show the target, `is_external` for a site other than Airflow."""

    title: str
    text: str
    address: str | None = None
    is_external: bool = False


def run_links(settings: Settings, client: S3Client, airflow: str, dag_id: str, facts: Facts) -> Iterator[Link]:
    """Yield links to the tasks, logs and tables of a run; `airflow` is the address of its UI, ending in a slash."""
    run_id = facts.text("run_id") or ""
    in_airflow = f"{airflow}dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"
    yield Link("DAG run", run_id, in_airflow)
    yield Link("Log of the plan", "task plan", f"{in_airflow}/tasks/plan")
    had_cluster = facts.text("cluster", "id") is not None
    for stage in STAGES if had_cluster else ():
        yield Link(f"Log of {NAMES[stage]}", f"task {stage}.wait", f"{in_airflow}/tasks/{stage}.wait")

    def folder(title: str, prefix: str) -> Link:
        address = console_address(client, settings.lake_bucket, prefix)
        return Link(title, f"s3://{settings.lake_bucket}/{prefix}", address, is_external=True)

    if had_cluster:
        yield folder("Cluster’s logs", f"logs/{facts.text('cluster', 'id')}/")
    yield folder("Run’s folder", run_key(run_id) + "/")
    database = settings.demo_database if facts.text("mode") == "demo" else settings.database
    yield Link("Tables", f"{database}: images, rejects, features, pca, pca_models, predictions")
    yield folder("Tables’ files", f"tables/{database}.db/")
