"""run.json: what a run was, did, took and cost, in one shape whatever its end."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.aws.endpoints import is_simulated
from fruits_airflow.config.aws_types import EMRClient
from fruits_airflow.config.errors import FruitsError
from fruits_airflow.emr.announced_requests import CREATED_ID
from fruits_airflow.emr.clusters import CLUSTER_NOTE, Cluster
from fruits_airflow.emr.stage_steps import STAGES
from fruits_airflow.emr.steps import list_steps
from fruits_airflow.records.models import RunRecord, StageMetrics
from fruits_airflow.records.sample import MAX_SAMPLE_BYTES, SAMPLE, SampleError, decode_sample
from fruits_airflow.runs.plan import RunPlan
from fruits_airflow.runs.run_context import RunContext
from fruits_airflow.storage.lake import Lake, ObjectTooLarge, run_key

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)


def read_sample(lake: Lake, run_id: str, problems: list[str]) -> pa.Table | None:
    """Read the sample of images that `publish` wrote for the report; None without one.

    One that cannot be used counts as none; `problems` says why.
    """
    try:
        content = lake.read(run_key(run_id, SAMPLE), MAX_SAMPLE_BYTES)
        return None if content is None else decode_sample(content)
    except (ObjectTooLarge, SampleError) as error:
        problems.append(str(error))
        return None


def assemble_record(
    run: RunContext, mode: str, stages: Mapping[str, StageMetrics], *, ended: bool = False, whole: bool = False
) -> RunRecord:
    """Assemble the record of a run as far as it has come, without its final state.

    `ended` says that every cluster of the run was seen ended. Clusters that EMR does not describe are left out, unless
    the record must be `whole`.

    Raises:
        ClientError, BotoCoreError: EMR does not describe the clusters, and `whole` is set.
    """
    of_run: dict[str, Any] = {"run_id": run.identity.run_id, "mode": mode, "region": run.region}
    record = RunRecord(**of_run, state="failed", simulated=is_simulated(run.client)).model_dump()
    plan = run.run_plan
    if plan:
        _add_plan(record, plan)
    for stage, metrics in stages.items():
        record["seconds"][stage] = metrics.seconds
        if metrics.cluster.executors >= record["cluster"]["executors"]:
            record["cluster"] |= metrics.cluster.model_dump(include={"engine", "executors", "hosts"})
        for part, content in metrics.parts(
            "images", "features", "pca", "drift", "bytes", "quality", "classifier"
        ).items():
            record[part] |= content
        record |= metrics.parts("rejects_by_code", "metadata_stripped")
    try:
        record["cluster"] |= _noted_cluster(run)
        clusters = run.ended_history() if ended else run.history()
        if clusters:
            _add_cluster(record, run.client, clusters)
            _add_cost(record["cost"], run.estimated_parts())
            ended_at = clusters[-1].description["Status"]["Timeline"].get("EndDateTime")
            # The cluster of an earlier attempt ended before this one's plan.
            if plan and ended_at and ended_at > plan.start:
                # The page is written some seconds before run.json: up to the cluster's end, both count the same.
                record["seconds"]["total"] = _seconds_between(plan.start, ended_at)
    except (BotoCoreError, ClientError) as error:
        if whole:
            raise
        log.warning("EMR does not describe this run's cluster, so the record has its id at most: %s", error)
    except FruitsError as error:
        # A profile or prices that no longer fit the plan: another attempt finds the same.
        log.warning("What the run has cost is not in the record: %s", error)
    return RunRecord.model_validate(record)


def _add_plan(record: dict[str, Any], plan: RunPlan) -> None:
    record["images"] |= plan.images.model_dump()
    record["bytes"]["input"] = plan.input_bytes
    record["cluster"]["vcpus"] = plan.vcpus
    record["features"] |= {name: getattr(plan, name) for name in ("model_id", "network", "engine", "weights")}
    record["cost"] |= {
        "forecast_eur": round(plan.forecast_eur, 4),
        "forecast_parts": {part: round(eur, 4) for part, eur in plan.forecast_parts.items()},
        "ceiling_eur": plan.max_cost_eur,
    }
    record["seconds"]["total"] = _seconds_between(plan.start, datetime.now(UTC))


def _seconds_between(start: datetime, end: datetime) -> float:
    """Return the seconds, never negative: the clocks of two machines differ."""
    return round(max(0.0, (end - start).total_seconds()), 1)


def _noted_cluster(run: RunContext) -> dict[str, Any]:
    """Return id and name of the latest cluster since the plan, as the journal has them."""
    note = run.journal.read(CLUSTER_NOTE) or {}
    if CREATED_ID not in note or not run.plan or note["at"] < run.plan.planned_at:
        return {}
    return {"id": note[CREATED_ID], "name": run.identity.name}


def _add_cost(cost: dict[str, Any], parts: Mapping[str, float]) -> None:
    """Add what the nodes have cost, and its difference from the forecast of the same parts, so without requests."""
    spent = {part: round(eur, 4) for part, eur in parts.items() if eur}
    foreseen = sum(cost["forecast_parts"].get(part, 0.0) for part in spent)
    cost["estimate_eur"] = round(sum(parts.values()), 4)
    cost["estimate_parts"] = spent
    cost["difference_eur"] = round(cost["estimate_eur"] - foreseen, 4)


def _add_cluster(record: dict[str, Any], client: EMRClient, clusters: Sequence[Cluster]) -> None:
    last = clusters[-1]
    release = last.description.get("ReleaseLabel")
    record["cluster"] |= {"id": last.job_flow_id, "name": last.name, "state": last.state, "release": release}
    timeline = last.description["Status"]["Timeline"]
    ends = []
    for cluster in clusters:
        for step in list_steps(client, cluster.job_flow_id):
            if step.stage in STAGES and step.started_at and step.ended_at:
                ends.append(step.ended_at)
                if step.state == "COMPLETED":
                    # With the start of Spark, unlike the job's own count.
                    record["seconds"][step.stage] = _seconds_between(step.started_at, step.ended_at)
    if ready := timeline.get("ReadyDateTime"):
        record["seconds"]["cluster_start"] = _seconds_between(last.created_at, ready)
    if ends and (ended := timeline.get("EndDateTime")):
        record["seconds"]["terminate"] = _seconds_between(max(ends), ended)
