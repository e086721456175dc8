"""What a run says of its inputs and outputs, as OpenLineage events."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fruits_airflow.emr.steps import Step
from fruits_airflow.runs import lineage
from fruits_airflow.runs.run_context import RunContext
from fruits_airflow.runs.run_status import WORK_TASKS
from fruits_airflow.runs.verdict import judge_run
from fruits_airflow.storage.lake import run_key
from jsonschema import Draft202012Validator
from openlineage.client.serde import Serde
from referencing import Registry, Resource

from tests.plugins.airflow_context import context_of
from tests.plugins.bash_steps import bash, ended
from tests.plugins.measured import MEASURED, measure, parsed

DONE = dict.fromkeys(WORK_TASKS, "success")
BEGIN = datetime(2026, 1, 1, 2, tzinfo=UTC)
PHOTO = "images/Apple/somebody.jpg"
IMAGE = [["image_id", ["STRING", True]], ["pixels", ["BINARY", True]], ["label", ["STRING", False]]]
READS_AND_WRITES: dict[str, dict[str, Any]] = {
    "load_images": {
        "images": {"seen": 3, "new": 3, "loaded": 2, "rejected": 1},
        "bytes": {"input": 30, "pixels": 200},
        "reject_examples": [{"source_key": PHOTO, "error_code": "not_an_image", "detail": PHOTO}],
        "writes": {"images": IMAGE, "rejects": [["image_id", ["STRING", True]]]},
    },
    "featurize": {
        "features": {"rows": 5, "computed": 2},
        "bytes": {"features": 90},
        "reads": ["images"],
        "writes": {"features": [["features", ["ARRAY<FLOAT>", True]]]},
    },
    "reduce_pca": {"reads": ["features", "pca_models"], "writes": {"pca_sums": [["n", ["BIGINT", True]]]}},
    "publish": {"bytes": {"pca": 7}, "reads": ["features"], "writes": {"pca": [["pca", ["ARRAY<FLOAT>", True]]]}},
}
STAGES = {stage: metrics | READS_AND_WRITES[stage] for stage, metrics in MEASURED.items()}


@pytest.fixture(scope="module")
def specification() -> Draft202012Validator:
    folder = Path(__file__).with_name("openlineage")
    schemas = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    registry: Registry = Registry().with_resources(
        (schema["$id"], Resource.from_contents(schema)) for schema in schemas.values()
    )
    facets = {"$ref": schemas["OpenLineage.json"]["$id"] + "#/$defs/RunEvent"}
    return Draft202012Validator(facets, registry=registry, format_checker=Draft202012Validator.FORMAT_CHECKER)


def facet_validator(name: str, specification: Draft202012Validator) -> Draft202012Validator:
    folder = Path(__file__).with_name("openlineage")
    schema = json.loads((folder / f"{name}.json").read_text())
    return Draft202012Validator(schema, registry=specification._registry)


def step(stage: str, minute: int, state: str = "COMPLETED", step_id: str | None = None) -> Step:
    begin = BEGIN + timedelta(minutes=minute)
    return Step(step_id or f"s-{stage}", f"{stage}/1", state, "", begin, begin, begin + timedelta(minutes=1))


def events_of(run: RunContext, state: str = "succeeded", steps: list[Step] | None = None) -> list[dict[str, Any]]:
    every = [step(stage, minute) for minute, stage in enumerate(STAGES)]
    described = lineage.describe_run(run, BEGIN, state, every if steps is None else steps, parsed(STAGES))
    return [Serde.to_dict(event) for event in described]


def end_of(events: list[dict[str, Any]], job: str) -> dict[str, Any]:
    return next(e for e in events if e["job"]["name"] == job and e["eventType"] != "START")


def names(datasets: list[dict[str, Any]]) -> list[str]:
    return [f"{dataset['namespace']}/{dataset['name']}" for dataset in datasets]


def stored(run: RunContext) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(run.lake.read(run_key(run.identity.run_id, "lineage.json")) or b"[]")
    return events


def test_the_events_follow_the_specification(run: RunContext, specification: Draft202012Validator) -> None:
    events = events_of(run)
    assert [event["eventType"] for event in events] == ["START", *["START", "COMPLETE"] * 4, "COMPLETE"]
    for event in events:
        specification.validate(event)
    facets: list[tuple[str, Any]] = []
    for event in events:
        facets += event["run"]["facets"].items()
        for dataset in (*event["inputs"], *event["outputs"]):
            facets += (dataset["facets"] | dataset.get("inputFacets", {}) | dataset.get("outputFacets", {})).items()
    for name, facet in facets:
        schema = facet["_schemaURL"].rpartition("/")[2].partition(".")[0]
        if schema != "$defs":
            facet_validator(facet["_schemaURL"].split("/")[-3].partition(".")[0], specification).validate({name: facet})
    kinds = {"parent", "schema", "inputStatistics", "outputStatistics", "dataQualityMetrics"}
    assert {name for name, _ in facets} == kinds


def test_a_broken_event_is_none_of_the_specifications(run: RunContext, specification: Draft202012Validator) -> None:
    event = events_of(run)[0]
    assert not specification.is_valid(event | {"eventType": "DONE"})
    assert not specification.is_valid({**event, "run": {"runId": "of no form"}})


def test_stages_are_runs_of_jobs_whose_parent_is_the_run_of_the_dag(run: RunContext) -> None:
    events = events_of(run)
    whole = events[0]
    assert whole["job"] == {
        "namespace": f"fruits-{run.settings.deployment_id}",
        "name": "fruits_pipeline",
        "facets": {},
    }
    for event in events[1:-1]:
        parent = event["run"]["facets"]["parent"]
        assert parent["run"]["runId"] == whole["run"]["runId"] == events[-1]["run"]["runId"]
        assert parent["job"]["name"] == "fruits_pipeline"
    assert [e["job"]["name"] for e in events[1:-1:2]] == [f"fruits_pipeline.{stage}" for stage in STAGES]
    assert len({event["run"]["runId"] for event in events}) == 5
    assert events[1]["eventTime"] == "2026-01-01T02:00:00+00:00"
    assert [e["run"]["runId"] for e in events_of(run)] == [e["run"]["runId"] for e in events], "an attempt later"


def test_inputs_and_outputs_are_what_the_stages_have_read_and_written(run: RunContext) -> None:
    events, plan = events_of(run), run.run_plan
    assert plan is not None
    lake = f"s3://{plan.lake_bucket}"
    tables, folder = f"{lake}/tables/fruits.db", f"{lake}/runs/{plan.run_id}"
    expected = {
        "load_images": ([f"s3://{plan.raw_bucket}/images"], [f"{tables}/images", f"{tables}/rejects"]),
        "featurize": ([f"{tables}/images", f"{lake}/models/{plan.model_id}"], [f"{tables}/features"]),
        "reduce_pca": (
            [f"{tables}/features", f"{tables}/pca_models"],
            [f"{tables}/pca_sums", f"{folder}/pca_model.npz"],
        ),
        "publish": ([f"{tables}/features", f"{folder}/pca_model.npz"], [f"{tables}/pca", f"{folder}/pca.parquet"]),
    }
    for stage, (inputs, outputs) in expected.items():
        event = end_of(events, f"fruits_pipeline.{stage}")
        assert (names(event["inputs"]), names(event["outputs"])) == (inputs, outputs)


def test_a_table_has_its_columns_and_what_was_measured_of_it(run: RunContext) -> None:
    loaded = end_of(events_of(run), "fruits_pipeline.load_images")
    images, rejects = loaded["outputs"]
    fields = [(field["name"], field["type"]) for field in images["facets"]["schema"]["fields"]]
    assert fields == [("image_id", "STRING"), ("pixels", "BINARY"), ("label", "STRING")]
    assert images["outputFacets"]["outputStatistics"]["rowCount"] == 2
    assert images["facets"]["dataQualityMetrics"]["bytes"] == 200
    assert rejects["outputFacets"]["outputStatistics"]["rowCount"] == 1
    assert "bytes" not in rejects["facets"]["dataQualityMetrics"], "nobody measured it"
    photos = loaded["inputs"][0]["inputFacets"]["inputStatistics"]
    assert (photos["fileCount"], photos["size"]) == (3, 30)


def test_a_step_that_failed_has_read_and_written_nothing_that_counts(run: RunContext) -> None:
    steps = [
        step("load_images", 0, "FAILED", "s-1"),
        step("load_images", 2, step_id="s-2"),
        step("featurize", 4, "CANCELLED"),
    ]
    events = events_of(run, "failed", steps)
    ends = [(e["job"]["name"].partition(".")[2], e["eventType"]) for e in events if e["eventType"] != "START"]
    assert ends == [("load_images", "FAIL"), ("load_images", "COMPLETE"), ("featurize", "ABORT"), ("", "FAIL")]
    assert [bool(e["outputs"]) for e in events if e["eventType"] != "START"] == [False, True, False, False]
    assert len({e["run"]["runId"] for e in events}) == 4


@pytest.mark.parametrize(("state", "end"), [("skipped", "COMPLETE"), ("refused", "ABORT"), ("failed", "FAIL")])
def test_a_run_without_a_cluster_begins_and_ends(run: RunContext, state: str, end: str) -> None:
    assert [event["eventType"] for event in events_of(run, state, [])] == ["START", end]


def test_no_event_names_a_photo(run: RunContext) -> None:
    assert PHOTO not in json.dumps(events_of(run))


# the file, and where else the events go


def test_the_verdict_leaves_the_events_of_real_steps_in_the_runs_folder(make_run: Callable[..., RunContext]) -> None:
    run = make_run("manual__lineage")
    measure(run, STAGES)
    submitter = run.step_submitter(run.find_or_create().job_flow_id)
    for name in ("load_images/1", "featurize/1"):
        added = submitter.find_or_add(bash("true", name))
        assert ended(submitter, added.step_id).state == "COMPLETED"
    judge_run(run.settings, context_of(run, DONE))
    events = stored(run)
    jobs = [event["job"]["name"].partition(".")[2] for event in events]
    assert jobs == ["", "load_images", "load_images", "featurize", "featurize", ""]
    assert end_of(events, "fruits_pipeline.load_images")["outputs"]
    times = [event["eventTime"] for event in events[1:]]
    assert times == sorted(times)


def test_a_refused_run_leaves_events_too(run: RunContext) -> None:
    record = {"run_id": run.identity.run_id, "state": "skipped", "reason": "nothing to do"}
    run.lake.write_json(run_key(run.identity.run_id, "run.json"), record)
    run.__dict__["plan"] = None
    judge_run(run.settings, context_of(run, {"plan": "skipped"}))
    assert [event["eventType"] for event in stored(run)] == ["START", "COMPLETE"]


@pytest.fixture
def catalog(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The events that a catalog of data has received, where the library's own variable leads to it."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", f"http://127.0.0.1:{server.server_port}")
        yield received
        server.shutdown()


def test_a_configured_transport_gets_the_events_as_well(run: RunContext, catalog: list[dict[str, Any]]) -> None:
    measure(run, STAGES)
    judge_run(run.settings, context_of(run, DONE))
    assert [event["run"]["runId"] for event in catalog] == [event["run"]["runId"] for event in stored(run)]


@pytest.mark.parametrize(
    "variables", [{"TYPE": "http", "URL": "http://127.0.0.1:9", "RETRY": '{"total": 0}'}, {"TYPE": "of no kind"}]
)
def test_what_cannot_be_sent_is_a_warning_and_no_red_run(
    run: RunContext, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"OPENLINEAGE__TRANSPORT__{name}", value)
    measure(run, STAGES)
    judge_run(run.settings, context_of(run, DONE))
    record = run.lake.read_json(run_key(run.identity.run_id, "run.json")) or {}
    assert record["state"] == "succeeded"
    assert len(stored(run)) == 2
    (warning,) = [entry for entry in caplog.records if "lineage" in entry.getMessage()]
    assert (warning.levelno, bool(warning.exc_info)) == (logging.WARNING, True)
