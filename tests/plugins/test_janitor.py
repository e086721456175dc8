"""Which clusters the janitor ends, which it leaves alone, and what it says of one that stays."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from botocore.exceptions import ClientError
from fruits_airflow import janitor
from fruits_airflow.clusters import LIVE_STATES, describe, find
from fruits_airflow.endpoints import EndpointLog
from fruits_airflow.errors import ResidencyError
from fruits_airflow.janitor import free_abandoned_locks, judge, regions_of, sweep_clusters
from fruits_airflow.notices import Notice
from fruits_airflow.run_cluster import RunCluster

from tests.plugins.airflow_context import context_of
from tests.plugins.doubles import Double, KnownRuns

HOUR = timedelta(hours=1)


def now() -> datetime:
    return datetime.now(UTC)


def tag(run: RunCluster, job_flow_id: str, **tags: str) -> None:
    run.client.add_tags(ResourceId=job_flow_id, Tags=[{"Key": k, "Value": v} for k, v in tags.items()])


def knows(run: RunCluster, alive: bool) -> RunCluster:
    """The run, in an Airflow that knows it."""
    ids = {run.identity.run_id}
    return replace(run, runs=KnownRuns(alive=ids) if alive else KnownRuns(ended=ids))


def made_in(run: RunCluster, region: str) -> tuple[RunCluster, str]:
    """The run and its cluster in another region, where the account has no security configuration."""
    elsewhere = replace(run, region=region)
    body = {key: value for key, value in run.body().items() if key != "SecurityConfiguration"}
    return elsewhere, elsewhere.client.run_job_flow(**body)["JobFlowId"]


def is_live(run: RunCluster, job_flow_id: str) -> bool:
    return describe(run.client, job_flow_id).state in LIVE_STATES


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Notice]:
    notices: list[Notice] = []
    monkeypatch.setattr(janitor, "tell", lambda _, notice: notices.append(notice))
    return notices


def test_a_cluster_past_its_deadline_is_ended_though_its_run_is_alive(run: RunCluster) -> None:
    made = run.adopt_or_create().job_flow_id
    tag(run, made, deadline=(now() - HOUR).isoformat())
    report = sweep_clusters(run.settings, context_of(knows(run, alive=True)))
    assert describe(run.client, made).state == "TERMINATED"
    assert [(one["job_flow_id"], one["run_id"], one["ended"]) for one in report] == [
        (made, run.identity.run_id, True)
    ]
    assert "its deadline" in report[0]["why"]


def test_a_cluster_whose_run_has_ended_is_ended_before_its_deadline(run: RunCluster) -> None:
    made = run.adopt_or_create().job_flow_id
    report = sweep_clusters(run.settings, context_of(knows(run, alive=False)))
    assert describe(run.client, made).state == "TERMINATED"
    assert report[0]["why"] == f"its run {run.identity.run_id} has ended"


def test_a_cluster_that_is_only_starting_is_ended_too(run: RunCluster) -> None:
    made = run.client.run_job_flow(**run.body())["JobFlowId"]
    assert describe(run.client, made).state in ("STARTING", "BOOTSTRAPPING")
    assert len(sweep_clusters(run.settings, context_of(knows(run, alive=False)))) == 1
    assert not is_live(run, made)


def test_a_cluster_of_a_run_that_is_alive_stays(run: RunCluster) -> None:
    made = run.adopt_or_create().job_flow_id
    assert sweep_clusters(run.settings, context_of(knows(run, alive=True))) == []
    assert is_live(run, made)


def test_an_unknown_run_is_judged_by_its_deadline_alone(run: RunCluster) -> None:
    made = run.adopt_or_create().job_flow_id
    assert sweep_clusters(run.settings, context_of(run)) == []
    assert is_live(run, made)
    tag(run, made, deadline=(now() - HOUR).isoformat())
    assert len(sweep_clusters(run.settings, context_of(run))) == 1


def test_another_deployment_is_never_touched(make_run: Callable[..., RunCluster]) -> None:
    mine = make_run()
    other = make_run(settings=replace(mine.settings, deployment_id="other-one"))
    theirs = other.adopt_or_create().job_flow_id
    tag(other, theirs, deadline=(now() - HOUR).isoformat())
    assert sweep_clusters(mine.settings, context_of(knows(mine, alive=False))) == []
    assert is_live(other, theirs)


@pytest.mark.parametrize("missing", ["project", "deployment"])
def test_a_cluster_without_the_tags_is_never_touched(run: RunCluster, missing: str) -> None:
    body = run.body()
    body["Tags"] = [one for one in body["Tags"] if one["Key"] != missing]
    made = run.client.run_job_flow(**body)["JobFlowId"]
    tag(run, made, deadline=(now() - HOUR).isoformat())
    try:
        assert sweep_clusters(run.settings, context_of(knows(run, alive=False))) == []
        assert is_live(run, made)
    finally:
        run.client.terminate_job_flows(JobFlowIds=[made])


@pytest.mark.parametrize(
    ("deadline", "ended"),
    [(None, False), ("soon", False), ("2020-01-01T00:00:00", True), ("2999-01-01", False)],
)
def test_a_deadline_that_cannot_be_read_condemns_nobody(
    run: RunCluster, deadline: str | None, ended: bool
) -> None:
    cluster = describe(run.client, run.adopt_or_create().job_flow_id)
    tags = {name: value for name, value in cluster.tags.items() if name != "deadline"}
    tags |= {"deadline": deadline} if deadline else {}
    assert bool(judge(replace(cluster, tags=tags), KnownRuns())) is ended


def test_it_looks_wherever_a_run_may_have_made_a_cluster(run: RunCluster) -> None:
    regions = regions_of(replace(run.settings, region="eu-west-3"))
    assert regions[0] == "eu-west-3"
    assert {"eu-west-1", "eu-south-2"} < set(regions)
    assert "eusc-de-east-1" not in regions, "another partition: another account"
    assert regions_of(replace(run.settings, region="eusc-de-east-1")) == ["eusc-de-east-1"]


def test_a_cluster_in_another_region_is_found(run: RunCluster) -> None:
    elsewhere, made = made_in(run, "eu-west-3")
    report = sweep_clusters(run.settings, context_of(knows(run, alive=False)))
    assert [(one["job_flow_id"], one["region"]) for one in report] == [(made, "eu-west-3")]
    assert not find(elsewhere.client, run.identity)


# what stands in its way


@pytest.fixture
def emr(run: RunCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Changes what EMR answers: the client of one region, with methods replaced."""

    def change(region: str, **methods: Any) -> None:
        real = janitor.EmrHook.get_conn

        def get_conn(hook: Any) -> Any:
            client = real(hook)
            return Double(client, **methods) if hook.region_name == region else client

        monkeypatch.setattr(janitor.EmrHook, "get_conn", get_conn)

    yield change
    monkeypatch.undo()


