"""What must be true after a run, whatever broke during it. Each check gives sentences about what is not so.

The checks look from outside: at Airflow's verdict, at EMR's clusters and steps, at the objects in the lake. Tables
come from a reader, so that the same checks serve the scripted runner's JSON and Iceberg.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import NullPool, create_engine, inspect, text

from tests.faults.world import CANARY, RAW_PREFIX, Deployment, Run

STAGES = ("load_images", "featurize", "reduce_pca", "publish")
TABLES = ("images", "rejects", "features", "pca", "pca_models", "classifiers", "predictions")
# differ between two runs that did the same work
_OF_THE_RUN = frozenset({"run_id", "features_run_id", "features_snapshot", "loaded_at", "published_at", "order"})

Row = Mapping[str, Any]
Found = Iterator[str]


class TablesUnreadable(Exception):
    """A table is not at a whole snapshot."""


class TableReader(Protocol):
    """Reads the tables of a deployment's nightly database."""

    def __call__(self, deployment: Deployment) -> dict[str, list[Row]]:
        """The rows of each table; absent tables are empty, and one that this runner does not know is not named.

        Raises:
            TablesUnreadable: a table names what is not there.
        """


@dataclass
class Aftermath:
    """Everything that the checks look at.

    Attributes:
        deployment: where.
        run: as Airflow has it.
        tables: as they are now.
        clusters: most clusters that the run may have had, one after the other.
        listed: keys that the run saw; None takes all photos of the deployment.
        red_though_published: what went wrong came after publishing, as a cluster that will not end does.
        canaries: texts that must be nowhere in the lake.
    """

    deployment: Deployment
    run: Run
    tables: dict[str, list[Row]]
    clusters: int = 1
    listed: Sequence[str] | None = None
    red_though_published: bool = False
    canaries: Sequence[str] = (CANARY,)
    own_clusters: list[dict[str, Any]] = field(default_factory=list)

    @property
    def record(self) -> dict[str, Any] | None:
        """The run's run.json."""
        return self.deployment.record(self.run.run_id)

    @property
    def succeeded(self) -> bool:
        """Whether run.json says that the run published."""
        return (self.record or {}).get("state") == "succeeded"


def check(
    deployment: Deployment,
    run: Run,
    read: TableReader,
    *,
    clusters: int = 1,
    listed: Sequence[str] | None = None,
    red_though_published: bool = False,
) -> list[str]:
    """Every broken invariant, as `name: what`; empty when all hold."""
    try:
        tables = read(deployment)
    except TablesUnreadable as error:
        return [f"whole_snapshots: {error}"]
    found = Aftermath(deployment, run, tables, clusters, listed, red_though_published)
    name = f"{deployment.cluster_prefix}fruits_pipeline/{run.run_id}"
    found.own_clusters = [c for c in deployment.aws.clusters(name) if c["Name"] == name]
    return [f"{one.__name__}: {sentence}" for one in CHECKS for sentence in one(found)]


def _repeated(values: Iterable[Hashable]) -> list[Hashable]:
    """The values that are there more than once."""
    return [value for value, times in Counter(values).items() if times > 1]


def every_photo_is_accounted_for(found: Aftermath) -> Found:
    """In = features + rejects, by key, of a run that succeeded; nothing is ever in both."""
    ids = {name: [row["image_id"] for row in found.tables[name]] for name in ("images", "rejects", "features")}
    for name, column in ids.items():
        if twice := _repeated(column):
            yield f"{len(twice)} keys are more than once in {name}"
    if both := set(ids["images"]) & set(ids["rejects"]):
        yield f"{len(both)} keys are images and rejects"
    if not found.succeeded:
        return
    keys = found.listed if found.listed is not None else found.deployment.photo_bodies()
    wanted = {hashlib.sha256(key.encode()).hexdigest() for key in keys if key.startswith(RAW_PREFIX)}
    have = set(ids["features"]) | set(ids["rejects"])
    if missing := wanted - have:
        yield f"{len(missing)} of {len(wanted)} photos are neither features nor rejects"
    if extra := have - wanted:
        yield f"{len(extra)} features or rejects have no photo"
    if set(ids["images"]) != set(ids["features"]):
        yield "images and features have different keys"
    contents = {row["image_id"]: row["content_sha256"] for row in found.tables["images"]}
    stale = [r for r in found.tables["features"] if contents.get(r["image_id"]) != r["content_sha256"]]
    if stale:
        yield f"{len(stale)} features are of other pixels than their image"


