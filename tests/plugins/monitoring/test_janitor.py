"""Which clusters the janitor ends, which it leaves alone, and what it says of one that stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.amazon.aws.hooks.emr import EmrHook
from airflow.sdk.exceptions import AirflowFailException
from botocore.exceptions import ClientError, ConnectTimeoutError
from fruits_airflow.aws import clients
from fruits_airflow.aws.endpoints import EndpointLog
from fruits_airflow.config.errors import ClustersUnseen, ResidencyError
from fruits_airflow.emr.clusters import LIVE_STATES, describe_cluster, find_clusters
from fruits_airflow.locking.airflow_runs import AirflowRuns
from fruits_airflow.monitoring import janitor
from fruits_airflow.monitoring.janitor import expiry_of, free_abandoned_locks, regions_of, sweep_clusters
from fruits_airflow.runs.notices import Notice
from fruits_airflow.runs.run_context import RunContext

from tests.plugins.airflow_context import context_of
from tests.plugins.doubles import Double, KnownRuns

HOUR = timedelta(hours=1)


def now() -> datetime:
    return datetime.now(UTC)


def tag(run: RunContext, job_flow_id: str, **tags: str) -> None:
    run.client.add_tags(ResourceId=job_flow_id, Tags=[{"Key": k, "Value": v} for k, v in tags.items()])


def knows(run: RunContext, alive: bool) -> RunContext:
    """Return the run, in an Airflow that knows it."""
    ids = {run.identity.run_id}
    return replace(run, runs=KnownRuns(alive=ids) if alive else KnownRuns(ended=ids))


def made_in(run: RunContext, region: str) -> tuple[RunContext, str]:
    """Create the run and its cluster in another region, without a subnet and a security configuration."""
    elsewhere = replace(run, region=region)
    body = {key: value for key, value in run.body().items() if key != "SecurityConfiguration"}
    body["Instances"] = {key: value for key, value in body["Instances"].items() if "Subnet" not in key}
    return elsewhere, elsewhere.client.run_job_flow(**body)["JobFlowId"]


def is_live(run: RunContext, job_flow_id: str) -> bool:
    return describe_cluster(run.client, job_flow_id).state in LIVE_STATES


@pytest.fixture
def notices(monkeypatch: pytest.MonkeyPatch) -> list[Notice]:
    notices: list[Notice] = []
    monkeypatch.setattr(janitor, "notify", lambda _, notice: notices.append(notice))
    return notices


def test_a_cluster_past_its_deadline_is_ended_though_its_run_is_alive(run: RunContext) -> None:
    job_flow_id = run.find_or_create().job_flow_id
    tag(run, job_flow_id, deadline=(now() - HOUR).isoformat())
    report = sweep_clusters(run.settings, context_of(knows(run, alive=True)))
    assert describe_cluster(run.client, job_flow_id).state == "TERMINATED"
    assert [(entry["job_flow_id"], entry["run_id"], entry["ended"]) for entry in report] == [
        (job_flow_id, run.identity.run_id, True)
    ]
    assert "its deadline" in report[0]["why"]


def test_a_cluster_whose_run_has_ended_is_ended_before_its_deadline(run: RunContext) -> None:
    job_flow_id = run.find_or_create().job_flow_id
    report = sweep_clusters(run.settings, context_of(knows(run, alive=False)))
    assert describe_cluster(run.client, job_flow_id).state == "TERMINATED"
    assert report[0]["why"] == f"its run {run.identity.run_id} has ended"


def test_a_cluster_that_is_only_starting_is_ended_too(run: RunContext) -> None:
    job_flow_id = run.client.run_job_flow(**run.body())["JobFlowId"]
    assert describe_cluster(run.client, job_flow_id).state in ("STARTING", "BOOTSTRAPPING")
    assert len(sweep_clusters(run.settings, context_of(knows(run, alive=False)))) == 1
    assert not is_live(run, job_flow_id)


def test_a_cluster_of_a_run_that_is_alive_stays(run: RunContext) -> None:
    job_flow_id = run.find_or_create().job_flow_id
    assert sweep_clusters(run.settings, context_of(knows(run, alive=True))) == []
    assert is_live(run, job_flow_id)


def test_an_unknown_run_is_judged_by_its_deadline_alone(run: RunContext) -> None:
    job_flow_id = run.find_or_create().job_flow_id
    assert sweep_clusters(run.settings, context_of(run)) == []
    assert is_live(run, job_flow_id)
    tag(run, job_flow_id, deadline=(now() - HOUR).isoformat())
    assert len(sweep_clusters(run.settings, context_of(run))) == 1


def test_another_deployment_is_never_touched(make_run: Callable[..., RunContext]) -> None:
    mine = make_run()
    other = make_run(settings=replace(mine.settings, deployment_id="other-one"))
    theirs = other.find_or_create().job_flow_id
    tag(other, theirs, deadline=(now() - HOUR).isoformat())
    assert sweep_clusters(mine.settings, context_of(knows(mine, alive=False))) == []
    assert is_live(other, theirs)


@pytest.mark.parametrize("missing", ["project", "deployment"])
def test_a_cluster_without_the_tags_is_never_touched(run: RunContext, missing: str) -> None:
    body = run.body()
    body["Tags"] = [tag_ for tag_ in body["Tags"] if tag_["Key"] != missing]
    job_flow_id = run.client.run_job_flow(**body)["JobFlowId"]
    tag(run, job_flow_id, deadline=(now() - HOUR).isoformat())
    try:
        assert sweep_clusters(run.settings, context_of(knows(run, alive=False))) == []
        assert is_live(run, job_flow_id)
    finally:
        run.client.terminate_job_flows(JobFlowIds=[job_flow_id])


@pytest.mark.parametrize(
    ("deadline", "ended"), [(None, False), ("soon", False), ("2020-01-01T00:00:00", True), ("2999-01-01", False)]
)
def test_a_deadline_that_cannot_be_read_condemns_nobody(run: RunContext, deadline: str | None, ended: bool) -> None:
    cluster = describe_cluster(run.client, run.find_or_create().job_flow_id)
    tags = {name: value for name, value in cluster.tags.items() if name != "deadline"}
    tags |= {"deadline": deadline} if deadline else {}
    assert bool(expiry_of(replace(cluster, tags=tags), KnownRuns())) is ended


def test_it_looks_wherever_a_run_may_have_made_a_cluster(run: RunContext) -> None:
    regions = regions_of(replace(run.settings, region="eu-west-3"))
    assert regions[0] == "eu-west-3"
    assert {"eu-west-1", "eu-south-2"} < set(regions)
    assert "eusc-de-east-1" not in regions, "another partition: another account"
    assert regions_of(replace(run.settings, region="eusc-de-east-1")) == ["eusc-de-east-1"]


def test_a_cluster_in_another_region_is_found(run: RunContext) -> None:
    elsewhere, job_flow_id = made_in(run, "eu-west-3")
    report = sweep_clusters(run.settings, context_of(knows(run, alive=False)))
    assert [(entry["job_flow_id"], entry["region"]) for entry in report] == [(job_flow_id, "eu-west-3")]
    assert not find_clusters(elsewhere.client, run.identity)


# what stands in its way


@pytest.fixture
def emr(run: RunContext, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Replace methods of the EMR client of a region."""

    def change(region: str, **methods: Any) -> None:
        real = EmrHook.get_conn

        def get_conn(hook: Any) -> Any:
            client = real(hook)
            return Double(client, **methods) if hook.region_name == region else client

        monkeypatch.setattr(EmrHook, "get_conn", get_conn)

    yield change
    monkeypatch.undo()


