"""A run has one cluster, whichever request or reply is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from fruits_airflow.aws.clients import PATIENT, SINGLE_ATTEMPT, emr_client
from fruits_airflow.config.errors import ClusterLost, CostCeilingExceeded
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr import clusters
from fruits_airflow.emr.announced_requests import CREATED_ID
from fruits_airflow.emr.clusters import LIVE_STATES, RunKey, tag_value
from fruits_airflow.runs.run_context import RunContext

from tests.local_aws.server import until
from tests.plugins.doubles import ClosingServer, Double


def throttled(**_: Any) -> Any:
    raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "no"}}, "ListInstances")


def live(run: RunContext) -> list[str]:
    return [cluster.job_flow_id for cluster in clusters.find_clusters(run.client, run.identity)]


def test_a_second_attempt_finds_the_cluster_of_the_first(run: RunContext) -> None:
    assert run.find_or_create().job_flow_id == run.find_or_create().job_flow_id
    assert len(live(run)) == 1


def test_retry_after_lost_reply_finds_the_same_cluster(run: RunContext) -> None:
    def lost(**request: Any) -> Any:
        run.client.run_job_flow(**request)
        raise ReadTimeoutError(endpoint_url="emr")

    lifecycle = replace(run.lifecycle, single_attempt_client=Double(run.client, run_job_flow=lost))

    cluster = lifecycle.find_or_create(run.body)

    assert live(run) == [cluster.job_flow_id]


def hiding(run: RunContext, seconds: float) -> Double:
    """Return a client whose ListClusters shows nothing for `seconds`."""
    shown_from = time.monotonic() + seconds

    def stale(name: str) -> Any:
        real = run.client.get_paginator(name)
        hides = name == "list_clusters" and time.monotonic() < shown_from
        return Double(real, paginate=lambda **_: [{"Clusters": []}]) if hides else real

    return Double(run.client, get_paginator=stale)


def test_a_cluster_that_the_listing_does_not_show_yet_is_waited_for(run: RunContext) -> None:
    job_flow_ids: list[str] = []

    def lost(**request: Any) -> Any:
        job_flow_ids.append(run.client.run_job_flow(**request)["JobFlowId"])
        raise ReadTimeoutError(endpoint_url="emr")

    lifecycle = replace(
        run.lifecycle, client=hiding(run, 0.5), single_attempt_client=Double(run.client, run_job_flow=lost)
    )
    assert [lifecycle.find_or_create(run.body).job_flow_id] == job_flow_ids
    assert live(run) == job_flow_ids


def test_a_cluster_whose_id_is_noted_is_not_created_again_while_the_listing_lags(run: RunContext) -> None:
    cluster = run.find_or_create()
    lifecycle = replace(run.lifecycle, client=hiding(run, 60), consistency_s=0.0)
    assert lifecycle.find_or_create(run.body).job_flow_id == cluster.job_flow_id
    assert live(run) == [cluster.job_flow_id]
    assert [ended.job_flow_id for ended in lifecycle.end_all(timeout_s=30)] == [cluster.job_flow_id]


def looking(run: RunContext, *looks: Callable[[], bool]) -> Double:
    """Return a client whose ListClusters lists clusters if the next of `looks` returns True, and finally nothing."""
    left = list(looks)

    def paginate(**request: Any) -> Any:
        shows = left.pop(0)() if left else False
        return run.client.get_paginator("list_clusters").paginate(**request) if shows else [{"Clusters": []}]

    def paginator(name: str) -> Any:
        real = run.client.get_paginator(name)
        return Double(real, paginate=paginate) if name == "list_clusters" else real

    return Double(run.client, get_paginator=paginator)


def test_a_cluster_that_is_announced_while_the_listing_is_read_is_seen(run: RunContext) -> None:
    job_flow_ids: list[str] = []

    def make() -> bool:  # by an attempt that its scheduler has given up
        run.journal.note("run_job_flow")
        job_flow_ids.append(run.client.run_job_flow(**run.body())["JobFlowId"])
        return False

    cluster = replace(run.lifecycle, client=looking(run, make, lambda: True)).find()
    assert cluster is not None
    assert [cluster.job_flow_id] == job_flow_ids


def test_a_cluster_is_ended_that_was_seen_once_in_a_listing_that_comes_and_goes(run: RunContext) -> None:
    run.journal.note("run_job_flow")
    job_flow_id = run.client.run_job_flow(**run.body())["JobFlowId"]
    lifecycle = replace(run.lifecycle, client=looking(run, lambda: False, lambda: True))
    assert [cluster.job_flow_id for cluster in lifecycle.end_all(timeout_s=30)] == [job_flow_id]


def test_an_s3_error_does_not_keep_a_listed_cluster_alive(run: RunContext) -> None:
    def denied(_: str) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetObject")

    cluster = run.find_or_create()
    lifecycle = replace(run.lifecycle, journal=Double(run.journal, read=denied))  # type: ignore[arg-type]
    assert [ended.job_flow_id for ended in lifecycle.end_all(timeout_s=30)] == [cluster.job_flow_id]


def test_a_cluster_that_emr_has_forgotten_does_not_keep_a_run_from_its_own(run: RunContext) -> None:
    run.journal.note("run_job_flow", **{CREATED_ID: "j-FORGOTTEN0000"})
    assert run.find_or_create().name == run.identity.name


def denying(run: RunContext) -> Double:
    """Return a client to which IAM denies a forgotten cluster, as one without the deployment's tag."""

    def describe_cluster(**request: Any) -> Any:
        if request["ClusterId"] == "j-FORGOTTEN0000":
            error = {"Code": "AccessDeniedException", "Message": "not authorized"}
            raise ClientError({"Error": error}, "DescribeCluster")
        return run.client.describe_cluster(**request)

    return Double(run.client, describe_cluster=describe_cluster)


