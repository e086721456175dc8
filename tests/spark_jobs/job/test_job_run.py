from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys

import pytest
from fruits.base import errors
from fruits.base.errors import FruitsError, InputError, ModelMismatchError, QualityGateError
from fruits.job import job_run, stage_metrics

from tests.spark_jobs.conftest import JOBS, ROOT


class NoSpark:
    """What `run` needs of a session when the work does not."""

    version = "4"

    def stop(self) -> None:
        """Nothing to stop."""


@pytest.fixture
def ended(monkeypatch, capsys):
    """Run a job whose work raises, and give its exit status and its last line."""
    monkeypatch.setattr(job_run, "open_session", lambda name: NoSpark())

    def end(error: Exception | None) -> tuple[int, str]:
        def work(run: job_run.Run) -> None:
            if error:
                raise error

        status = job_run.run("stage", argparse.Namespace(), work)
        return status, (capsys.readouterr().err.strip().splitlines() or [""])[-1]

    return end


class Executor:
    """What Spark's status store says of an executor."""

    def __init__(self, name, address):
        self.id, self.hostPort = (lambda: name), (lambda: address)


class Configured:
    """A session of which configuration and executors are read; these as the Scala sequence of its status store."""

    master = "yarn"
    executors = (
        Executor("driver", "127.0.0.1:1"),
        *(Executor("1", "127.9.9.5:1"), Executor("2", "127.9.9.5:2"), Executor("3", "127.9.9.6:1")),
    )

    @property
    def _jsc(self):
        return self

    def sc(self):
        return self

    def statusStore(self):
        return self

    def executorList(self, active_only):
        assert not active_only, "an executor that was lost has worked too"
        return self

    def size(self):
        return len(self.executors)

    def apply(self, at):
        return self.executors[at]

    @property
    def sparkContext(self):
        return self

    def getConf(self):
        return self

    def getAll(self):
        return [("spark.sql.catalog.lake.type", "glue"), ("spark.sql.catalog.lake.client.region", "eu-west-3")]


@pytest.mark.spark
def test_a_job_of_its_own_lets_go_of_each_batch_that_its_jvm_has_written():
    expression = "open_session('x').sparkContext.getConf().get('spark.serializer.objectStreamReset')"
    code = f"from fruits.job.job_run import open_session; print({expression})"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "spark_jobs")}
    done = subprocess.run(  # the session of these tests was begun before
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["1"]


def test_a_record_says_which_endpoints_the_job_spoke_to(tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    arguments = argparse.Namespace(database="lake.fruits", run_folder=str(tmp_path))
    job_run.Run("featurize", arguments, Configured()).finish({"images": 1})
    written = stage_metrics.read(str(tmp_path), "featurize")
    assert written["images"] == 1
    assert {(endpoint["service"], endpoint["region"]) for endpoint in written["endpoints"]} >= {
        ("glue", "eu-west-3"),
        ("s3", "eu-west-3"),
    }


def test_a_record_says_on_how_many_executors_and_hosts_the_job_ran(tmp_path):
    arguments = argparse.Namespace(database="lake.fruits", run_folder=str(tmp_path))
    job_run.Run("featurize", arguments, Configured()).finish({})
    assert stage_metrics.read(str(tmp_path), "featurize")["cluster"] == {"engine": "yarn", "executors": 3, "hosts": 2}


@pytest.mark.spark
def test_a_job_without_a_cluster_has_no_executor_but_its_driver(spark):
    run = job_run.Run("featurize", argparse.Namespace(), spark)
    assert run.executors() == {"engine": "local", "executors": 0, "hosts": 0}


def test_a_job_that_does_its_work_ends_with_zero(ended):
    assert ended(None)[0] == 0


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("x is wrong: mend it"), 2),
        (ModelMismatchError("x is wrong: mend it"), 2),
        (QualityGateError("x is wrong: mend it"), 3),
        (errors.TooFewImagesError("x is wrong: mend it"), 1),
    ],
)
def test_a_named_error_is_the_last_line_and_sets_the_status(ended, error, status):
    assert ended(error) == (status, f"ERROR {type(error).__name__}: x is wrong: mend it")


def test_an_unexpected_error_keeps_its_own_name(ended):
    assert ended(ZeroDivisionError("by zero\nsecond line")) == (1, "ERROR ZeroDivisionError: by zero")


def test_an_error_raised_on_an_executor_is_named_as_if_raised_here():
    text = (
        "An exception was thrown from the Python worker. Please see the stack trace below.\n"
        'Traceback (most recent call last):\n  File "x.py", line 1, in load\n'
        "fruits.base.errors.ObjectAccessError: could not fetch 'a': denied\n\nDriver stacktrace:"
    )
    named = job_run.to_fruits_error(RuntimeError(text))
    assert isinstance(named, errors.ObjectAccessError)
    assert str(named) == "could not fetch 'a': denied"


def test_every_named_error_exits_with_something_else_than_success():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FruitsError)]
    assert len(kinds) > 5
    assert all(kind.exit_status in (1, 2, 3) for kind in kinds)


@pytest.mark.parametrize("stage", JOBS)
def test_each_job_explains_itself_without_starting_a_jvm(stage):
    script = ROOT / "spark_jobs" / f"{stage}.py"
    done = subprocess.run(
        [sys.executable, str(script), "--help"], capture_output=True, text=True, check=False, env={"PATH": ""}
    )
    assert done.returncode == 0, done.stderr
    assert JOBS[stage].__doc__.strip().splitlines()[0] in done.stdout
    documented = re.findall(r"^  (--[a-z-]+)", done.stdout, re.MULTILINE)
    assert {"--database", "--run-id", "--run-folder"} <= set(documented)


@pytest.mark.parametrize("stage", JOBS)
def test_a_missing_argument_ends_with_two(stage):
    with pytest.raises(SystemExit) as ended:
        JOBS[stage].parser().parse_args([])
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("rows", "cores", "partitions"),
    [(0, 2, 1), (1, 2, 1), (256, 2, 1), (257, 2, 2), (2_400, 2, 2), (2_400, 16, 10), (20_000, 2, 2), (20_001, 2, 4)],
)
def test_work_is_cut_into_few_long_partitions(rows, cores, partitions):
    assert job_run.partition_count(rows, cores, rows_each=10_000) == partitions


def test_few_large_rows_are_shared_out():
    assert job_run.partition_count(256, 8, rows_each=335) == 8
    assert job_run.partition_count(20, 8, rows_each=335) == 1
    assert job_run.partition_count(3, 2, rows_each=1) == 3


def test_metrics_are_written_whole_and_replaced_by_a_later_attempt(tmp_path):
    for seconds in (1.0, 2.0):
        stage_metrics.write(str(tmp_path), "publish", {"seconds": seconds})
    assert stage_metrics.read(str(tmp_path), "publish") == {"seconds": 2.0}
    with pytest.raises(ValueError, match="JSON"):
        stage_metrics.write(str(tmp_path), "publish", {"seconds": float("nan")})