def denied(code: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, "Any")

    return refuse


def test_one_that_refuses_to_end_is_told_and_the_others_end(
    make_run: Callable[..., RunCluster],
    emr: Callable[..., None],
    told: list[Notice],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusing, other = make_run("manual__refusing"), make_run("manual__other")
    stays, goes = (run.desk.adopt_or_create(run.body).job_flow_id for run in (refusing, other))
    real = refusing.client.terminate_job_flows

    def terminate(**request: Any) -> Any:
        return denied("InternalServerException")() if request["JobFlowIds"] == [stays] else real(**request)

    watch = janitor.end_and_watch
    monkeypatch.setattr(janitor, "end_and_watch", lambda client, ids, _, poll: watch(client, ids, 2.0, poll))
    emr("eu-west-1", terminate_job_flows=terminate)
    ended = KnownRuns(ended={"manual__refusing", "manual__other"})

    with pytest.raises(AirflowFailException, match=f"{stays} does not end"):
        sweep_clusters(refusing.settings, context_of(replace(refusing, runs=ended)))

    assert not is_live(other, goes)
    assert [(n.anchor, n.run) for n in told] == [("cluster-will-not-die", refusing.identity)]
    assert stays in told[0].cause
    assert "InternalServerException" in told[0].cause
    assert told[0].cost_eur is not None


def test_a_region_that_is_closed_to_us_holds_no_cluster_of_ours(
    run: RunCluster, emr: Callable[..., None]
) -> None:
    emr("eu-south-2", get_paginator=denied("UnrecognizedClientException"))
    assert sweep_clusters(run.settings, context_of(run)) == []


@pytest.mark.parametrize(
    ("region", "code"), [("eu-west-1", "AccessDeniedException"), ("eu-west-3", "ThrottlingException")]
)
def test_a_region_that_cannot_be_looked_at_is_no_clean_sweep_and_the_rest_is_swept(
    run: RunCluster, emr: Callable[..., None], region: str, code: str
) -> None:
    elsewhere, made = made_in(run, "eu-north-1")
    emr(region, get_paginator=denied(code))
    with pytest.raises(AirflowFailException, match=rf"{region}: .*{code}"):
        sweep_clusters(run.settings, context_of(knows(run, alive=False)))
    assert not is_live(elsewhere, made)


def test_every_region_that_it_asks_is_watched(run: RunCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_in_the_union(host: str) -> str:
        raise ResidencyError(f"{host} is elsewhere")

    monkeypatch.setattr(janitor, "CALLED", EndpointLog())
    monkeypatch.setattr(janitor.EmrHook, "get_conn", lambda hook: hook.conn)  # one that nobody watches yet
    monkeypatch.setattr("fruits_airflow.endpoints.place_of", not_in_the_union)
    with pytest.raises(AirflowFailException) as refused:
        sweep_clusters(run.settings, context_of(run))
    for region in regions_of(run.settings):
        assert f"{region}: 127.0.0.1 is elsewhere" in str(refused.value)


# locks


@pytest.mark.parametrize(
    ("age", "alive", "freed"), [(HOUR, False, True), (HOUR, True, False), (-HOUR, False, False)]
)
def test_a_lock_is_freed_past_its_deadline_when_its_owner_is_gone(
    run: RunCluster, age: timedelta, alive: bool, freed: bool
) -> None:
    run.lock("fruits").take(now() - age)
    found = free_abandoned_locks(run.settings, context_of(knows(run, alive=alive)))
    assert [run.identity.run_id in one for one in found] == ([True] if freed else [])
    assert (run.lock("fruits").holding() is None) is freed


def test_a_lock_that_is_taken_over_meanwhile_stays(run: RunCluster) -> None:
    run.lock("fruits").take(now() - HOUR)
    taken = {"owner": {"deployment_id": "d", "dag_id": "g", "run_id": "r"}, "region": "eu-west-1"}
    taken |= {"taken_at": now().isoformat(), "deadline": (now() + HOUR).isoformat()}

    def is_gone(_: object) -> bool:
        run.lake.write("locks/fruits.json", json.dumps(taken).encode())
        return True

    assert replace(run.lock("fruits"), is_gone=is_gone).break_abandoned() is None
    assert run.lock("fruits").holding() is not None
