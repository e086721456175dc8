"""Figures out of Spark's event log, a process tree, and single runs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("numpy")
pytest.importorskip("psutil")
pytest.importorskip("py4j")

from py4j.java_gateway import JavaGateway

from bench import eventlog, gclog, measure, ours

pytestmark = pytest.mark.slow


def task(stage: int, launched: int, finished: int, ran: int) -> dict[str, object]:
    return {
        "Event": "SparkListenerTaskEnd",
        "Stage ID": stage,
        "Task Info": {"Launch Time": launched, "Finish Time": finished},
        "Task Metrics": {"Executor Run Time": ran},
    }


def test_an_event_log_gives_the_seconds_of_tasks_and_the_longest_stage(tmp_path: Path) -> None:
    events = [
        {"Event": "SparkListenerApplicationStart", "App Name": "featurize", "Timestamp": 1_000},
        task(0, 4_000, 4_500, 400),
        task(1, 5_000, 9_000, 3_900),
        task(1, 5_100, 9_500, 4_300),
    ]
    (tmp_path / "local-1").write_text("\n".join(map(json.dumps, events)))
    (application,) = eventlog.read(tmp_path)
    assert application.name == "featurize"
    assert application.longest_stage_s == 4.5
    assert application.executor_s == pytest.approx(8.6)


def test_a_log_in_progress_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "local-1.inprogress").write_text("")
    assert eventlog.read(tmp_path) == []


def test_memory_of_children_is_counted(tmp_path: Path) -> None:
    child = "x = bytearray(200_000_000); import time; time.sleep(1.5)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print('{{\"seconds\": 1}}')"
    measured = measure.run([sys.executable, "-c", parent], tmp_path / "log", os.environ, tmp_path)
    assert measured.answer == {"seconds": 1}
    assert measured.memory.total > 200


def test_processor_time_is_told_apart_by_what_a_process_is(tmp_path: Path) -> None:
    busy = "import time; t = time.process_time()\nwhile time.process_time() - t < 1.2: pass"
    script = tmp_path / "contestant.sh"
    script.write_text(f"({sys.executable} -c '{busy}' pyspark.daemon; true) & sleep 2; wait\n")
    measured = measure.run(["bash", str(script)], tmp_path / "log", os.environ, tmp_path)
    assert 0.5 < measured.cpu_s["worker"] < 2
    assert measured.cpu_s["driver"] == 0
    assert measured.cpu_s["other"] < 0.5


def test_roles_follow_from_the_command_line() -> None:
    assert measure.role_of("/usr/bin/java -cp x org.apache.spark.deploy.SparkSubmit", False) == "driver"
    assert measure.role_of("/usr/bin/java -cp x org.apache.spark.deploy.SparkSubmit", True) == "other"
    assert measure.role_of("python -m pyspark.daemon", True) == "worker"
    assert measure.role_of("python spark_jobs/featurize.py", True) == "driver"
    assert measure.role_of("python dev/run_local.py", False) == "other"


def test_a_log_of_collections_gives_the_heap_that_each_full_one_left(tmp_path: Path) -> None:
    (tmp_path / "1.log").write_text(
        "[0.004s][info][gc] Using Serial\n"
        "[4.162s][info][gc] GC(0) Pause Young (Allocation Failure) 100M->33M(365M) 97.950ms\n"
        "[4.9s][info][gc] GC(1) Pause Full (Metadata GC Threshold) 151M->64M(365M) 275.321ms\n"
        "[5.0s][info][gc] GC(2) Pause Full (System.gc()) 1G->900K(2G) 1.0ms\n"
    )
    (tmp_path / "2.log").write_text("[0.004s][info][gc] Using Serial\n")
    assert gclog.live_heaps(tmp_path / "1.log") == [67.1, 0.9]
    assert gclog.largest_live_heaps(tmp_path) == [67.1, None]


def test_a_tight_heap_shows_what_was_held_for_a_moment(tmp_path: Path) -> None:
    gateway = JavaGateway.launch_gateway(
        java_path=str(Path(ours.environment()["JAVA_HOME"], "bin", "java")),
        javaopts=["-Xmx1g", "-XX:+UseSerialGC", *gclog.options(tmp_path)],
        die_on_exit=True,
    )
    for megabytes in (10, 60, 20):
        held = [gateway.new_array(gateway.jvm.int, 250_000) for _ in range(megabytes)]
        for array in held:
            gateway.detach(array)
    gateway.shutdown()
    (largest,) = gclog.largest_live_heaps(tmp_path)
    assert largest is not None
    assert 56 <= largest <= 64, "at most 4 MB were not looked at yet"


def test_a_jvm_that_never_collected_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "2.log").write_text("[0.004s][info][gc] Using Serial\n")
    assert gclog.largest_live_heaps(tmp_path) == [None]


def test_a_failing_contestant_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(measure.RunFailed, match="out of fruit"):
        measure.run([sys.executable, "-c", "raise SystemExit('out of fruit')"], tmp_path / "log", os.environ, tmp_path)


def test_the_answer_is_the_last_line_of_json() -> None:
    assert measure.last_json('noise\n{"seconds": 1}\n{"seconds": 2}\nbye') == {"seconds": 2}
    assert measure.last_json("noise") == {}
