"""What every DAG file of this repository must be, read without a database and without AWS."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fruits_airflow.config.regions import EU_REGIONS
from fruits_airflow.runs.run_status import WORK_TASKS

from tests.plugins.laptop import REPOSITORY

DAGS = REPOSITORY / "dags"
FILES = sorted(DAGS.glob("*.py"))
REQUIRED = {"FRUITS_DEPLOYMENT_ID": "test", "FRUITS_RAW_BUCKET": "raw-bucket", "FRUITS_LAKE_BUCKET": "lake-bucket"}


@pytest.fixture(scope="module")
def bag() -> Any:
    from airflow.dag_processing.dagbag import DagBag

    with pytest.MonkeyPatch.context() as patch:
        for name, value in REQUIRED.items():
            patch.setenv(name, value)
        return DagBag(str(DAGS))


@pytest.fixture(scope="module")
def pipeline(bag: Any) -> Any:
    return bag.dags["fruits_pipeline"]


def parse(environment: dict[str, str], code: str = "") -> subprocess.CompletedProcess[str]:
    """Import the DAG file in a process of its own, then run `code`."""
    program = f"import sys, runpy; runpy.run_path({str(DAGS / 'fruits_pipeline.py')!r}); {code}"
    outside = {name: value for name, value in os.environ.items() if not name.startswith("FRUITS_")}
    outside |= {"PYTHONPATH": f"{REPOSITORY}/plugins"}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=outside | environment, capture_output=True, text=True, check=False, timeout=120)


def test_every_file_imports(bag: Any) -> None:
    assert bag.import_errors == {}
    assert {dag.fileloc for dag in bag.dags.values()} == {str(path) for path in FILES}


def test_every_dag_says_whose_it_is_and_what_for(bag: Any) -> None:
    for dag in bag.dags.values():
        assert len(dag.doc_md or "") > 200
        assert dag.tags
        assert dag.owner not in ("", "airflow")
        assert all(task.doc_md for task in dag.tasks)


def test_every_task_is_tried_again(bag: Any) -> None:
    assert [task.task_id for dag in bag.dags.values() for task in dag.tasks if task.retries < 1] == []


def test_what_guards_is_not_paused_when_it_is_deployed_and_what_works_is(bag: Any) -> None:
    unpaused = {name for name, dag in bag.dags.items() if dag.is_paused_upon_creation is False}
    assert unpaused == {"cluster_janitor", "publication_check"}


@pytest.mark.parametrize("dag_id", ["cluster_janitor", "publication_check"])
def test_what_guards_does_not_look_back_to_before_it_was_deployed(
    bag: Any, dag_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.serialization.encoders import coerce_to_core_timetable
    from airflow.timetables import trigger
    from airflow.timetables.base import TimeRestriction

    # a minute after both would have run, by Paris' clock too
    deployed = datetime(2026, 1, 10, 7, 1, tzinfo=UTC)
    monkeypatch.setattr(trigger, "utcnow", lambda: deployed)
    dag = bag.dags[dag_id]
    restriction = TimeRestriction(earliest=dag.start_date, latest=None, catchup=dag.catchup)
    first = coerce_to_core_timetable(dag.timetable).next_dagrun_info(
        last_automated_data_interval=None, restriction=restriction
    )
    assert first.run_after > deployed


def test_no_dag_has_a_cycle(bag: Any) -> None:
    for dag in bag.dags.values():
        assert len(dag.topological_sort()) == len(dag.tasks)


def test_no_run_is_bounded_by_a_timeout_that_skips_the_teardown(bag: Any) -> None:
    assert [dag.dag_id for dag in bag.dags.values() if dag.dagrun_timeout is not None] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_wires_and_no_more(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 150
    for word in ("setups=", "dagrun_timeout=", "arn:aws", "import boto3", "Variable.get", "datetime.now", "ds }}"):
        assert word not in text, f"{word} in {path.name}"


def test_the_graph_is_the_one_of_the_design(pipeline: Any) -> None:
    stages = [f"{s}.{t}" for s in ("load_images", "featurize", "reduce_pca", "publish") for t in ("add", "wait")]
    line = ["plan", "upload_code", "create_cluster", "cluster_ready", *stages, "terminate_cluster", "report", "verdict"]
    edges = {(task.task_id, down) for task in pipeline.tasks for down in task.downstream_task_ids}
    late = {("publish.wait", "report"), ("publish.wait", "verdict")}
    assert edges == set(itertools.pairwise(line)) | late


def test_clearing_only_failed_tasks_leaves_the_verdict_waiting_for_the_last_stage(pipeline: Any) -> None:
    # terminate_cluster and report are green after a failed run, so that they are not cleared with it.
    for task in ("report", "verdict"):
        assert "publish.wait" in pipeline.get_task(task).upstream_task_ids


def test_a_deployment_without_a_schedule_runs_by_hand_only() -> None:
    code = f"dag = runpy.run_path({str(DAGS / 'fruits_pipeline.py')!r})['dag']; print(type(dag.timetable).__name__)"
    done = parse(REQUIRED | {"FRUITS_SCHEDULE": ""}, code)
    assert done.stdout.split() == ["NullTimetable"], done.stderr


def test_the_run_is_nightly_in_paris_and_alone(pipeline: Any) -> None:
    timetable = pipeline.timetable
    assert type(timetable).__name__ == "CronTriggerTimetable"
    assert (timetable.expression, str(timetable.timezone)) == ("0 2 * * *", "Europe/Paris")
    assert pipeline.catchup is False
    assert pipeline.max_active_runs == 1


def test_the_cluster_is_ended_whatever_failed(pipeline: Any) -> None:
    end = pipeline.get_task("terminate_cluster")
    assert end.is_teardown
    assert not end.on_failure_fail_dagrun
    assert not [task.task_id for task in pipeline.tasks if task.is_setup]
    assert end.retries >= 5


def test_the_verdict_decides_the_run(pipeline: Any) -> None:
    verdict = pipeline.get_task("verdict")
    assert verdict.is_teardown
    assert verdict.on_failure_fail_dagrun
    assert not verdict.downstream_task_ids
    assert set(WORK_TASKS) < set(pipeline.task_ids)


def test_waiting_holds_no_worker_slot(pipeline: Any) -> None:
    waits = [task for task in pipeline.tasks if task.task_id == "cluster_ready" or task.task_id.endswith(".wait")]
    assert len(waits) == 5
    assert all(task.deferrable for task in waits)


def test_the_form_offers_regions_of_the_union_only(pipeline: Any) -> None:
    assert pipeline.params.get_param("region").schema["enum"] == list(EU_REGIONS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("region", "us-east-1"), ("limit", 0), ("limit", "all"), ("variance", 0), ("k", 1281), ("engine", "keras"),
        ("max_cost_eur", 0), ("max_cost_eur", -1), ("input_prefix", "/images/"), ("input_prefix", "images"),
        ("profile", "huge"), ("full_refresh", "yes"), ("force", 1), ("model_id", "latest"),
    ],
)  # fmt: skip
def test_the_form_refuses_nonsense(pipeline: Any, name: str, value: Any) -> None:
    with pytest.raises(Exception, match="Failed validating"):
        pipeline.params.get_param(name).resolve(value)


def test_every_parameter_is_explained(pipeline: Any) -> None:
    for name in pipeline.params:
        param = pipeline.params.get_param(name)
        assert param.description, name
        assert "type" in param.schema, name


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"FRUITS_REGION": "us-east-1"}, "ResidencyError: region: 'us-east-1' is refused"),
        ({"FRUITS_REGION": "eu-west-2"}, "United Kingdom"),
        ({"FRUITS_DEPLOYMENT_ID": ""}, "FRUITS_DEPLOYMENT_ID"),
    ],
)
def test_wrong_settings_are_refused_when_the_file_is_parsed(environment: dict[str, str], message: str) -> None:
    done = parse(REQUIRED | environment)
    assert done.returncode != 0
    assert message in done.stderr


def test_parsing_imports_nothing_heavy_and_reads_the_settings_only() -> None:
    heavy = ["pyarrow", "pyspark", "tensorflow", "pandas", "numpy", "moto", "PIL", "fruits_airflow.report"]
    code = f"import json; print(json.dumps([name for name in {heavy!r} if name in sys.modules]))"
    done = parse(REQUIRED, code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_parsing_opens_no_file_but_the_settings_and_calls_nobody() -> None:
    # The first run imports; what the second does is what each parse costs the dag-processor.
    path = str(DAGS / "fruits_pipeline.py")
    code = (
        "opened = []; sys.addaudithook(lambda event, args: opened.append([event, str(args[0])]) "
        "if event in ('open', 'socket.connect', 'subprocess.Popen') else None); "
        f"runpy.run_path({path!r}); import json; print(json.dumps(opened))"
    )
    done = parse(REQUIRED, code)
    assert done.returncode == 0, done.stderr
    seen = {name for _, name in json.loads(done.stdout.splitlines()[-1])}
    ours = {name for name in seen if "/zoneinfo" not in name and not name.endswith((".pyc", ".tab"))}
    assert ours <= {path, str(REPOSITORY / "include" / "settings.yaml")}