def no_cluster_lives(found: Aftermath) -> Found:
    """No cluster of the deployment, by its tags or its name, is alive or on its way out in any region of a run."""
    for region, cluster in found.deployment.live_clusters():
        yield f"{cluster['Id']} of {cluster['Name']} is {cluster['Status']['State']} in {region}"


def the_pca_is_of_one_basis(found: Aftermath) -> Found:
    """The current model has all its rows, and is over exactly the features of its night.

    What is current is what `current_pca` of spark_jobs/fruits/lake/tables.py gives: the rows of `pca` with the pca_id
    that
    `pca_models` names last by published_at. It is a query and no view, as Glue's Iceberg catalog has none; there is
    nothing of that name to read.
    """
    rows = Counter(row["pca_id"] for row in found.tables["pca"])
    models = _by_publication(found.tables["pca_models"])
    for model in models[-1:]:
        if rows[model["pca_id"]] != model["n"]:
            yield f"the current model is of {model['n']} rows, and {rows[model['pca_id']]} are there"
    if twice := _repeated((row["image_id"], row["pca_id"]) for row in found.tables["pca"]):
        yield f"{len(twice)} projections are there more than once"
    if found.succeeded and models:
        current = {row["image_id"] for row in found.tables["pca"] if row["pca_id"] == models[-1]["pca_id"]}
        if current != {row["image_id"] for row in found.tables["features"]}:
            yield "the current projection and the features have different keys"
    if found.succeeded and not models:
        yield "the run says it published, and there is no model"


def what_is_kept_is_of_the_features(found: Aftermath) -> Found:
    """The sums and the sample that nights keep for the next are of the images that are there."""
    features = Counter(row["model_id"] for row in found.tables["features"])
    if found.succeeded and "pca_sums" in found.tables:
        kept = {row["model_id"]: row["n"] for row in found.tables["pca_sums"]}
        if kept != dict(features):
            yield f"the kept sums are of {kept}, the features of {dict(features)}"
    if found.succeeded and "samples" in found.tables:
        images = {row["image_id"] for row in found.tables["images"]}
        if gone := {row["image_id"] for row in found.tables["samples"]} - images:
            yield f"{len(gone)} images of the sample are gone"


def the_names_are_of_one_classifier(found: Aftermath) -> Found:
    """The current classifier has named the photos, each once, by a PCA model that is kept; after a night that
    published, all photos as they are, and nothing of another classifier is left.
    """
    classifiers, names = found.tables["classifiers"], found.tables["predictions"]
    ids = [row["classifier_id"] for row in classifiers]
    if len(ids) > 1:
        yield f"{len(ids)} classifiers are current"
    if twice := _repeated((row["image_id"], row["classifier_id"]) for row in names):
        yield f"{len(twice)} photos have two names of one classifier"
    models = {row["pca_id"] for row in found.tables["pca_models"]}
    if lost := {row["pca_id"] for row in classifiers} - models:
        yield f"the classifier is for the PCA model {', '.join(lost)}, which is not kept"
    own = {row["image_id"]: row["content_sha256"] for row in names if row["classifier_id"] in ids}
    if ids and not own:
        yield "the current classifier has named no photo"
    if not found.succeeded:
        return
    if len(own) < len(names):
        yield f"{len(names) - len(own)} names are of no current classifier"
    if ids and own != {row["image_id"]: row["content_sha256"] for row in found.tables["features"]}:
        yield "the names are not of the photos as they are"
    if (said := ((found.record or {}).get("classifier") or {}).get("classifier_id")) not in (ids or [None]):
        yield f"run.json says that the classifier {said} is current, and it is not"


