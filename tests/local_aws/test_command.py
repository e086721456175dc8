"""From a step's arguments to the local command, without a server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_aws.clients import Clients
from local_aws.credentials import Credentials
from local_aws.emr.execution.command import Command, SparkInstallation, StepNotRunnable, build, exports
from local_aws.emr.execution.process import SupervisedStep
from local_aws.emr.execution.runtime import Node, Runtime
from local_aws.settings import Settings

INSTALLATION = SparkInstallation(
    spark_submit="/spark/bin/spark-submit",
    python="/spark/bin/python",
    master="local[2]",
    ui_port=4040,
    endpoint="http://127.0.0.1:5600",
    region="eu-west-1",
    iceberg_jars=("/jars/runtime.jar", "/jars/aws.jar"),
    class_archive="/jars/spark.jsa",
)

SHARED = '-Xlog:cds*=error -XX:SharedArchiveFile="/jars/spark.jsa"'


def fetch(uri: str) -> Path:
    return Path("/fetched") / uri.rsplit("/", 1)[-1]


def spark(*args: str, installation: SparkInstallation = INSTALLATION, **properties: dict[str, str]) -> Command:
    classifications = [
        {"Classification": name.replace("_", "-"), "Properties": value} for name, value in properties.items()
    ]
    return build("command-runner.jar", ["spark-submit", *args], classifications, installation, fetch)


def conf(command: Command) -> dict[str, str]:
    pairs = zip(command.argv, command.argv[1:], strict=False)
    return dict(value.split("=", 1) for name, value in pairs if name == "--conf")


def rest(command: Command) -> list[str]:
    """Return what is passed on: everything after the configuration."""
    at = 3
    while command.argv[at : at + 1] == ["--conf"]:
        at += 2
    return command.argv[at:]


def test_what_only_means_something_on_a_cluster_is_translated() -> None:
    command = spark("--master", "yarn", "--deploy-mode", "cluster", "--name", "x", "s3://b/job.py")
    assert command.argv[:3] == ["/spark/bin/spark-submit", "--master", "local[2]"]
    assert rest(command) == ["--name", "x", "/fetched/job.py"]
    assert command.deploy_mode == "cluster"


def test_the_size_of_a_cluster_is_left_out_where_spark_runs_in_one_process() -> None:
    size = {"spark.default.parallelism": "32"}
    assert "spark.default.parallelism" not in conf(spark("job.py", spark_defaults=size))
    cluster = replace(INSTALLATION, master="local-cluster[4,1,1024]")
    assert conf(spark("job.py", installation=cluster, spark_defaults=size)).items() >= size.items()


def test_the_rest_is_passed_through_in_its_order() -> None:
    args = [
        "--num-executors",
        "3",
        "--verbose",
        "--driver-memory",
        "1g",
        "--class",
        "a.B",
        "/x.jar",
        "--conf",
        "a b",
        "s3://b/k",
    ]
    assert rest(spark(*args)) == args


def test_files_come_from_the_bucket_and_data_stays_there() -> None:
    command = spark(
        *("--py-files", "s3://b/a.zip,/local/b.zip", "--archives", "s3a://b/env.tar.gz#env"),
        *("s3://b/job.py", "--input", "s3://b/images"),
    )
    assert rest(command) == [
        *("--py-files", "/fetched/a.zip,/local/b.zip", "--archives", "/fetched/env.tar.gz#env"),
        *("/fetched/job.py", "--input", "s3://b/images"),
    ]


def test_an_option_may_carry_its_value_behind_an_equals_sign() -> None:
    command = spark("--deploy-mode=client", "--py-files=s3://b/a.zip", "--conf=spark.a=b=c", "job.py")
    assert rest(command) == ["--py-files", "/fetched/a.zip", "job.py"]
    assert conf(command)["spark.a"] == "b=c"


def test_the_clusters_defaults_become_configuration_and_the_step_overrides_them() -> None:
    command = spark("--conf", "spark.a=step", "job.py", spark_defaults={"spark.a": "cluster", "spark.b": "cluster"})
    assert conf(command).items() >= {"spark.a": "step", "spark.b": "cluster"}.items()


def test_a_glue_catalog_gets_this_endpoint() -> None:
    catalog = "spark.sql.catalog.lake"
    seen = conf(spark("job.py", spark_defaults={f"{catalog}.type": "glue", "spark.sql.catalog.other.type": "hadoop"}))
    assert seen[f"{catalog}.glue.endpoint"] == seen[f"{catalog}.s3.endpoint"] == INSTALLATION.endpoint
    assert seen[f"{catalog}.s3.path-style-access"] == "true"
    assert seen[f"{catalog}.client.region"] == "eu-west-1"
    assert not [name for name in seen if name.startswith("spark.sql.catalog.other.") and not name.endswith(".type")]


def test_a_catalog_in_another_region_stays_there() -> None:
    catalog = "spark.sql.catalog.lake"
    defaults = {f"{catalog}.type": "glue", f"{catalog}.client.region": "eu-west-3"}
    assert conf(spark("job.py", spark_defaults=defaults))[f"{catalog}.client.region"] == "eu-west-3"


def test_icebergs_jars_stand_for_those_of_the_release() -> None:
    command = spark("job.py", iceberg_defaults={"iceberg.enabled": "true"})
    assert rest(command)[:2] == ["--driver-class-path", "/jars/runtime.jar:/jars/aws.jar"]
    assert "--driver-class-path" not in spark("job.py", iceberg_defaults={"iceberg.enabled": "false"}).argv


def test_icebergs_jars_join_the_class_path_that_was_asked_for() -> None:
    command = spark(
        *("--driver-class-path", "/mine.jar", "job.py"),
        spark_defaults={"spark.driver.extraClassPath": "/node.jar"},
        iceberg_defaults={"iceberg.enabled": "true"},
    )
    assert rest(command)[1] == "/mine.jar:/jars/runtime.jar:/jars/aws.jar:/node.jar"


@pytest.mark.parametrize(
    ("defaults", "java"),
    [
        ({}, SHARED),
        ({"spark.driver.defaultJavaOptions": "-Da=b"}, f"-Da=b {SHARED}"),
        ({"spark.driver.extraClassPath": "/node.jar"}, None),
    ],
)
def test_a_driver_of_the_archives_class_path_starts_from_it(defaults: dict[str, str], java: str | None) -> None:
    iceberg = {"iceberg.enabled": "true"}
    seen = conf(spark("job.py", spark_defaults=defaults, iceberg_defaults=iceberg))
    assert seen.get("spark.driver.defaultJavaOptions") == java
    assert "spark.driver.defaultJavaOptions" not in conf(spark("job.py"))
    without = spark("job.py", installation=replace(INSTALLATION, class_archive=None), iceberg_defaults=iceberg)
    assert "spark.driver.defaultJavaOptions" not in conf(without)


def test_icebergs_jars_that_are_not_cached_fail_the_step() -> None:
    bare = replace(INSTALLATION, iceberg_jars=(), class_archive=None)
    iceberg = [{"Classification": "iceberg-defaults", "Properties": {"iceberg.enabled": "true"}}]
    with pytest.raises(StepNotRunnable, match="make setup"):
        build("command-runner.jar", ["spark-submit", "job.py"], iceberg, bare, fetch)


def test_the_nodes_interpreter_is_this_machines() -> None:
    defaults = {"spark.pyspark.python": "/usr/bin/python3.11", "spark.pyspark.driver.python": "/usr/bin/python3.11"}
    seen = conf(spark("job.py", spark_defaults=defaults))
    assert seen["spark.pyspark.python"] == seen["spark.pyspark.driver.python"] == INSTALLATION.python


def test_places_that_only_a_cluster_has_are_left_out_and_named() -> None:
    defaults = {
        "spark.eventLog.dir": "hdfs:///logs",
        "spark.eventLog.enabled": "true",
        "spark.master": "yarn",
        "spark.a": "b",
    }
    command = spark("job.py", spark_defaults=defaults)
    assert conf(command).keys() & defaults.keys() == {"spark.a"}
    assert any("spark.eventLog.dir" in note for note in command.notes)


def test_the_driver_listens_on_loopback_and_its_ui_on_the_port_set() -> None:
    seen = conf(spark("job.py"))
    assert (seen["spark.driver.bindAddress"], seen["spark.driver.host"], seen["spark.ui.port"]) == (
        "127.0.0.1",
        "127.0.0.1",
        "4040",
    )


def test_another_user_of_the_machine_can_neither_talk_to_the_driver_nor_kill_its_jobs() -> None:
    """Spark makes the secret itself where it runs in one process."""
    seen = conf(spark("job.py"))
    assert (seen["spark.authenticate"], seen["spark.ui.killEnabled"]) == ("true", "false")


def test_another_command_runs_as_it_is() -> None:
    args = ["bash", "-c", "echo s3://b/k", "--master", "yarn"]
    assert build("command-runner.jar", args, [], INSTALLATION, fetch).argv == args


@pytest.mark.parametrize(("jar", "args"), [("s3://b/mine.jar", ["x"]), ("command-runner.jar", [])])
def test_what_cannot_run_here_says_so(jar: str, args: list[str]) -> None:
    with pytest.raises(StepNotRunnable, match=r"command-runner\.jar"):
        build(jar, args, [], INSTALLATION, fetch)


def test_spark_env_exports_reach_the_step_but_for_interpreters() -> None:
    exported = {"FRUITS_X": "1", "PYSPARK_PYTHON": "/usr/bin/python3", "JAVA_HOME": "/usr/lib/jvm"}
    spark_env: dict[str, Any] = {
        "Classification": "spark-env",
        "Configurations": [{"Classification": "export", "Properties": exported}],
    }
    assert exports([spark_env]) == {"FRUITS_X": "1"}


def test_jars_and_archive_are_those_of_the_folder(tmp_path: Path) -> None:
    clients = Clients(INSTALLATION.endpoint, Credentials.random())
    node = Node(Runtime(Settings(jars_dir=tmp_path), clients, SupervisedStep), "j-1", "eu-west-1", {"Name": "test"})
    assert (node.spark().iceberg_jars, node.spark().class_archive) == ((), None)
    paths = [tmp_path / name for name in ("iceberg-spark-runtime-4.jar", "iceberg-aws-bundle-1.jar", "spark.jsa")]
    for path in paths:
        path.touch()
    installation = node.spark()
    assert [*installation.iceberg_jars, installation.class_archive] == list(map(str, paths))
