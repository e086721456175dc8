"""The life of a cluster, as boto3 sees it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_aws.server import PRIMARY, Server, step, until


def states_of(aws: Server, cluster_id: str, last: str) -> list[str]:
    """Return the states in which a cluster is seen until the last."""
    seen: list[str] = []
    while not seen or seen[-1] != last:
        state = aws.state(cluster_id)
        if not seen or seen[-1] != state:
            seen.append(state)
        time.sleep(0.01)
    return seen


def test_a_cluster_goes_through_all_states(aws: Server) -> None:
    cluster_id = aws.run_job_flow()
    assert states_of(aws, cluster_id, "WAITING") == ["STARTING", "BOOTSTRAPPING", "WAITING"]
    step_id = aws.add_step(cluster_id, "sleep", "0.3")
    aws.reach(cluster_id, "RUNNING")
    aws.step_reaches(cluster_id, step_id, "COMPLETED")
    aws.reach(cluster_id, "WAITING")
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])
    assert states_of(aws, cluster_id, "TERMINATED")[-2:] == ["TERMINATING", "TERMINATED"]


def test_the_timeline_and_the_reason_say_when_and_why(aws: Server) -> None:
    cluster_id = aws.run_job_flow()
    ready = aws.reach(cluster_id, "WAITING")
    assert ready["StateChangeReason"] == {"Message": "Cluster ready to run steps."}
    assert "EndDateTime" not in ready["Timeline"]
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])
    gone = aws.reach(cluster_id, "TERMINATED")
    assert gone["StateChangeReason"] == {"Code": "USER_REQUEST", "Message": "Terminated by user request"}
    times = [gone["Timeline"][name] for name in ("CreationDateTime", "ReadyDateTime", "EndDateTime")]
    assert times == sorted(times)
    assert datetime.now(UTC) - times[0] < timedelta(minutes=1)


def test_without_keep_alive_it_ends_when_its_steps_have(aws: Server) -> None:
    cluster_id = aws.run_job_flow(Steps=[step("true")], Instances={"KeepJobFlowAliveWhenNoSteps": False})
    assert aws.cluster(cluster_id)["AutoTerminate"] is True
    assert aws.reach(cluster_id, "TERMINATED")["StateChangeReason"]["Code"] == "ALL_STEPS_COMPLETED"


def test_a_cluster_can_be_terminated_while_it_starts(aws: Server) -> None:
    cluster_id = aws.run_job_flow(Steps=[step("true")])
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])
    status = aws.reach(cluster_id, "TERMINATED")
    assert "ReadyDateTime" not in status["Timeline"]
    [only] = aws.client("emr").list_steps(ClusterId=cluster_id)["Steps"]
    assert only["Status"]["State"] == "CANCELLED"


def test_an_idle_cluster_ends_by_its_auto_termination_policy(aws: Server) -> None:
    cluster_id = aws.run_job_flow(AutoTerminationPolicy={"IdleTimeout": 60})
    assert aws.reach(cluster_id, "TERMINATED")["StateChangeReason"]["Code"] == "ALL_STEPS_COMPLETED"


def test_a_running_step_is_not_idle(aws: Server) -> None:
    cluster_id = aws.run_job_flow(AutoTerminationPolicy={"IdleTimeout": 60}, Steps=[step("sleep", "1.5")])
    aws.reach(cluster_id, "RUNNING")
    time.sleep(1.0)  # 60 s of idleness are 0.3 s here
    assert aws.state(cluster_id) == "RUNNING"
    aws.reach(cluster_id, "TERMINATED")


def test_a_protected_cluster_is_not_terminated_until_it_is_unprotected(aws: Server) -> None:
    emr = aws.client("emr")
    cluster_id = aws.run_job_flow(Instances={"TerminationProtected": True})
    with pytest.raises(ClientError, match="termination protected") as caught:
        emr.terminate_job_flows(JobFlowIds=[cluster_id])
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert aws.reach(cluster_id, "WAITING")
    emr.set_termination_protection(JobFlowIds=[cluster_id], TerminationProtected=False)
    emr.terminate_job_flows(JobFlowIds=[cluster_id])
    aws.reach(cluster_id, "TERMINATED")


def test_terminating_twice_is_no_error(aws: Server) -> None:
    cluster_id = aws.run_job_flow()
    for _ in range(2):
        aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])
    aws.reach(cluster_id, "TERMINATED")
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])
    assert aws.state(cluster_id) == "TERMINATED"


def bootstrap(path: str, *args: str) -> list[dict[str, Any]]:
    return [{"Name": "first", "ScriptBootstrapAction": {"Path": path, "Args": list(args)}}]


def test_a_bootstrap_script_that_is_not_in_s3_fails_the_cluster(aws: Server) -> None:
    cluster_id = aws.run_job_flow(BootstrapActions=bootstrap("s3://lake/none.sh"), Steps=[step("true")])
    reason = aws.reach(cluster_id, "TERMINATED_WITH_ERRORS")["StateChangeReason"]
    assert reason["Code"] == "BOOTSTRAP_FAILURE"
    assert "failed attempting to download bootstrap action 1 file from S3" in reason["Message"]
    [instance] = aws.client("emr").list_instances(ClusterId=cluster_id)["Instances"]
    assert instance["Ec2InstanceId"] in reason["Message"]


@pytest.fixture(scope="module")
def script(aws: Server) -> str:
    aws.client("s3").put_object(Bucket="lake", Key="code/bootstrap.sh", Body=b"#!/bin/bash\n")
    return "s3://lake/code/bootstrap.sh"


def test_a_cluster_with_its_bootstrap_script_starts(aws: Server, script: str) -> None:
    aws.reach(aws.run_job_flow(BootstrapActions=bootstrap(script, "x")), "WAITING")


def test_the_deadline_ends_a_cluster_although_a_step_hangs_and_it_is_protected(aws: Server, script: str) -> None:
    deadline = (datetime.now(UTC) + timedelta(seconds=2.5)).isoformat()
    cluster_id = aws.run_job_flow(
        BootstrapActions=bootstrap(script, "--deadline", deadline),
        Steps=[step("sleep", "600")],
        Instances={"TerminationProtected": True},
    )
    aws.reach(cluster_id, "RUNNING")
    gone = aws.reach(cluster_id, "TERMINATED_WITH_ERRORS")
    assert gone["StateChangeReason"]["Code"] == "INSTANCE_FAILURE"
    assert gone["Timeline"]["EndDateTime"] >= datetime.fromisoformat(deadline)


def test_a_deadline_without_a_zone_fails_the_bootstrap(aws: Server, script: str) -> None:
    cluster_id = aws.run_job_flow(BootstrapActions=bootstrap(script, "--deadline", "2030-01-01T00:00:00"))
    reason = aws.reach(cluster_id, "TERMINATED_WITH_ERRORS")["StateChangeReason"]
    assert reason["Code"] == "BOOTSTRAP_FAILURE"
    assert "non-zero" in reason["Message"]


def test_clusters_are_listed_by_state_and_time_newest_first(aws: Server) -> None:
    emr = aws.client("emr")
    before = datetime.now(UTC)
    first, second = aws.run_job_flow(), aws.run_job_flow()
    emr.terminate_job_flows(JobFlowIds=[first])
    aws.reach(first, "TERMINATED")
    aws.reach(second, "WAITING")

    def listed(**filters: Any) -> list[str]:
        return [
            cluster["Id"] for cluster in emr.list_clusters(**filters)["Clusters"] if cluster["Id"] in (first, second)
        ]

    assert listed(CreatedAfter=before) == [second, first]
    assert listed(CreatedAfter=before, ClusterStates=["TERMINATED"]) == [first]
    assert listed(CreatedAfter=before, ClusterStates=["WAITING", "RUNNING"]) == [second]
    assert listed(CreatedBefore=before) == []
    assert "Tags" not in emr.list_clusters()["Clusters"][0]
    emr.terminate_job_flows(JobFlowIds=[second])


def test_lists_come_in_pages(aws: Server) -> None:
    emr = aws.client("emr")
    cluster_ids = [aws.run_job_flow(Name="page") for _ in range(55)]
    emr.terminate_job_flows(JobFlowIds=cluster_ids)
    assert len(emr.list_clusters()["Clusters"]) == 50
    pages = emr.get_paginator("list_clusters").paginate()
    assert {cluster["Id"] for page in pages for cluster in page["Clusters"]} >= set(cluster_ids)
    until(lambda: all(aws.state(cluster_id) == "TERMINATED" for cluster_id in cluster_ids))


def test_describe_shows_what_was_asked_for(aws: Server) -> None:
    configuration = {"Classification": "spark-defaults", "Properties": {"spark.a": "b"}}
    cluster_id = aws.run_job_flow(
        Name="nightly",
        Tags=[{"Key": "run", "Value": "scheduled__2026-01-01T00:00:00+00:00"}],
        Configurations=[configuration],
        StepConcurrencyLevel=3,
        Instances={"TerminationProtected": True},
    )
    seen = aws.cluster(cluster_id)
    assert seen["Name"] == "nightly"
    assert seen["Tags"] == [{"Key": "run", "Value": "scheduled__2026-01-01T00:00:00+00:00"}]
    assert seen["Configurations"] == [configuration]
    assert seen["ReleaseLabel"] == "emr-spark-8.0.0"
    assert seen["Applications"] == [{"Name": "Spark", "Version": "4.0.2"}]
    assert seen["LogUri"] == "s3n://lake/logs/"
    assert (seen["AutoTerminate"], seen["TerminationProtected"], seen["StepConcurrencyLevel"]) == (False, True, 3)
    assert seen["ClusterArn"] == f"arn:aws:elasticmapreduce:eu-west-1:123456789012:cluster/{cluster_id}"
    aws.client("emr").set_termination_protection(JobFlowIds=[cluster_id], TerminationProtected=False)
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])


def test_tags_can_be_added(aws: Server) -> None:
    cluster_id = aws.run_job_flow(Tags=[{"Key": "a", "Value": "1"}])
    aws.client("emr").add_tags(ResourceId=cluster_id, Tags=[{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}])
    assert aws.cluster(cluster_id)["Tags"] == [{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}]
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])


@pytest.mark.parametrize(("region", "partition"), [("eu-central-1", "aws"), ("eusc-de-east-1", "aws-eusc")])
def test_a_cluster_is_in_the_region_it_was_asked_for_in(aws: Server, region: str, partition: str) -> None:
    iam = aws.client("iam", region)
    if partition != "aws":  # partitions share nothing
        for role in ("emr-service", "emr-node"):
            iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}")
        iam.create_instance_profile(InstanceProfileName="emr-node")
    emr = aws.client("emr", region)
    created = emr.run_job_flow(
        Name="there",
        ReleaseLabel="emr-spark-8.0.0",
        ServiceRole="emr-service",
        JobFlowRole="emr-node",
        Instances={"InstanceFleets": [PRIMARY], "KeepJobFlowAliveWhenNoSteps": True},
    )
    assert created["ClusterArn"].startswith(f"arn:{partition}:elasticmapreduce:{region}:")
    assert emr.describe_cluster(ClusterId=created["JobFlowId"])["Cluster"]["Name"] == "there"
    with pytest.raises(ClientError, match="is not valid"):
        aws.client("emr", "eu-west-1").describe_cluster(ClusterId=created["JobFlowId"])
    emr.terminate_job_flows(JobFlowIds=[created["JobFlowId"]])


CORE = {
    "InstanceFleetType": "CORE",
    "TargetOnDemandCapacity": 2,
    "TargetSpotCapacity": 4,
    "InstanceTypeConfigs": [{"InstanceType": "m5.xlarge", "WeightedCapacity": 2}],
}


def test_fleets_and_their_instances_have_times_for_the_cost(aws: Server) -> None:
    emr = aws.client("emr")
    cluster_id = aws.run_job_flow(Instances={"InstanceFleets": [PRIMARY, CORE]})
    aws.reach(cluster_id, "WAITING")
    assert aws.cluster(cluster_id)["InstanceCollectionType"] == "INSTANCE_FLEET"
    instances = emr.list_instances(ClusterId=cluster_id)["Instances"]
    primary, *_ = sorted(instances, key=lambda instance: instance["PrivateIpAddress"])
    core = [instance for instance in instances if instance["InstanceFleetId"] != primary["InstanceFleetId"]]
    assert sorted(instance["Market"] for instance in core) == ["ON_DEMAND", "SPOT", "SPOT"]
    assert {instance["Status"]["State"] for instance in instances} == {"RUNNING"}
    assert len({instance["PrivateIpAddress"] for instance in instances}) == 4
    emr.terminate_job_flows(JobFlowIds=[cluster_id])
    aws.reach(cluster_id, "TERMINATED")
    for instance in emr.list_instances(ClusterId=cluster_id)["Instances"]:
        timeline = instance["Status"]["Timeline"]
        assert timeline["CreationDateTime"] < timeline["ReadyDateTime"] < timeline["EndDateTime"]
        assert instance["Status"]["State"] == "TERMINATED"
