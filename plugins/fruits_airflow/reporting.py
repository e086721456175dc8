"""Writing report.html, for every run that has something to say: a stopped one says why."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException
from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.errors import ResidencyError
from fruits_airflow.journal import LAST_FAILURE
from fruits_airflow.lake import run_key
from fruits_airflow.outcome import problems_of, task_states
from fruits_airflow.residency import EVIDENCE, complete
from fruits_airflow.run_cluster import RunCluster
from fruits_airflow.run_parameters import mode_of
from fruits_airflow.run_record import assemble_record, read_sample, read_stages
from fruits_airflow.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

REPORT = "report.html"


def report_run(settings: Settings, context: Context) -> str:
    """Writes report.html; returns its URI.

    Raises:
        AirflowSkipException: the plan died without a word, so there is nothing to report.
    """
    run = RunCluster.of(context, settings)
    stages = read_stages(run.lake, run.identity.run_id)
    if not run.plan:
        decided = run.lake.read_json(run_key(run.identity.run_id, "run.json"))
        if decided is None:
            raise AirflowSkipException("the plan died before it could say why")
        return write_report(run, decided, {})
    record = assemble_record(run, mode_of(settings, context["params"]), stages)
    problems = problems_of(task_states(context), stages, run.plan, run.journal.read(LAST_FAILURE))
    problems += residency_problems(run)
    record |= {"state": "failed" if problems else "succeeded", "reason": "; ".join(problems)}
    return write_report(run, record, stages)


def residency_problems(run: RunCluster) -> list[str]:
    """Completes residency.json; what was found outside the European Union is why the run is red."""
    try:
        complete(run.lake, run.identity.run_id, run.history())
    except ResidencyError as error:
        return [f"ResidencyError: {error}"]
    except (BotoCoreError, ClientError) as error:
        log.warning("residency.json cannot be completed: %s; the page shows what plan had found", error)
    return []


def write_report(run: RunCluster, record: dict[str, Any], stages: dict[str, dict[str, Any]]) -> str:
    """Renders a record into the run's folder; returns the page's URI."""
    from fruits_airflow.report import render

    key = run_key(run.identity.run_id, REPORT)
    evidence = run.lake.read_json(run_key(run.identity.run_id, EVIDENCE))
    page = render(record, stages, read_sample(run.lake, run.identity.run_id), evidence)
    run.lake.write(key, page.encode(), "text/html; charset=utf-8")
    return run.lake.uri(key)


def write_report_if_possible(
    run: RunCluster, record: dict[str, Any], stages: dict[str, dict[str, Any]], *, anew: bool
) -> None:
    """Renders a record where there is no page yet, or over it if `anew`; logs what stands in its way."""
    try:
        if anew or run.lake.read(run_key(run.identity.run_id, REPORT)) is None:
            write_report(run, record, stages)
    except Exception:
        log.exception("report.html cannot be written; a page does not decide how a run ended")
