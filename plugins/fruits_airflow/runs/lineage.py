"""What a run read and wrote, as OpenLineage events: in lineage.json, and where the library's own settings send them.

A run of the DAG is the parent, each step of its clusters a child. No event holds the reason of a failure, which can
name a photo: an erasure does not reach a catalog.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from openlineage.client import OpenLineageClient, facet_v2
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.serde import Serde
from openlineage.client.transport.noop import NoopConfig, NoopTransport
from openlineage.client.uuid import generate_static_uuid

from fruits_airflow.emr.stage_steps import STAGES
from fruits_airflow.emr.steps import Step, list_steps
from fruits_airflow.records.models import StageMetrics
from fruits_airflow.runs.plan import RunPlan
from fruits_airflow.runs.run_context import RunContext
from fruits_airflow.storage.lake import run_key

LINEAGE = "lineage.json"
_ENDS = {"refused": RunState.ABORT, "CANCELLED": RunState.ABORT}  # of a run and of a step; any other has failed
_ENDS |= dict.fromkeys(("succeeded", "skipped", "COMPLETED"), RunState.COMPLETE)


def emit(run: RunContext, started_at: datetime | None, state: str, stages: Mapping[str, StageMetrics]) -> None:
    """Write the events of a run that has ended to its folder, and send them if a transport is configured."""
    steps = [step for cluster in run.history() for step in reversed(list_steps(run.client, cluster.job_flow_id))]
    events = list(describe_run(run, started_at or datetime.now(UTC), state, steps, stages))
    content = json.dumps([Serde.to_dict(event) for event in events], indent=1, sort_keys=True)
    run.lake.write(run_key(run.identity.run_id, LINEAGE), content.encode(), "application/json")
    # Without a configuration, the library would print each event to the log.
    if OpenLineageClient(transport=NoopTransport(NoopConfig())).config.transport:
        client = OpenLineageClient()
        for event in events:
            client.emit(event)
        client.close(30.0)  # a transport may send in the background


def describe_run(
    run: RunContext, started_at: datetime, state: str, steps: Sequence[Step], stages: Mapping[str, StageMetrics]
) -> Iterator[RunEvent]:
    """Yield the start and the end of the run and of each step; a step that has completed has inputs and outputs."""
    namespace, name = f"fruits-{run.identity.deployment_id}", run.identity.dag_id
    run_id, parent = str(generate_static_uuid(started_at, run.identity.name.encode())), facet_v2.parent_run
    whole: dict[str, Any] = {"run": Run(run_id), "job": Job(namespace, name)}
    facet = parent.ParentRunFacet(parent.Run(run_id), parent.Job(namespace, name))
    yield RunEvent(eventTime=started_at.isoformat(), eventType=RunState.START, **whole)
    for step in steps:
        if step.stage in STAGES and step.started_at and step.ended_at:
            step_run = Run(str(generate_static_uuid(step.started_at, step.step_id.encode())), {"parent": facet})
            part: dict[str, Any] = {"run": step_run, "job": Job(namespace, f"{name}.{step.stage}")}
            yield RunEvent(eventTime=step.started_at.isoformat(), eventType=RunState.START, **part)
            if step.state == "COMPLETED" and run.run_plan and step.stage in stages:
                part |= _datasets(step.stage, run.run_plan, stages[step.stage])
            yield RunEvent(eventTime=step.ended_at.isoformat(), eventType=_ENDS.get(step.state, RunState.FAIL), **part)
    yield RunEvent(eventTime=datetime.now(UTC).isoformat(), eventType=_ENDS.get(state, RunState.FAIL), **whole)


def _datasets(stage: str, plan: RunPlan, metrics: StageMetrics) -> dict[str, Any]:
    """Return the inputs and outputs of a stage."""
    lake, model, pca = f"s3://{plan.lake_bucket}", f"models/{plan.model_id}", run_key(plan.run_id, "pca_model.npz")
    tables = f"tables/{plan.database}.db"  # a table is named by its place, as OpenLineage's listener for Spark does
    inputs = [InputDataset(lake, f"{tables}/{table}") for table in metrics.reads]
    if stage == "load_images":
        facets = facet_v2.input_statistics_input_dataset
        photos = facets.InputStatisticsInputDatasetFacet(size=plan.input_bytes, fileCount=plan.images.seen)
        inputs.append(
            InputDataset(f"s3://{plan.raw_bucket}", plan.input_prefix.rstrip("/"), {"inputStatistics": photos})
        )
    inputs += [InputDataset(lake, key) for key in {"featurize": [model], "publish": [pca]}.get(stage, ())]
    outputs = [_table(lake, tables, table, metrics) for table in metrics.writes]
    files = {"reduce_pca": [pca], "publish": [run_key(plan.run_id, "pca.parquet")]}
    outputs += [OutputDataset(lake, key) for key in files.get(stage, ())]
    return {"inputs": inputs, "outputs": outputs}


def _table(lake: str, folder: str, table: str, metrics: StageMetrics) -> OutputDataset:
    """Return a table with its columns, and as far as the stage measured them the rows that it wrote and the size."""
    images, sizes = metrics.images, metrics.bytes
    rows = {"images": images.loaded, "rejects": images.rejected, "features": metrics.features.computed}.get(table)
    size = {"images": sizes.pixels, "features": sizes.features, "pca": sizes.pca}.get(table)
    schema, quality = facet_v2.schema_dataset, facet_v2.data_quality_metrics_dataset
    fields = [schema.SchemaDatasetFacetFields(column, kind) for column, (kind, _) in metrics.writes[table]]
    facets = {
        "schema": schema.SchemaDatasetFacet(fields=fields),
        "dataQualityMetrics": quality.DataQualityMetricsDatasetFacet(columnMetrics={}, bytes=size),
    }
    written = facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows)
    return OutputDataset(lake, f"{folder}/{table}", {"outputStatistics": written}, facets=facets)
