"""The checker itself: a sound aftermath breaks nothing, and each kind of damage is found by the check it is for."""

from __future__ import annotations

import copy
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Integer, NullPool, Table, create_engine, text

from tests.faults import invariants
from tests.faults.invariants import Aftermath
from tests.faults.postgres import Postgres
from tests.faults.world import CANARY, MODEL, REGION, Deployment, Run, closing_all

RUN = "manual__1"
START = datetime(2026, 1, 1, tzinfo=UTC)


def image_id(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class Sound:
    """A deployment after a run in which all went well: two photos, one of them broken."""

    def __init__(self, home: Path) -> None:
        self.home, self.databases = home, list[str]()
        good, bad = "images/a.jpg", "images/b.jpg"
        self.photos = {good: b"", bad: b""}
        photo_id = image_id(good)
        self.tables: dict[str, list[Any]] = {
            "images": [{"image_id": photo_id, "content_sha256": "c"}],
            "rejects": [{"image_id": image_id(bad)}],
            "features": [{"image_id": photo_id, "model_id": MODEL, "content_sha256": "c"}],
            "pca": [{"image_id": photo_id, "pca_id": "p"}],
            "pca_models": [{"pca_id": "p", "n": 1, "order": 1, "run_id": RUN}],
            "pca_sums": [{"model_id": MODEL, "n": 1}],
            "samples": [{"image_id": photo_id}],
            "classifiers": [{"classifier_id": "k", "pca_id": "p"}],
            "predictions": [{"image_id": photo_id, "classifier_id": "k", "content_sha256": "c"}],
        }
        self.record: dict[str, Any] = {
            **{"run_id": RUN, "state": "succeeded", "reason": "", "pca": {"pca_id": "p"}},
            "classifier": {"classifier_id": "k"},
            **{"cluster": {"state": "TERMINATED"}, "images": {"loaded": 1, "rejected": 1, "new": 2}},
        }
        self.objects: dict[str, bytes] = {"state/db.json": b'{"begun": null}', "logs/x.gz": gzip.compress(b"fine")}
        self.uploads: list[dict[str, str]] = []
        self.clusters = [cluster("j-1", START, *invariants.STAGES)]
        self.airflow = "success"

    def check(self, allowed: int = 1, **more: bool) -> list[str]:
        aws = SimpleNamespace(
            clusters=lambda prefix, states, region: [
                c for c in self.clusters if c["Status"]["State"] in states and c["Region"] == region
            ],
            keys=lambda bucket: list(self.objects),
            read=lambda bucket, key: self.objects.get(key),
            client=lambda service: SimpleNamespace(list_multipart_uploads=lambda **_: {"Uploads": self.uploads}),
        )
        deployment: Any = SimpleNamespace(
            **{"aws": aws, "lake": "lake", "database": "db", "name": "x", "cluster_prefix": "fruits/x/"},
            live_clusters=lambda: Deployment.live_clusters(deployment),
            record=lambda run_id: copy.deepcopy(self.record),
            photo_bodies=lambda: self.photos,
            airflow_homes=[self.home],
            metadata_databases=self.databases,
        )
        found = Aftermath(deployment, Run(RUN, self.airflow, {}), self.tables, clusters=allowed, **more)
        found.own_clusters = self.clusters
        return [f"{one.__name__}: {sentence}" for one in invariants.CHECKS for sentence in one(found)]


def cluster(name: str, made: datetime, *stages: str, state: str = "TERMINATED") -> dict[str, Any]:
    timeline = {"CreationDateTime": made, "EndDateTime": made + timedelta(minutes=9)}
    steps = [{"Name": f"{stage}/1", "Status": {"State": "COMPLETED"}} for stage in stages]
    return {
        **{"Id": name, "Name": "fruits/x/", "Region": REGION, "Steps": steps},
        **{"Tags": [{"Key": "deployment", "Value": "x"}], "Status": {"State": state, "Timeline": timeline}},
    }


def lives(**changes: Any) -> Callable[[Sound], Any]:
    """A cluster lives, and is not quite where one looks first."""
    return lambda w: w.clusters.append(cluster("j-9", START, state="RUNNING") | changes)


def ends_red(world: Sound) -> None:
    world.record.update(state="failed", reason="x")
    world.airflow = "failed"


def parquet(text: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table({"detail": [text] * 3}), sink, compression="zstd")
    return sink.getvalue()


def row(**values: Any) -> Callable[[Any], Any]:
    return lambda rows: rows.append({**rows[0], **values})


DAMAGE: dict[str, tuple[str, Callable[[Sound], Any]]] = {
    "a photo is missing": ("every_photo", lambda w: w.tables["rejects"].clear()),
    "a photo too many": ("every_photo", lambda w: w.photos.pop("images/b.jpg")),
    "a feature is there twice": ("every_photo", lambda w: row()(w.tables["features"])),
    "an image is a reject": ("every_photo", lambda w: row(image_id=image_id("images/a.jpg"))(w.tables["rejects"])),
    "an image without features": ("every_photo", lambda w: row(image_id="other")(w.tables["images"])),
    "features of other pixels": ("every_photo", lambda w: w.tables["features"][0].update(content_sha256="old")),
    "a live cluster": ("no_cluster", lambda w: w.clusters[0]["Status"].update(State="WAITING")),
    "a cluster on its way out": ("no_cluster", lambda w: w.clusters[0]["Status"].update(State="TERMINATING")),
    "a live cluster of another name": ("no_cluster", lives(Name="somebody's")),
    "a live cluster without tags": ("no_cluster", lives(Tags=[])),
    "a live cluster in another region": ("no_cluster", lives(Region="eu-south-2")),
    "a live cluster in the sovereign cloud": ("no_cluster", lives(Region="eusc-de-east-1")),
    "a projection is missing": ("the_pca", lambda w: w.tables["pca"].clear()),
    "a projection of another basis": ("the_pca", lambda w: w.tables["pca"][0].update(pca_id="q")),
    "a projection is there twice": ("the_pca", lambda w: row()(w.tables["pca"])),
    "nothing is published": ("the_pca", lambda w: w.tables["pca_models"].clear()),
    "sums of other features": ("what_is_kept", lambda w: w.tables["pca_sums"][0].update(n=2)),
    "sums of no features": ("what_is_kept", lambda w: row(model_id="old")(w.tables["pca_sums"])),
    "a sample of an image that is gone": ("what_is_kept", lambda w: w.tables["samples"][0].update(image_id="gone")),
    "a second classifier": ("the_names", lambda w: row(classifier_id="l")(w.tables["classifiers"])),
    "a photo with two names": ("the_names", lambda w: row()(w.tables["predictions"])),
    "a photo without a name": ("the_names", lambda w: w.tables["predictions"].clear()),
    "a name of other pixels": ("the_names", lambda w: w.tables["predictions"][0].update(content_sha256="old")),
    "a name of a photo that is gone": ("the_names", lambda w: row(image_id="gone")(w.tables["predictions"])),
    "names of a classifier that is gone": ("the_names", lambda w: row(classifier_id="l")(w.tables["predictions"])),
    "a classifier of no PCA model": ("the_names", lambda w: w.tables["classifiers"][0].update(pca_id="q")),
    "a record of another classifier": ("the_names", lambda w: w.record["classifier"].update(classifier_id="l")),
    "an open upload": ("nothing_is_left", lambda w: w.uploads.append({"Key": "k"})),
    "a lock": ("nothing_is_left", lambda w: w.objects.update({"locks/db.json": b"{}"})),
    "a temporary object": ("nothing_is_left", lambda w: w.objects.update({"tables/_temporary/0": b""})),
    "a night that has begun": (
        "nothing_is_left",
        lambda w: w.objects.update({"state/db.json": b'{"begun": {"run_id": "x"}}'}),
    ),
    "a second cluster": ("nothing_was_done", lambda w: w.clusters.append(cluster("j-2", START + timedelta(hours=1)))),
    "a stage done twice": ("nothing_was_done", lambda w: w.clusters[0]["Steps"].append(w.clusters[0]["Steps"][1])),
    "a stage never done": ("nothing_was_done", lambda w: w.clusters[0]["Steps"].pop()),
    "green but not published": ("the_run", lambda w: w.record.update(state="failed", reason="x")),
    "red but published": ("the_run", lambda w: setattr(w, "airflow", "failed")),
    "no reason for red": ("the_run", lambda w: (w.record.update(state="failed"), setattr(w, "airflow", "failed"))),
    "red, and it has published": ("the_run", ends_red),
    "another run's record": ("the_run", lambda w: w.record.update(run_id="other")),
    "a record that forgot its cluster": ("the_run", lambda w: w.record["cluster"].update(state="RUNNING")),
    "a record of another model": ("the_run", lambda w: w.record["pca"].update(pca_id="z")),
    "a record that counts wrong": ("the_run", lambda w: w.record["images"].update(loaded=5)),
    "metadata in a table": ("no_metadata", lambda w: w.objects.update({"tables/t/d.json": CANARY.encode()})),
    "metadata in a compressed log": (
        "no_metadata",
        lambda w: w.objects.update({"logs/y.gz": gzip.compress(CANARY.encode())}),
    ),
    "metadata in a Parquet file": ("no_metadata", lambda w: w.objects.update({"t.parquet": parquet(CANARY)})),
    "metadata in a task's log": ("no_metadata", lambda w: (w.home / "attempt=1.log").write_text(CANARY)),
}


@pytest.fixture
def world(tmp_path: Path) -> Sound:
    return Sound(tmp_path)


def test_a_sound_world_breaks_nothing(world: Sound) -> None:
    assert world.check() == []


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found_by_the_check_it_is_for(world: Sound, what: str) -> None:
    check, damage = DAMAGE[what]
    damage(world)
    assert [sentence for sentence in world.check() if sentence.startswith(check)], world.check()


@pytest.fixture
def metadata_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The tables of an Airflow, without their foreign keys' parents."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('metadata') / 'airflow.db'}"
        return
    server = Postgres()
    with closing_all(server):
        yield server.url


# as Airflow writes them: JSON, a pickle, plain text
PLANTED: list[tuple[str, dict[str, Any]]] = [
    ("xcom.value", {"value": {"exif": [{"ImageDescription": f"at {CANARY}"}]}}),
    ("rendered_task_instance_fields.rendered_fields", {"rendered_fields": {"conf": CANARY}}),
    ("task_instance.executor_config", {"executor_config": {"env": CANARY}}),
    ("import_error.stacktrace", {"stacktrace": f"KeyError: {CANARY}"}),
]


def required(table: Table) -> dict[str, Any]:
    """Any values for the columns that must have one."""
    columns = [c for c in table.columns if not (c.nullable or c.default or c.server_default)]
    return {c.name: 1 if isinstance(c.type, Integer) else "x" for c in columns}


@pytest.mark.parametrize(
    "metadata_database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)
def test_metadata_in_airflows_database_is_found(world: Sound, metadata_database: str) -> None:
    from airflow.models import import_all_models
    from airflow.models.base import Base

    import_all_models()
    engine = create_engine(metadata_database, poolclass=NullPool)
    world.databases.append(metadata_database)
    assert ["no metadata database" in sentence for sentence in world.check()] == [True]
    Base.metadata.create_all(engine)
    assert world.check() == []
    for place, values in PLANTED:
        table = Base.metadata.tables[place.partition(".")[0]]
        with engine.begin() as connection:
            if engine.name == "postgresql":
                connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(table.insert().values(**required(table) | values))
        assert world.check() == [f"no_metadata_is_anywhere: {place} of {metadata_database} holds metadata"]
        with engine.begin() as connection:
            connection.execute(table.delete())


def test_a_run_without_a_record_is_not_truthful(world: Sound) -> None:
    world.record = None  # type: ignore[assignment]
    assert any("no run.json" in sentence for sentence in world.check())


def test_a_red_run_that_could_not_help_having_published_says_so(world: Sound) -> None:
    ends_red(world)
    assert world.check(red_though_published=True) == []
    world.record["pca"]["pca_id"] = None
    assert any("does not say" in sentence for sentence in world.check(red_though_published=True))


def test_a_cluster_of_another_deployment_may_live(world: Sound) -> None:
    lives(Name="fruits/other/", Tags=[{"Key": "deployment", "Value": "other"}])(world)
    assert not [one for one in world.check(allowed=2) if one.startswith("no_cluster")]


def test_two_clusters_may_follow_but_not_overlap(world: Sound) -> None:
    world.clusters = [
        cluster("j-1", START, "load_images"),
        cluster("j-2", START + timedelta(hours=1), "featurize", "reduce_pca", "publish"),
    ]
    assert world.check(allowed=2) == []
    world.clusters[1]["Status"]["Timeline"]["CreationDateTime"] = START + timedelta(minutes=5)
    assert any("while j-1 lived" in sentence for sentence in world.check(allowed=2))


@pytest.mark.parametrize("pointer", [{"file": "gone.json", "rows": 1}, {"file": "data.json", "rows": 2}])
def test_a_table_that_is_not_whole_is_found(pointer: dict[str, Any]) -> None:
    objects = {"tables/db/images/current.json": json.dumps(pointer), "tables/db/images/data.json": '{"a": {}}'}
    read = {key: text.encode() for key, text in objects.items()}
    aws = SimpleNamespace(read=lambda bucket, key: read.get(key))
    deployment: Any = SimpleNamespace(aws=aws, lake="lake", database="db")
    assert [
        s.partition(":")[0] for s in invariants.check(deployment, Run(RUN, "success", {}), invariants.scripted_tables)
    ] == ["whole_snapshots"]


def test_equal_results_of_two_runs_have_one_digest_and_others_do_not(world: Sound) -> None:
    tables = world.tables
    again = copy.deepcopy(tables)
    for rows in again.values():
        rows.reverse()
        for one in rows:
            one["run_id"] = "another"
    assert invariants.digest(again) == invariants.digest(tables)
    again["pca_models"].append({"pca_id": "older", "n": 7, "order": 0})
    again["pca"].append({"image_id": "gone", "pca_id": "older"})
    assert invariants.digest(again) == invariants.digest(tables), "kept for a way back"
    again["predictions"].append({"image_id": "x", "classifier_id": "of a killed night"})
    assert invariants.digest(again) == invariants.digest(tables), "no reader sees it"
    again["features"][0]["content_sha256"] = "x"
    assert invariants.digest(again) != invariants.digest(tables)
