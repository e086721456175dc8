"""The list of runs: a page of rows, each with the content of a run.json."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from fruits_airflow.aws.endpoints import LOCAL
from fruits_airflow.config.regions import EU_REGIONS
from fruits_airflow.records.models import date_of
from fruits_airflow.report.archive import RUN_ID, RunArchive, StoredRun
from fruits_airflow.report.facts import Facts
from fruits_airflow.report.page import named_state, render_template
from fruits_airflow.report.units import clipped

PAGE_ROWS = 25
MAX_REMARK = 160

AirflowStates = Callable[[Sequence[str]], Mapping[str, str]]


@dataclass(frozen=True)
class RunRow:
    """A run in the list."""

    run_id: str  # name of its folder
    link: str | None  # address of its page from the list; None where Airflow allows no such run id
    state: str  # word for the style
    title: str  # its state for the reader
    remark: str | None  # its cause, or what is wrong with the record
    date: datetime | None  # date in its id
    facts: Facts  # facts of its record
    is_in_eu: bool  # whether its cluster's region is in the EU, or not known


def render_runs(archive: RunArchive, dag_id: str, page: int, airflow_states: AirflowStates) -> str:
    """Return the list as HTML; reads the run.json of this page's runs only.

    Pages count from 1; one beyond the last shows the last. `airflow_states` returns the states of runs that may go on.

    Raises:
        ClientError, BotoCoreError: The bucket does not exist, refuses, or cannot be reached.
    """
    ids = archive.run_ids()
    pages = max(1, math.ceil(len(ids) / PAGE_ROWS))
    page = min(max(page, 1), pages)
    first = (page - 1) * PAGE_ROWS
    runs = archive.records(ids[first : first + PAGE_ROWS])
    states = airflow_states([run.run_id for run in runs if run.may_go_on])
    view = {
        "script": "page.js",
        "bucket": archive.bucket,
        "dag_id": dag_id,
        "rows": [_row(run, states.get(run.run_id)) for run in runs],
        "first": first + 1,
        "total": len(ids),
        "page": page,
        "pages": pages,
    }
    return render_template("runs.html.j2", view)


def record_of(run: StoredRun, airflow_state: str | None) -> Mapping[str, object]:
    """Return the run's record under the name of its folder; without one, what its id and Airflow say of the run.

    A failed run that goes on was cleared: its record is of the attempt before.
    """
    is_going = run.may_go_on and airflow_state in ("queued", "running")
    if run.has_record and not is_going:
        return {**(run.record.model_dump() if run.record else {}), "run_id": run.run_id}
    survey = Facts(run.residency, {})  # by `plan`, of where the run works
    return {
        "run_id": run.run_id,
        "state": "running" if is_going else "unrecorded",
        "region": survey.text("cluster_region"),
        "simulated": survey.text("endpoint", "region") == LOCAL,
    }


def _row(run: StoredRun, airflow_state: str | None) -> RunRow:
    facts = Facts(record_of(run, airflow_state), {})
    state, title, _ = named_state(facts.text("state"))
    remark, region = "; ".join(run.problems) or facts.text("reason"), facts.text("region")
    return RunRow(
        run_id=run.run_id,
        link=f"runs/{quote(run.run_id, safe='')}" if RUN_ID.fullmatch(run.run_id) else None,
        state=state,
        title="Record broken" if run.problems else title,
        remark=remark and clipped(remark, MAX_REMARK),
        date=date_of(run.run_id),
        facts=facts,
        is_in_eu=region is None or region in EU_REGIONS,
    )
