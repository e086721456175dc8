"""The task `report`: write report.html and the cards of what was published, also for a stopped run, with the reason."""

import logging
from collections.abc import Mapping

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException
from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.config.errors import ResidencyError
from fruits_airflow.config.run_parameters import mode_of
from fruits_airflow.config.settings import Settings
from fruits_airflow.records.digests import REPORT
from fruits_airflow.records.models import RunRecord, StageMetrics, read_record, read_stages
from fruits_airflow.runs.record import assemble_record, read_sample
from fruits_airflow.runs.residency import EVIDENCE, complete
from fruits_airflow.runs.run_context import RunContext
from fruits_airflow.runs.run_status import problems_of, task_states
from fruits_airflow.storage.lake import run_key
from fruits_airflow.storage.run_notes import LAST_FAILURE

log = logging.getLogger(__name__)


def report_run(settings: Settings, context: Context) -> str:
    """Write report.html; return its URI.

    Raises:
        AirflowSkipException: The plan failed without a record, so there is nothing to report.
    """
    run = RunContext.of(context, settings)
    uri = run.lake.uri(run_key(run.identity.run_id, REPORT))
    if not run.plan:
        decided = read_record(run.lake, run.identity.run_id)
        if decided is None:
            raise AirflowSkipException("the plan failed before it could say why")
        write_report(run, decided, {})
        return uri
    unusable = list[str]()
    stages = read_stages(run.lake, run.identity.run_id, unusable)
    record = assemble_record(run, mode_of(settings, context["params"]), stages)
    problems = problems_of(task_states(context), stages, run.run_plan, run.journal.read(LAST_FAILURE))
    problems += [*unusable, *residency_problems(run)]
    write_report(run, record.ended("failed" if problems else "succeeded", "; ".join(problems)), stages)
    return uri


def residency_problems(run: RunContext) -> list[str]:
    """Complete residency.json; return what is outside the European Union, which turns the run red."""
    try:
        complete(run.lake, run.identity.run_id, run.history())
    except ResidencyError as error:
        return [f"ResidencyError: {error}"]
    except (BotoCoreError, ClientError) as error:
        log.warning("residency.json cannot be completed: %s; the page shows the evidence of the plan", error)
    return []


def write_report(run: RunContext, record: RunRecord, stages: Mapping[str, StageMetrics]) -> dict[str, bytes]:
    """Render a record, and the cards of its publication, into the run's folder; return the files by name."""
    from fruits_airflow.report import render, render_cards

    run_id, problems = run.identity.run_id, list[str]()
    sample = read_sample(run.lake, run_id, problems)
    evidence = run.lake.read_json(run_key(run_id, EVIDENCE))
    page = render(record, stages, sample, evidence, problems=problems).encode()
    run.lake.write(run_key(run_id, REPORT), page, "text/html; charset=utf-8")
    cards = {name: card.encode() for name, card in render_cards(record, stages).items()}
    for name, card in cards.items():
        run.lake.write(run_key(run_id, name), card, "text/plain; charset=utf-8")
    return {REPORT: page, **cards}


def write_report_if_possible(
    run: RunContext, record: RunRecord, stages: Mapping[str, StageMetrics], *, replace: bool
) -> dict[str, bytes]:
    """Render a record where there is no page yet, or over it if `replace`; log an error instead of raising it.

    Returns:
        The files that were written, by name.
    """
    try:
        if replace or run.lake.read(run_key(run.identity.run_id, REPORT)) is None:
            return write_report(run, record, stages)
    except Exception:
        log.exception("report.html cannot be written; a page does not decide how a run ended")
    return {}