def test_a_forgotten_cluster_that_tag_conditions_deny_does_not_keep_a_run_from_its_own(run: RunContext) -> None:
    written = datetime.now(UTC) - timedelta(days=1, seconds=1)  # longer ago than a cluster lives
    run.journal.note("run_job_flow", **{CREATED_ID: "j-FORGOTTEN0000"}, at=written.isoformat())
    lifecycle = replace(run.lifecycle, client=denying(run))
    assert lifecycle.find_or_create(run.body).name == run.identity.name


def test_a_cluster_that_may_live_is_not_made_again_because_it_is_denied(run: RunContext) -> None:
    run.journal.note("run_job_flow", **{CREATED_ID: "j-FORGOTTEN0000"})
    lifecycle = replace(run.lifecycle, client=denying(run))
    with pytest.raises(ClientError, match="AccessDenied"):
        lifecycle.find_or_create(run.body)
    assert live(run) == []


def test_a_listed_cluster_that_is_denied_is_unknown(run: RunContext) -> None:
    listed = [{"Clusters": [{"Id": "j-FORGOTTEN0000", "Name": run.identity.name}]}]
    client = Double(denying(run), get_paginator=lambda _: Double(None, paginate=lambda **_: listed))
    with pytest.raises(ClientError, match="AccessDenied"):
        clusters.find_clusters(client, run.identity)


def ending(run: RunContext, looks: int) -> tuple[Any, list[str]]:
    """Return a client that lists a cluster as TERMINATING `looks` times, and the list of states it returned."""
    states: list[str] = []

    def list_clusters(name: str) -> Any:
        real = run.client.get_paginator(name)

        def paginate(**request: Any) -> Any:
            if request.get("ClusterStates") != ["TERMINATING"] or len(states) >= looks:
                return real.paginate(**request)
            states.append("TERMINATING")
            return [{"Clusters": [{"Id": "j-ENDING", "Name": run.identity.name}]}]

        return Double(real, paginate=paginate)

    def describe_cluster(**request: Any) -> Any:
        if request["ClusterId"] != "j-ENDING":
            return run.client.describe_cluster(**request)
        status = {"State": "TERMINATING", "Timeline": {"CreationDateTime": datetime.now(UTC)}}
        tags = [{"Key": key, "Value": value} for key, value in run.identity.tags.items()]
        return {"Cluster": {"Name": run.identity.name, "Status": status, "Tags": tags}}

    return Double(run.client, get_paginator=list_clusters, describe_cluster=describe_cluster), states