def nothing_is_left_half_done(found: Aftermath) -> Found:
    """No open upload, no lock, no temporary object; a run that is over has not begun."""
    deployment, s3 = found.deployment, found.deployment.aws.client("s3")
    for upload in s3.list_multipart_uploads(Bucket=deployment.lake).get("Uploads", []):
        yield f"an upload of {upload['Key']} is open"
    for key in deployment.aws.keys(deployment.lake):
        if key.startswith("locks/"):
            yield f"{key} is still there"
        if "_temporary" in key or key.endswith((".tmp", ".inprogress")):
            yield f"{key} is unfinished"
    state = deployment.aws.read(deployment.lake, f"state/{deployment.database}.json")
    if found.succeeded and state is not None and json.loads(state).get("begun"):
        yield "the run succeeded, and the database's state still says begun"


def nothing_was_done_twice(found: Aftermath) -> Found:
    """At most one cluster at a time, as many as the fault allows, and one good attempt per stage."""
    spans = []
    for cluster in found.own_clusters:
        timeline = cluster["Status"]["Timeline"]
        spans.append((timeline["CreationDateTime"], timeline.get("EndDateTime"), cluster["Id"]))
    if len(spans) > found.clusters:
        yield f"{len(spans)} clusters were made for one run; {found.clusters} at most"
    for (_, ended, one), (made, _, other) in itertools.pairwise(spans):
        if ended is None or ended > made:
            yield f"{other} was made while {one} lived"
    done = Counter(
        step["Name"].split("/")[0]
        for cluster in found.own_clusters
        for step in cluster["Steps"]
        if step["Status"]["State"] == "COMPLETED"
    )
    for stage in STAGES:
        if done[stage] > 1:
            yield f"{stage} was completed {done[stage]} times"
        if found.succeeded and not done[stage]:
            yield f"the run succeeded, and {stage} was never completed"


def the_run_tells_the_truth(found: Aftermath) -> Found:
    """run.json and Airflow agree with each other and with what was published."""
    record, airflow = found.record, found.run.state
    if record is None:
        yield f"Airflow says {airflow}, and there is no run.json"
        return
    expected = {"succeeded": "success", "skipped": "success", "failed": "failed", "refused": "failed"}
    if expected[record["state"]] != airflow:
        yield f"run.json says {record['state']}, Airflow {airflow}"
    if record["run_id"] != found.run.run_id:
        yield f"run.json is of {record['run_id']}"
    if record["state"] == "failed" and not record["reason"]:
        yield "run.json gives no reason for the failure"
    own = [row["pca_id"] for row in found.tables["pca_models"] if row.get("run_id") == found.run.run_id]
    if record["state"] != "succeeded" and own:
        if not found.red_though_published:
            yield f"run.json says {record['state']}, and the run has published {', '.join(own)}"
        elif record["pca"]["pca_id"] not in own:
            yield f"run.json does not say that the run has published {', '.join(own)}"
    if record["state"] != "succeeded":
        return
    if record["cluster"]["state"] not in ("TERMINATED", "TERMINATED_WITH_ERRORS"):
        yield f"run.json says succeeded, and that its cluster is {record['cluster']['state']}"
    published = {row["pca_id"] for row in found.tables["pca_models"]}
    if record["pca"]["pca_id"] not in published:
        yield f"run.json says that {record['pca']['pca_id']} was published, and it was not"
    counts = record["images"]
    if counts["loaded"] + counts["rejected"] != counts["new"]:
        yield f"run.json counts {counts['loaded']} + {counts['rejected']} of {counts['new']} new photos"


def no_metadata_is_anywhere(found: Aftermath) -> Found:
    """What was planted in the photos' metadata is in no object of the lake, and in no file or table of an Airflow.

    The lake has the logs of steps and the run folders; an Airflow's home has its logs, and its metadata database has
    XComs, rendered fields, the runs' parameters and the triggers' arguments.
    """
    needles = [one.encode() for one in found.canaries]
    aws, lake = found.deployment.aws, found.deployment.lake
    for key in aws.keys(lake):
        content = aws.read(lake, key) or b""
        if any(needle in part for part in _readable(key, content) for needle in needles):
            yield f"{key} holds metadata"
    for home in found.deployment.airflow_homes:
        for path in home.rglob("*"):
            if path.is_file() and any(needle in path.read_bytes() for needle in needles):
                yield f"{path} holds metadata"
    for url in found.deployment.metadata_databases:
        yield from _metadata_in_database(url, needles)


