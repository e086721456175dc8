"""A body that breaks a single rule is reported for exactly that rule."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from fruits_airflow.config import releases
from fruits_airflow.config.errors import ClusterRefused, ResidencyError
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.cluster_body import cluster_body, load_profile, require_sound_profile
from fruits_airflow.emr.cluster_lint import RULES, lint, require_sound
from fruits_airflow.emr.clusters import RunKey
from fruits_airflow.emr.lint_facts import LintContext

from tests.plugins.laptop import SECURITY

NOW = datetime(2026, 11, 23, 2, tzinfo=UTC)
DIGEST = "e" * 64
PROFILES = ("demo", "nightly", "notebook")
CONTEXT = LintContext(region="eu-west-1", lake_bucket="lake", now=NOW, security=SECURITY)
SETTINGS = Settings(
    deployment_id="test", raw_bucket="raw", lake_bucket="lake", service_role="s", instance_profile="i",
    security_configuration="c", node_environment=DIGEST, subnet_id="subnet-01234567",
)  # fmt: skip

Change = Callable[[dict[str, Any]], object]


def body_of(profile: str = "nightly", settings: Settings = SETTINGS) -> dict[str, Any]:
    identity = RunKey("test", "fruits_pipeline", "scheduled__2026-11-22T02:00:00+00:00")
    body = cluster_body(
        settings,
        identity,
        load_profile(profile),
        code_digest="c0de",
        lake_region="eu-west-1",
        ends_at=NOW + timedelta(hours=2),
    )
    return copy.deepcopy(body)  # its fleets share parts through YAML's anchors


def configured(body: dict[str, Any], classification: str) -> dict[str, str]:
    return next(c["Properties"] for c in body["Configurations"] if c["Classification"] == classification)


def spark(body: dict[str, Any]) -> dict[str, str]:
    return configured(body, "spark-defaults")


def yarn(body: dict[str, Any]) -> dict[str, str]:
    return configured(body, "yarn-site")


def tag(body: dict[str, Any], name: str) -> dict[str, str]:
    return next(tag for tag in body["Tags"] if tag["Key"] == name)


def fleet(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(fleet for fleet in body["Instances"]["InstanceFleets"] if fleet["InstanceFleetType"] == kind)


def bootstrap(body: dict[str, Any]) -> list[str]:
    return body["BootstrapActions"][0]["ScriptBootstrapAction"]["Args"]  # type: ignore[no-any-return]


def only_type(body: dict[str, Any], kind: str, name: str) -> None:
    fleet(body, kind)["InstanceTypeConfigs"][0]["InstanceType"] = name


def limits(body: dict[str, Any]) -> dict[str, Any]:
    return body["ManagedScalingPolicy"]["ComputeLimits"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_sound(profile: str) -> None:
    assert lint(body_of(profile), CONTEXT) == []
    require_sound_profile(SETTINGS, load_profile(profile), "eu-west-1", "eu-west-1", NOW)


BREAKING: list[tuple[str, Change]] = [
    ("known_release", lambda b: b["Applications"].append({"Name": "Flink"})),
    (
        "deadline",
        lambda b: (
            b["BootstrapActions"].clear()
            or b["BootstrapActions"].append(
                {
                    "Name": "x",
                    "ScriptBootstrapAction": {
                        "Path": "s3://lake/x",
                        "Args": [f"--environment=s3://lake/env/{DIGEST}/environment.tar.gz"],
                    },
                }
            )
        ),
    ),
    (
        "deadline",
        lambda b: (
            tag(b, "deadline").update(Value="2026-11-25T02:00:00Z"),
            bootstrap(b).append("--deadline=2026-11-25T02:00:00Z"),
        ),
    ),
    (
        "deadline",
        lambda b: (
            tag(b, "deadline").update(Value="2026-11-23T01:00:00Z"),
            bootstrap(b).append("--deadline=2026-11-23T01:00:00Z"),
        ),
    ),
    ("deadline", lambda b: tag(b, "deadline").update(Value="soon")),
    ("idle_timeout", lambda b: b.pop("AutoTerminationPolicy")),
    ("idle_timeout", lambda b: b["AutoTerminationPolicy"].update(IdleTimeout=59)),
    ("idle_timeout", lambda b: b["Instances"].update(TerminationProtected=True)),
    ("roles", lambda b: b.pop("ServiceRole")),
    ("roles", lambda b: b.update(JobFlowRole="EMR_EC2_DefaultRole")),
    ("roles", lambda b: b.update(JobFlowRole="s")),
    ("network", lambda b: b["Instances"].pop("Ec2SubnetIds")),
    ("tags", lambda b: b["Tags"].remove(tag(b, "run"))),
    ("tags", lambda b: tag(b, "for-use-with-amazon-emr-managed-policies").update(Value="yes")),
    ("encryption", lambda b: b.pop("SecurityConfiguration")),
    ("log_uri", lambda b: b.update(LogUri="s3://elsewhere/logs/")),
    ("log_uri", lambda b: b.pop("LogUri")),
    ("libraries", lambda b: bootstrap(b).remove(f"--environment=s3://lake/env/{DIGEST}/environment.tar.gz")),
    (
        "libraries",
        lambda b: bootstrap(b).__setitem__(1, f"--environment=s3://elsewhere/env/{DIGEST}/environment.tar.gz"),
    ),
    ("spark_settings", lambda b: spark(b).update({"spark.yarn.maxAppAttempts": "1"})),
    ("executors_fit", lambda b: spark(b).update({"spark.executor.memory": "6g"})),  # none for the master
    ("executors_fit", lambda b: spark(b).update({"spark.executor.memoryOverhead": "2g"})),  # two a node
    ("executors_fit", lambda b: spark(b).pop("spark.yarn.heterogeneousExecutors.enabled")),
    ("executors_fit", lambda b: yarn(b).pop("yarn.nodemanager.resource.memory-mb")),  # two on an m type
    ("executors_fit", lambda b: yarn(b).update({"yarn.nodemanager.resource.memory-mb": "14336"})),
    ("application_masters", lambda b: yarn(b).update({"yarn.node-labels.enabled": "false"})),
    ("application_masters", lambda b: yarn(b).pop("yarn.node-labels.am.default-node-label-expression")),
    ("application_masters", lambda b: configured(b, "capacity-scheduler").clear()),
    ("spark_settings", lambda b: spark(b).pop("spark.pyspark.python")),
    ("spark_settings", lambda b: spark(b).update({"spark.sql.catalog.lake.warehouse": "s3://x/tables"})),
    ("executors_fit", lambda b: spark(b).update({"spark.executor.cores": "4"})),
    ("executors_fit", lambda b: spark(b).update({"spark.executor.memory": "9g"})),
    ("executors_fit", lambda b: spark(b).update({"spark.default.parallelism": "2"})),
    ("executors_fit", lambda b: spark(b).pop("spark.default.parallelism")),
    ("instance_types", lambda b: only_type(b, "MASTER", "x9.xlarge")),
    ("instance_types", lambda b: only_type(b, "MASTER", "m6i.xlarge")),
    ("fleets", lambda b: b["Instances"]["InstanceFleets"].append(fleet(b, "CORE") | {"InstanceFleetType": "MASTER"})),
    ("fleets", lambda b: fleet(b, "MASTER")["InstanceTypeConfigs"].pop()),
    ("fleets", lambda b: fleet(b, "CORE")["InstanceTypeConfigs"].append(fleet(b, "CORE")["InstanceTypeConfigs"][0])),
    (
        "primary_on_demand",
        lambda b: fleet(b, "MASTER").update(
            TargetOnDemandCapacity=0,
            TargetSpotCapacity=1,
            LaunchSpecifications=fleet(b, "TASK")["LaunchSpecifications"],
        ),
    ),
    (
        "spot_falls_back",
        lambda b: fleet(b, "TASK")["LaunchSpecifications"]["SpotSpecification"].update(
            TimeoutAction="TERMINATE_CLUSTER"
        ),
    ),
    (
        "spot_falls_back",
        lambda b: fleet(b, "TASK")["LaunchSpecifications"]["SpotSpecification"].update(
            AllocationStrategy="lowest-price"
        ),
    ),
    (
        "spot_falls_back",
        lambda b: fleet(b, "TASK")["LaunchSpecifications"]["SpotSpecification"].update(TimeoutDurationMinutes=4),
    ),
    ("managed_scaling", lambda b: b.pop("ManagedScalingPolicy")),
    ("managed_scaling", lambda b: limits(b).update(MaximumCapacityUnits=5)),
    ("managed_scaling", lambda b: limits(b).update(MinimumCapacityUnits=0)),
    ("managed_scaling", lambda b: limits(b).update(UnitType="Instances")),
    ("managed_scaling", lambda b: limits(b).update(MaximumOnDemandCapacityUnits=9)),
    ("managed_scaling", lambda b: limits(b).update(MaximumOnDemandCapacityUnits=4)),
    ("managed_scaling", lambda b: limits(b).pop("MaximumOnDemandCapacityUnits")),
    ("step_failures", lambda b: b.update(StepConcurrencyLevel=2)),
    (
        "step_failures",
        lambda b: b.update(StepConcurrencyLevel=2, Steps=[{"Name": "x", "ActionOnFailure": "CANCEL_AND_WAIT"}]),
    ),
    ("limits", lambda b: b.update(Name="x" * 257)),
    ("limits", lambda b: b.update(Steps=[{"Name": "x"}] * 257)),
    ("limits", lambda b: b["BootstrapActions"].extend([{"ScriptBootstrapAction": {}}] * 16)),
    ("limits", lambda b: b["Tags"].extend({"Key": f"k{i}", "Value": ""} for i in range(45))),
    ("limits", lambda b: b["Tags"].append({"Key": "aws:x", "Value": ""})),
    ("limits", lambda b: spark(b).update({"spark.sql.x": 1})),  # type: ignore[dict-item]
]


@pytest.mark.parametrize(("rule", "change"), BREAKING)
def test_a_body_that_breaks_one_rule_is_refused_for_that_rule(rule: str, change: Change) -> None:
    body = body_of()
    change(body)
    problems = lint(body, CONTEXT)
    assert {problem.split(":")[0] for problem in problems} == {rule}, problems
    with pytest.raises(ClusterRefused, match=rule):
        require_sound(body, CONTEXT)


def test_core_nodes_on_spot_are_refused() -> None:
    body = body_of()
    spot = {"LaunchSpecifications": fleet(body, "TASK")["LaunchSpecifications"]}
    fleet(body, "CORE").update(TargetOnDemandCapacity=0, TargetSpotCapacity=1, **spot)
    limits(body).update(MaximumOnDemandCapacityUnits=0)
    assert [problem.split(":")[0] for problem in lint(body, CONTEXT)] == ["application_masters"]


def test_a_cluster_without_spot_nodes_needs_no_label() -> None:
    body = body_of("demo")
    yarn(body).pop("yarn.node-labels.enabled")
    assert lint(body, CONTEXT) == []


def test_a_region_outside_the_union_is_refused() -> None:
    context = replace(CONTEXT, region="eu-west-2")
    assert [s.split(":")[0] for s in lint(body_of(), context)] == ["eu_region"]
    with pytest.raises(ResidencyError, match="London"):
        require_sound(body_of(), context)


def test_an_unknown_release_is_refused() -> None:
    problems = lint(body_of() | {"ReleaseLabel": "emr-5.0.0"}, CONTEXT)
    assert [s.split(":")[0] for s in problems] == ["known_release"]


def test_a_release_without_support_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    label = SETTINGS.release_label
    over = replace(releases.RELEASES[label], end_of_support=date(2026, 11, 22))
    monkeypatch.setitem(releases.RELEASES, label, over)
    assert [s.split(":")[0] for s in lint(body_of(), CONTEXT)] == ["known_release"]


@pytest.mark.parametrize(
    ("rule", "security"),
    [
        (
            "encryption",
            {"EncryptionConfiguration": SECURITY["EncryptionConfiguration"] | {"EnableInTransitEncryption": False}},
        ),
        (
            "encryption",
            {"EncryptionConfiguration": SECURITY["EncryptionConfiguration"] | {"EnableAtRestEncryption": False}},
        ),
        (
            "encryption",
            {"EncryptionConfiguration": SECURITY["EncryptionConfiguration"] | {"AtRestEncryptionConfiguration": {}}},
        ),
        ("instance_metadata", {"InstanceMetadataServiceConfiguration": {"MinimumInstanceMetadataServiceVersion": 1}}),
        ("instance_metadata", {"InstanceMetadataServiceConfiguration": {}}),
    ],
)
def test_a_security_configuration_that_leaves_something_open_is_refused(rule: str, security: dict[str, Any]) -> None:
    context = replace(CONTEXT, security=SECURITY | security)
    assert {s.split(":")[0] for s in lint(body_of(), context)} == {rule}


def test_nodes_that_have_their_libraries_need_none() -> None:
    settings = replace(SETTINGS, node_environment="preinstalled")
    body = body_of(settings=settings)
    assert lint(body, replace(CONTEXT, preinstalled=True)) == []
    assert bootstrap(body) == ["--deadline=2026-11-23T04:00:00Z"]
    assert spark(body)["spark.pyspark.python"] == "/usr/bin/python3.11"
    assert [s.split(":")[0] for s in lint(body, CONTEXT)] == ["libraries"]


def test_a_deployment_without_libraries_is_refused_before_a_cluster_is_created() -> None:
    settings = replace(SETTINGS, node_environment=None)
    with pytest.raises(ClusterRefused, match="make environment"):
        require_sound_profile(settings, load_profile("demo"), "eu-west-1", "eu-west-1", NOW)


def test_every_rule_has_a_body_that_breaks_it() -> None:
    elsewhere = {"eu_region", "instance_metadata"}
    assert {rule.__name__ for rule in RULES} == {name for name, _ in BREAKING} | elsewhere


def test_a_notebook_has_a_deadline_of_its_own() -> None:
    assert load_profile("notebook").longest_minutes(480) == 120
    assert load_profile("nightly").longest_minutes(480) == 480