def test_the_next_cluster_is_made_when_the_one_before_has_ended(run: RunContext) -> None:
    client, states = ending(run, looks=3)
    cluster = replace(run.lifecycle, client=client).find_or_create(run.body)
    assert len(states) == 3
    assert live(run) == [cluster.job_flow_id]


@pytest.mark.parametrize("looks", [999, 0], ids=["listed", "only in the note"])
def test_a_cluster_that_goes_on_ending_is_left_to_another_attempt(
    run: RunContext, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    monkeypatch.setattr(clusters, "LONGEST_END_S", 0.3)
    run.journal.note("run_job_flow", **{CREATED_ID: "j-ENDING"})
    client, _ = ending(run, looks)
    with pytest.raises(ClusterLost, match="j-ENDING is TERMINATING"):
        replace(run.lifecycle, client=client).find_or_create(run.body)
    assert live(run) == []


def test_without_an_announced_request_nothing_is_waited_for(run: RunContext) -> None:
    lifecycle = replace(run.lifecycle, consistency_s=60.0)
    begun = time.monotonic()
    assert lifecycle.find() is None
    assert time.monotonic() - begun < 10


def test_when_no_reply_and_no_cluster_comes_the_error_is_raised_after_the_window(run: RunContext) -> None:
    def lost(**_: Any) -> Any:
        raise ReadTimeoutError(endpoint_url="emr")

    lifecycle = replace(run.lifecycle, single_attempt_client=Double(run.client, run_job_flow=lost))
    with pytest.raises(ReadTimeoutError):
        lifecycle.find_or_create(run.body)
    assert live(run) == []


def test_of_two_clusters_the_oldest_is_used_and_the_other_ended(run: RunContext) -> None:
    first = run.client.run_job_flow(**run.body())["JobFlowId"]
    time.sleep(0.05)
    second = run.client.run_job_flow(**run.body())["JobFlowId"]

    assert run.find_or_create().job_flow_id == first

    # TerminateJobFlows answers before the cluster's state says so, here as on AWS.
    until(lambda: clusters.describe_cluster(run.client, second).state not in LIVE_STATES)


def test_an_extra_cluster_that_cannot_be_ended_now_does_not_keep_the_run_from_its_own(run: RunContext) -> None:
    def lost(**_: Any) -> Any:
        raise ReadTimeoutError(endpoint_url="emr")

    first = run.client.run_job_flow(**run.body())["JobFlowId"]
    time.sleep(0.05)
    run.client.run_job_flow(**run.body())
    cluster = replace(run.lifecycle, client=Double(run.client, terminate_job_flows=lost)).find()
    assert cluster is not None
    assert cluster.job_flow_id == first


def test_two_deployments_with_the_same_run_do_not_see_each_other(
    run: RunContext, make_run: Callable[..., RunContext], account: Settings
) -> None:
    other = make_run(settings=replace(account, deployment_id="another"))
    mine, theirs = (r.lifecycle.find_or_create(r.body) for r in (run, other))
    assert mine.job_flow_id != theirs.job_flow_id

    run.lifecycle.end_all(timeout_s=30)

    assert live(run) == []
    assert live(other) == [theirs.job_flow_id]


def test_a_cluster_of_that_name_without_the_tags_is_left_alone(run: RunContext) -> None:
    body = run.body()
    body["Tags"] = [tag for tag in body["Tags"] if tag["Key"] != "deployment"]
    stranger = run.client.run_job_flow(**body)["JobFlowId"]
    try:
        assert run.lifecycle.find() is None
        run.lifecycle.end_all(timeout_s=30)
        assert clusters.describe_cluster(run.client, stranger).state in LIVE_STATES
    finally:
        run.client.terminate_job_flows(JobFlowIds=[stranger])


@pytest.mark.parametrize(("config", "requests"), [(SINGLE_ATTEMPT, 1), (PATIENT, 8)])
def test_what_may_be_repeated_is_and_run_job_flow_is_sent_once_even_when_no_reply_comes(
    account: Settings, monkeypatch: pytest.MonkeyPatch, config: Mapping[str, Any], requests: int
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with ClosingServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        client = emr_client(account, "eu-west-1", config)
        with pytest.raises(Exception, match=r"[Cc]onnection|closed"):
            client.run_job_flow(Name="x", Instances={})
    assert server.requests == requests
    assert all(pause <= 20 for pause in pauses)  # botocore's own mode doubles them on and on


def test_a_refused_request_is_not_looked_for(run: RunContext) -> None:
    lifecycle = replace(run.lifecycle, consistency_s=60.0)
    body = {**run.body(), "ServiceRole": "no-such-role"}
    begun = time.monotonic()
    with pytest.raises(ClientError, match="no-such-role"):
        lifecycle.find_or_create(lambda: body)
    assert time.monotonic() - begun < 10


def test_end_all_watches_until_the_cluster_is_gone(run: RunContext) -> None:
    job_flow_id = run.find_or_create().job_flow_id
    ended = run.lifecycle.end_all(timeout_s=30)
    assert [cluster.job_flow_id for cluster in ended] == [job_flow_id]
    assert clusters.describe_cluster(run.client, job_flow_id).state == "TERMINATED"


def test_end_all_says_when_a_cluster_does_not_end(run: RunContext) -> None:
    job_flow_id = run.find_or_create().job_flow_id
    lifecycle = replace(run.lifecycle, client=Double(run.client, terminate_job_flows=lambda **_: None))
    with pytest.raises(TimeoutError, match=job_flow_id):
        lifecycle.end_all(timeout_s=0.3)


def test_a_protected_cluster_is_ended_too(run: RunContext) -> None:
    job_flow_id = run.find_or_create().job_flow_id
    run.client.set_termination_protection(JobFlowIds=[job_flow_id], TerminationProtected=True)
    run.lifecycle.end_all(timeout_s=30)
    assert clusters.describe_cluster(run.client, job_flow_id).state == "TERMINATED"


def test_an_ended_cluster_is_not_used(run: RunContext) -> None:
    first = run.find_or_create().job_flow_id
    run.lifecycle.end_all(timeout_s=30)
    assert run.find_or_create().job_flow_id != first


def test_the_body_carries_the_tags_the_deadline_and_the_idle_timeout(run: RunContext) -> None:
    body = run.body()
    tags = {tag["Key"]: tag["Value"] for tag in body["Tags"]}
    assert run.identity.tags.items() <= tags.items()
    assert tags["for-use-with-amazon-emr-managed-policies"] == "true"
    assert f"--deadline={tags['deadline']}" in body["BootstrapActions"][0]["ScriptBootstrapAction"]["Args"]
    assert body["AutoTerminationPolicy"]["IdleTimeout"] == run.settings.idle_timeout_s


def test_what_earlier_clusters_of_the_run_cost_shortens_the_deadline_of_the_next(
    run: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunContext, "spent_eur", lambda _: 4.99)
    with pytest.raises(CostCeilingExceeded, match=r"4\.99"):
        run.find_or_create()
    assert live(run) == []


def test_no_cluster_is_made_while_nobody_knows_what_the_earlier_ones_cost(run: RunContext) -> None:
    run.find_or_create()
    run.lifecycle.end_all(timeout_s=30)
    pages = run.client.get_paginator

    def silent(name: str) -> Any:
        return Double(pages(name), paginate=throttled) if name == "list_instances" else pages(name)

    run.__dict__["client"] = Double(run.client, get_paginator=silent)
    with pytest.raises(ClientError, match="ListInstances"):
        run.find_or_create()
    assert live(run) == []


@pytest.mark.parametrize("text", ["manual__2026-01-01T00:00:00+00:00", "scheduled__x", "a@b=c"])
def test_an_allowed_run_id_is_its_own_tag(text: str) -> None:
    assert tag_value(text) == text


def test_run_ids_that_a_tag_cannot_hold_stay_apart() -> None:
    assert tag_value("run~1") != tag_value("run!1")
    assert len(tag_value("x" * 400)) <= 256
    assert len(RunKey("d", "g", "x" * 400).name) <= 256