CHECKS: tuple[Callable[[Aftermath], Found], ...] = (
    every_photo_is_accounted_for,
    no_cluster_lives,
    the_pca_is_of_one_basis,
    what_is_kept_is_of_the_features,
    the_names_are_of_one_classifier,
    nothing_is_left_half_done,
    nothing_was_done_twice,
    the_run_tells_the_truth,
    no_metadata_is_anywhere,
)


def digest(tables: Mapping[str, Iterable[Row]]) -> str:
    """SHA-256 over what the tables say, without which run said it and when; equal for equal results.

    The basis before the current one is left out: it is there for a way back.
    """
    models = _by_publication(tables["pca_models"])[-1:]
    current = {model["pca_id"] for model in models}
    rows = [row for row in tables["pca"] if row["pca_id"] in current]
    ids = {row["classifier_id"] for row in tables["classifiers"]}
    names = [row for row in tables["predictions"] if row["classifier_id"] in ids]
    tables = {**tables, "pca_models": models, "pca": rows, "predictions": names}
    said = {
        name: sorted(
            json.dumps({k: _rounded(v) for k, v in row.items() if k not in _OF_THE_RUN}, sort_keys=True, default=_hex)
            for row in rows
        )
        for name, rows in tables.items()
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _rounded(value: Any) -> Any:
    """A confidence without its last bits, which depend on how many photos are named in one product of matrices."""
    return round(value, 9) if isinstance(value, float) else value


def _by_publication(models: Iterable[Row]) -> list[Row]:
    return sorted(models, key=lambda row: row.get("order", row.get("published_at")))


def scripted_tables(deployment: Deployment) -> dict[str, list[Row]]:
    """The tables that `spark-submit` beside this file writes.

    Raises:
        TablesUnreadable: a pointer names a file that is not there or has another number of rows.
    """
    tables: dict[str, list[Row]] = {}
    for name in TABLES:
        place = f"tables/{deployment.database}/{name}"
        pointer = deployment.aws.read(deployment.lake, f"{place}/current.json")
        tables[name] = []
        if pointer is None:
            continue
        said = json.loads(pointer)
        content = deployment.aws.read(deployment.lake, f"{place}/{said['file']}")
        if content is None:
            raise TablesUnreadable(f"{name} names {said['file']}, which is not there")
        rows = json.loads(content)
        if len(rows) != said["rows"]:
            raise TablesUnreadable(f"{name} says {said['rows']} rows and has {len(rows)}")
        by_image = name in ("images", "rejects", "features")
        tables[name] = [{"image_id": key, **row} if by_image else row for key, row in rows.items()]
    return tables


def _readable(key: str, content: bytes) -> Iterator[bytes]:
    """An object's bytes, and what is inside when it is compressed."""
    yield content
    if content[:2] == b"\x1f\x8b":
        yield gzip.decompress(content)
    if content[:4] == b"PAR1":
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(io.BytesIO(content)).iter_batches():
            for row in batch.to_pylist():
                for value in row.values():
                    yield _bytes(value)


def _metadata_in_database(url: str, needles: Sequence[bytes]) -> Found:
    """Each column of each table that has one of the needles."""
    with create_engine(url, poolclass=NullPool).connect() as connection:
        tables = inspect(connection).get_table_names()
        if "xcom" not in tables:
            yield f"{url} is no metadata database of an Airflow: nothing was looked through"
        for table in tables:
            rows = connection.execute(text(f'SELECT * FROM "{table}"')).mappings()
            cells = ((column, _bytes(value)) for row in rows for column, value in row.items())
            for column in sorted({c for c, value in cells if any(needle in value for needle in needles)}):
                yield f"{table}.{column} of {url} holds metadata"


def _bytes(value: object) -> bytes:
    return bytes(value) if isinstance(value, (bytes, memoryview)) else str(value).encode()


def _hex(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