def denied(code: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, "Any")

    return refuse


def test_one_that_refuses_to_end_is_told_and_the_others_end(
    make_run: Callable[..., RunContext],
    emr: Callable[..., None],
    notices: list[Notice],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusing, other = make_run("manual__refusing"), make_run("manual__other")
    stays, goes = (run.lifecycle.find_or_create(run.body).job_flow_id for run in (refusing, other))
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
    assert [(n.anchor, n.run) for n in notices] == [("cluster-will-not-die", refusing.identity)]
    assert stays in notices[0].cause
    assert "InternalServerException" in notices[0].cause
    assert notices[0].cost_eur is not None


def test_a_region_that_is_closed_to_us_holds_no_cluster_of_ours(run: RunContext, emr: Callable[..., None]) -> None:
    emr("eu-south-2", get_paginator=denied("UnrecognizedClientException"))
    assert sweep_clusters(run.settings, context_of(run)) == []


@pytest.mark.parametrize(
    ("region", "code"), [("eu-west-1", "AccessDeniedException"), ("eu-west-3", "ThrottlingException")]
)
def test_a_region_that_cannot_be_looked_at_is_no_clean_sweep_and_the_rest_is_swept(
    run: RunContext, emr: Callable[..., None], region: str, code: str
) -> None:
    elsewhere, job_flow_id = made_in(run, "eu-north-1")
    emr(region, get_paginator=denied(code))
    with pytest.raises(ClustersUnseen, match=rf"{region}: .*{code}"):
        sweep_clusters(run.settings, context_of(knows(run, alive=False)))
    assert not is_live(elsewhere, job_flow_id)


@pytest.mark.parametrize("which", [0, 1], ids=["the first", "the second"])
def test_a_cluster_that_cannot_be_looked_at_hides_no_other(
    make_run: Callable[..., RunContext], emr: Callable[..., None], notices: list[Notice], which: int
) -> None:
    runs = [make_run("manual__first"), make_run("manual__second")]
    ids = [run.client.run_job_flow(**run.body())["JobFlowId"] for run in runs]  # whose lock is one run's
    ended = replace(runs[0], runs=KnownRuns(ended={run.identity.run_id for run in runs}))
    describe_cluster = ended.client.describe_cluster

    def one_fails(**request: Any) -> Any:
        failing = request["ClusterId"] == ids[which]
        return denied("ThrottlingException")() if failing else describe_cluster(**request)

    emr("eu-west-1", describe_cluster=one_fails)
    with pytest.raises(ClustersUnseen, match=f"{ids[which]} in eu-west-1: .*ThrottlingException"):
        sweep_clusters(ended.settings, context_of(ended))
    assert [cluster_id for cluster_id in ids if is_live(ended, cluster_id)] == [ids[which]]
    assert [notice.anchor for notice in notices] == ["clusters-unseen"]


def test_what_a_listing_showed_before_it_broke_off_is_ended(
    run: RunContext, emr: Callable[..., None], notices: list[Notice]
) -> None:
    job_flow_id, real = run.client.run_job_flow(**run.body())["JobFlowId"], run.client.get_paginator

    def breaks_off(**request: Any) -> Iterator[Any]:
        yield from real("list_clusters").paginate(**request)
        denied("ThrottlingException")()

    emr("eu-west-1", get_paginator=lambda _: SimpleNamespace(paginate=breaks_off))
    with pytest.raises(ClustersUnseen, match="eu-west-1: .*ThrottlingException"):
        sweep_clusters(run.settings, context_of(knows(run, alive=False)))
    assert not is_live(run, job_flow_id)


@pytest.mark.parametrize(("attempt", "count"), [(1, 0), (3, 1)])
def test_a_region_that_cannot_be_looked_at_is_told_when_no_further_attempt_will_look(
    run: RunContext, emr: Callable[..., None], notices: list[Notice], attempt: int, count: int
) -> None:
    emr("eu-west-3", get_paginator=denied("ThrottlingException"))
    context = context_of(run)
    context["ti"].try_number, context["ti"].max_tries = attempt, 2
    with pytest.raises(ClustersUnseen) as error:
        sweep_clusters(run.settings, context)
    assert not isinstance(error.value, AirflowFailException), "Airflow must try again, so that the last can tell"
    assert [(notice.anchor, "eu-west-3: " in notice.cause) for notice in notices] == [("clusters-unseen", True)] * count


def test_a_cluster_that_stays_ends_the_attempts_so_what_is_unseen_is_told_at_once(
    run: RunContext, emr: Callable[..., None], notices: list[Notice], monkeypatch: pytest.MonkeyPatch
) -> None:
    run.find_or_create()
    monkeypatch.setattr(janitor, "end_and_watch", lambda _, ids, *__: ([], dict.fromkeys(ids, "RUNNING")))
    emr("eu-west-3", get_paginator=denied("ThrottlingException"))
    context = context_of(knows(run, alive=False))
    context["ti"].max_tries = 2
    with pytest.raises(AirflowFailException, match="does not end; eu-west-3: "):
        sweep_clusters(run.settings, context)
    assert [notice.anchor for notice in notices] == ["cluster-will-not-die", "clusters-unseen"]


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "ExpiredToken", "Message": "no"}}, "AssumeRole"),
        ConnectTimeoutError(endpoint_url="sts.eu-west-1.amazonaws.com"),
    ],
)
def test_a_region_without_a_client_is_unseen_and_the_rest_is_swept(
    run: RunContext, notices: list[Notice], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    elsewhere, job_flow_id = made_in(run, "eu-west-3")
    real = EmrHook.get_conn

    def get_conn(hook: Any) -> Any:
        if hook.region_name == "eu-west-1":
            raise error
        return real(hook)

    with monkeypatch.context() as patch:
        patch.setattr(EmrHook, "get_conn", get_conn)
        with pytest.raises(ClustersUnseen, match="eu-west-1: "):
            sweep_clusters(run.settings, context_of(knows(run, alive=False)))
    assert not is_live(elsewhere, job_flow_id)
    assert [notice.anchor for notice in notices] == ["clusters-unseen"]


def test_what_a_cluster_that_stays_has_cost_may_be_unknown(
    run: RunContext, notices: list[Notice], emr: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run.find_or_create()
    monkeypatch.setattr(janitor, "end_and_watch", lambda _, ids, *__: ([], dict.fromkeys(ids, "RUNNING")))
    monkeypatch.setattr(janitor, "instances_of", denied("ThrottlingException"))
    with pytest.raises(AirflowFailException, match="does not end"):
        sweep_clusters(run.settings, context_of(knows(run, alive=False)))
    assert [(notice.anchor, notice.cost_eur) for notice in notices] == [("cluster-will-not-die", None)]


def test_every_region_that_it_asks_is_watched(run: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_in_the_union(host: str) -> str:
        raise ResidencyError(f"{host} is elsewhere")

    with monkeypatch.context() as patch:
        patch.setattr(clients, "CALLED", EndpointLog())
        patch.setattr(EmrHook, "get_conn", lambda hook: hook.conn)  # one that nobody watches yet
        patch.setattr("fruits_airflow.aws.endpoints.place_of", not_in_the_union)
        with pytest.raises(ClustersUnseen) as refused:
            sweep_clusters(run.settings, context_of(run))
    for region in regions_of(run.settings):
        assert f"{region}: 127.0.0.1 is elsewhere" in str(refused.value)


# locks


@dataclass
class LookedAt:
    """A run that has ended; something happens each time that the janitor asks."""

    happens: Callable[[int], bool | None]
    looks: int = 0

    def has_ended(self, dag_id: str, run_id: str) -> bool:
        self.looks += 1
        return self.happens(self.looks) is not False

    def is_alive(self, dag_id: str, run_id: str) -> bool:
        return False


def freed(run: RunContext, runs: AirflowRuns) -> list[str]:
    """Return the locks that the janitor says it removed; check that it has."""
    removed = free_abandoned_locks(run.settings, context_of(replace(run, runs=runs)))
    assert bool(removed) is (run.lock("fruits").read() is None)
    return removed


@pytest.mark.parametrize("dag_id", ["fruits_pipeline", "erase_images"])
def test_a_lock_that_an_ended_run_left_is_given_back_before_its_deadline(
    make_run: Callable[..., RunContext], dag_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(dag_id=dag_id)
    run.lock("fruits").take(now() + HOUR)
    (reason,) = freed(run, KnownRuns(ended={run.identity.run_id}))
    assert reason.startswith(f"fruits: {dag_id} run {run.identity.run_id} of deployment")
    assert reason.endswith("its run has ended, and no cluster of it is alive")
    assert "Removed the lock of fruits" in caplog.text


def test_an_erasure_that_ended_leaves_neither_of_its_two_locks(make_run: Callable[..., RunContext]) -> None:
    run = make_run(dag_id="erase_images")
    for database in (run.settings.database, run.settings.demo_database):
        run.lock(database).take(now() + HOUR)
    removed = free_abandoned_locks(run.settings, context_of(knows(run, alive=False)))
    assert [line.partition(":")[0] for line in removed] == [run.settings.database, run.settings.demo_database]


@pytest.mark.parametrize("left", [HOUR, -HOUR], ids=["before its deadline", "past it"])
def test_a_run_that_is_alive_keeps_its_lock(run: RunContext, left: timedelta) -> None:
    run.lock("fruits").take(now() + left)
    assert freed(run, KnownRuns(alive={run.identity.run_id})) == []


def test_a_run_that_is_unknown_keeps_its_lock_until_its_deadline(run: RunContext) -> None:
    run.lock("fruits").take(now() + HOUR)
    assert freed(run, KnownRuns()) == []
    run.lake.remove(run.lock("fruits").key)
    run.lock("fruits").take(now() - HOUR)
    (reason,) = freed(run, KnownRuns())
    assert reason.endswith("its deadline has passed, and neither run nor cluster of it is alive")


def test_an_ended_run_keeps_its_lock_until_its_cluster_is_seen_ended(run: RunContext, emr: Callable[..., None]) -> None:
    run = replace(run, settings=replace(run.settings, list_consistency_s=0.0))
    run.find_or_create()
    ended, real = KnownRuns(ended={run.identity.run_id}), run.client
    assert freed(run, ended) == [], "it is alive"

    def terminating(**request: Any) -> Any:
        answer = real.describe_cluster(**request)
        answer["Cluster"]["Status"]["State"] = state
        return answer

    emr("eu-west-1", describe_cluster=terminating)
    state = "TERMINATING"
    assert freed(run, ended) == [], "it was told to end, and may be at work"
    state = "TERMINATED_WITH_ERRORS"
    assert len(freed(run, ended)) == 1


@pytest.mark.parametrize("dag_id", ["fruits_pipeline", "erase_images"])
def test_an_ended_run_keeps_its_lock_while_the_listing_may_not_show_its_cluster(
    make_run: Callable[..., RunContext], emr: Callable[..., None], dag_id: str
) -> None:
    run = make_run(dag_id=dag_id)
    run = replace(run, settings=replace(run.settings, list_consistency_s=60.0))
    run.find_or_create()
    unseen = SimpleNamespace(paginate=lambda **_: [{"Clusters": []}])
    emr("eu-west-1", get_paginator=lambda _: unseen)
    assert freed(run, KnownRuns(ended={run.identity.run_id})) == []


@pytest.mark.parametrize("dag_id", ["fruits_pipeline", "erase_images"])
def test_an_ended_run_keeps_its_lock_while_its_named_cluster_lives_however_long_the_listing_lags(
    make_run: Callable[..., RunContext], emr: Callable[..., None], dag_id: str
) -> None:
    run = make_run(dag_id=dag_id)
    run = replace(run, settings=replace(run.settings, list_consistency_s=0.0))
    run.find_or_create()
    ended, real, state = KnownRuns(ended={run.identity.run_id}), run.client, "TERMINATING"

    def describe_cluster(**request: Any) -> Any:
        answer = real.describe_cluster(**request)
        answer["Cluster"]["Status"]["State"] = state
        return answer

    unseen = SimpleNamespace(paginate=lambda **_: [{"Clusters": []}])
    emr("eu-west-1", get_paginator=lambda _: unseen, describe_cluster=describe_cluster)
    assert freed(run, ended) == []
    state = "TERMINATED"
    assert len(freed(run, ended)) == 1


def test_a_lock_whose_cluster_emr_has_forgotten_is_given_back(run: RunContext) -> None:
    run = replace(run, settings=replace(run.settings, list_consistency_s=0.0))
    run.lock("fruits").take(now() + HOUR)
    run.journal.note("run_job_flow", made="j-FORGOTTEN0000")
    assert len(freed(run, KnownRuns(ended={run.identity.run_id}))) == 1


def test_the_cluster_of_another_deployment_with_the_same_notes_keeps_no_lock(
    make_run: Callable[..., RunContext],
) -> None:
    run = make_run()
    run = replace(run, settings=replace(run.settings, list_consistency_s=0.0))
    other = make_run(settings=replace(run.settings, deployment_id="other-one"))
    theirs = other.client.run_job_flow(**other.body())["JobFlowId"]
    run.lock("fruits").take(now() + HOUR)
    run.journal.note("run_job_flow", made=theirs)
    assert len(freed(run, KnownRuns(ended={run.identity.run_id}))) == 1


def test_another_deployments_lock_is_never_touched(make_run: Callable[..., RunContext]) -> None:
    mine = make_run()
    other = make_run(settings=replace(mine.settings, deployment_id="other-one"))
    for deadline in (now() + HOUR, now() - HOUR):
        other.lock("fruits").take(deadline)
        assert freed(mine, KnownRuns(ended={mine.identity.run_id})) == []
        other.lake.remove(other.lock("fruits").key)


@pytest.mark.parametrize("look", [1, 2])
def test_a_run_that_is_cleared_while_it_is_looked_at_keeps_its_lock(run: RunContext, look: int) -> None:
    run.lock("fruits").take(now() + HOUR)
    assert freed(run, LookedAt(lambda looks: looks < look)) == []


def test_a_run_that_ends_when_its_clusters_are_listed_keeps_its_lock_until_the_next_sweep(
    run: RunContext, emr: Callable[..., None]
) -> None:
    run.lock("fruits").take(now() + HOUR)
    runs, real = KnownRuns(alive={run.identity.run_id}), run.client

    def ends(operation: str) -> Any:
        runs.alive, runs.ended = set(), {run.identity.run_id}
        return real.get_paginator(operation)

    emr("eu-west-1", get_paginator=ends)
    assert freed(run, runs) == [], "it may have made a cluster that this listing does not have"
    runs.alive, runs.ended = set(), {run.identity.run_id}
    assert len(freed(run, runs)) == 1


@pytest.mark.parametrize("further", [timedelta(0), HOUR], ids=["with the same deadline", "for longer"])
def test_a_lock_that_its_run_asks_for_once_more_meanwhile_stays(run: RunContext, further: timedelta) -> None:
    until = now() + HOUR
    run.lock("fruits").take(until)

    def cleared_and_at_work(looks: int) -> None:
        if looks == 2:
            run.lock("fruits").take(until + further)

    assert freed(run, LookedAt(cleared_and_at_work)) == []


def test_a_lock_that_is_taken_over_meanwhile_stays(make_run: Callable[..., RunContext]) -> None:
    run, night = make_run("manual__gone"), make_run("manual__night")
    run.lock("fruits").take(now() - HOUR)

    def overtaken(looks: int) -> None:
        if looks == 2:
            night.lock("fruits").take(now() + HOUR)

    assert freed(run, LookedAt(overtaken)) == []
    holding = night.lock("fruits").read()
    assert holding is not None
    assert holding.owner == night.identity
