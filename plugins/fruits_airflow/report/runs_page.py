"""The list of runs: a page of rows, each what one run.json says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from fruits_airflow.aws.endpoints import LOCAL
from fruits_airflow.config.regions import EU_REGIONS
from fruits_airflow.records.models import date_of
from fruits_airflow.report.archive import RUN_ID, RunArchive, StoredRun
from fruits_airflow.report.facts import Facts
from fruits_airflow.report.page import named_state, render_template
from fruits_airflow.report.units import clipped, count, euros, number, percent, seconds

PAGE_ROWS = 25
MAX_REMARK = 160
NOTHING = "–"  # what a run that did not come so far has no figure for

AirflowStates = Callable[[Sequence[str]], Mapping[str, str]]


@dataclass(frozen=True)
class Row:
    """One run as the list shows it.

    Attributes:
        run_id: the name of its folder.
        link: address of its page from the list; None where Airflow knows no such run id.
        state: word for the style.
        title: its state for the reader.
        remark: the cause, or what is wrong with the record; None when all is well.
        when: the date in its id, UTC, as ISO 8601 and for the reader; None when there is none.
        loaded: images loaded.
        seen: images seen, None when not known.
        rejected: images rejected.
        has_rejects: whether there are any.
        variance: share of the variance that is kept.
        k: components kept, None when there is no PCA.
        seconds: of the whole run.
        forecast: of the cost.
        estimate: of the cost.
        region: where its cluster was to be.
        in_eu: whether that is in the EU, or not known.
        simulated: whether an emulator of AWS ran it.
    """

    run_id: str
    link: str | None
    state: str
    title: str
    remark: str | None
    when: tuple[str, str] | None
    loaded: str
    seen: str | None
    rejected: str
    has_rejects: bool
    variance: str
    k: str | None
    seconds: str
    forecast: str
    estimate: str
    region: str
    in_eu: bool
    simulated: bool


def render_runs(archive: RunArchive, dag_id: str, page: int, airflow_states: AirflowStates) -> str:
    """The list as HTML; reads the run.json of this page's runs only.

    Args:
        archive: where the runs are.
        dag_id: the DAG that they are runs of.
        page: from 1; one beyond the last shows the last.
        airflow_states: gives the state in Airflow of runs that have left no record.

    Raises:
        ClientError, BotoCoreError: the bucket is not there, refuses, or cannot be reached.
    """
    ids = archive.run_ids()
    pages = max(1, math.ceil(len(ids) / PAGE_ROWS))
    page = min(max(page, 1), pages)
    first = (page - 1) * PAGE_ROWS
    runs = archive.records(ids[first : first + PAGE_ROWS])
    going = airflow_states([run.run_id for run in runs if not run.recorded])
    view = {
        "script": "page.js",
        "bucket": archive.bucket,
        "dag_id": dag_id,
        "rows": [_row(run, going.get(run.run_id)) for run in runs],
        "first": first + 1,
        "total": len(ids),
        "page": page,
        "pages": pages,
    }
    return render_template("runs.html.j2", view)


def record_of(run: StoredRun, airflow_state: str | None) -> Mapping[str, object]:
    """The run's record under the name of its folder; for a run without one, what its id and Airflow say of it."""
    if run.recorded:
        return {**(run.record.model_dump() if run.record else {}), "run_id": run.run_id}
    going = airflow_state in ("queued", "running")
    # There is no record yet, but `plan` has surveyed where the run works.
    survey = Facts(run.residency, {})
    return {
        "run_id": run.run_id,
        "state": "running" if going else "unrecorded",
        "region": survey.text("cluster_region"),
        "simulated": survey.text("endpoint", "region") == LOCAL,
    }


def _row(run: StoredRun, airflow_state: str | None) -> Row:
    facts = Facts(record_of(run, airflow_state), {})
    state, title, _ = named_state(facts.text("state"))
    remark = "; ".join(run.problems) or facts.text("reason")
    date, region = date_of(run.run_id), facts.text("region")
    seen, k = number(facts.get("images", "seen")) or None, facts.number("pca", "k") or None
    worked = seen is not None
    return Row(
        run_id=run.run_id,
        link=f"runs/{quote(run.run_id, safe='')}" if RUN_ID.fullmatch(run.run_id) else None,
        state=state,
        title="Record broken" if run.problems else title,
        remark=remark and clipped(remark, MAX_REMARK),
        when=(date.isoformat(), f"{date:%d %B %Y, %H:%M} UTC") if date else None,
        loaded=count(facts.number("images", "loaded")) if worked else NOTHING,
        seen=count(seen) if worked else None,
        rejected=count(facts.number("images", "rejected")) if worked else NOTHING,
        has_rejects=bool(facts.number("images", "rejected")),
        variance=percent(facts.number("pca", "explained_variance")) if k else NOTHING,
        k=count(k) if k else None,
        seconds=seconds(total) if (total := facts.number("seconds", "total")) else NOTHING,
        forecast=_money(facts, "forecast_eur"),
        estimate=_money(facts, "estimate_eur"),
        region=region or NOTHING,
        in_eu=region is None or region in EU_REGIONS,
        simulated=facts.get("simulated") is True,
    )


def _money(facts: Facts, name: str) -> str:
    sum_of_it = facts.number("cost", name)
    return euros(sum_of_it) if sum_of_it else NOTHING  # a blank record's zero
