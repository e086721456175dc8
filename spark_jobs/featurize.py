"""Compute the features of the images that have none from this model yet.

The driver reads the model once, checks its SHA-256 and broadcasts it; executors compute the features of each image from
its pixels. The job removes the features of images that are gone. Running it again changes nothing.
"""

import argparse
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from fruits.base import schemas
from fruits.base.batches import Mapper
from fruits.base.errors import ReconciliationError
from fruits.job import job_run
from fruits.lake import align, data_files, tables, writing
from fruits.lake.iceberg import Table
from fruits.model import artifacts, embedding, keras_reference
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

STAGE = "featurize"
ROWS_PER_PARTITION = 10_000
_NAMED_ROWS = 10_000  # these ids are in every task's closure, and looked up for each batch
_BROADCAST_ROWS = 1_000_000


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    parser = job_run.parser(STAGE, __doc__ or "")
    parser.add_argument("--model", required=True, metavar="URI", help="folder of the model: s3://lake/models/ID")
    parser.add_argument("--model-id", required=True, help="SHA-256 that the model's file must have")
    parser.add_argument("--engine", choices=artifacts.ENGINES, help="default: the engine of the model")
    job_run.add_number(parser, "--batch-size", 1, "pictures per call of the model", "N")
    parser.add_argument("--full-refresh", action="store_true", help="compute the features of every image again")
    return parser


@dataclass(frozen=True)
class Counts:
    """Counts of images and their features, aligned by key."""

    images: int  # images
    pending: int  # of them, those without features of this model for their present content
    outdated: int  # of these, those that have features of earlier content
    orphans: int  # images that are gone and still have features, of any model
    of_other_models: int  # rows of features that other models have of these images
    runs: list[str]  # the runs that wrote the pending images' rows


_WORK = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("pending", pa.bool_(), nullable=False),
        pa.field("orphan", pa.bool_(), nullable=False),
    ]
)
"""An image id with work: its features are to be computed, or its image is gone."""


def featurize(run: job_run.Run) -> None:
    """Broadcast the model, embed what is new, commit `features` once."""
    spark, arguments = run.spark, run.arguments
    artifact = artifacts.read(arguments.model, arguments.model_id, arguments.engine)
    tables.ensure(spark, arguments.database)
    work, counts = _work(run)
    run.log(
        f"{counts.pending} of {counts.images} images to compute with model {artifact.model_id[:12]} ({artifact.engine})"
    )
    computed = _compute(run, artifact, work, counts) if counts.pending else None
    orphans = None
    if counts.orphans:
        gone = work.to_join(["image_id"], "orphan")
        features = spark.table(f"{arguments.database}.features").select("image_id", "model_id")
        orphans = features.join(gone, "image_id", "left_semi")
    tables.merge(spark, arguments.database, "features", computed, orphans, only_adds=not counts.outdated)
    run.log(f"{counts.pending} images computed")
    rows = Table(spark, f"{arguments.database}.features").rows - counts.of_other_models
    if rows != counts.images:
        raise ReconciliationError(
            f"{counts.images} images have {rows} rows of features of model {artifact.model_id}: run the job again"
        )
    run.finish(
        {
            "features": {
                "rows": rows,
                "computed": counts.pending,
                "model_id": artifact.model_id,
                "network": artifact.network.name,
                "dims": artifact.network.dims,
                "engine": artifact.engine,
                "weights": artifact.weights,
            },
            "bytes": {"features": tables.size_bytes(spark, arguments.database, "features", rows)},
            "reads": ["images"],
        },
        writes=["features"],
    )


def _compute(
    run: job_run.Run, artifact: artifacts.Artifact, work: align.AlignedRows, counts: Counts
) -> DataFrame | None:
    """Compute the pending features and append them; return them instead where a MERGE must write them."""
    spark, arguments = run.spark, run.arguments
    is_keras = artifact.engine == "tensorflow"
    weights: Any = keras_reference.read_weights(artifact.data) if is_keras else artifact.data
    broadcast = spark.sparkContext.broadcast(weights)
    run.log(f"broadcast {len(artifact.data) / 1e6:.1f} MB of weights")
    batch_size = max(1, arguments.batch_size)
    mapper = embedding.embed_mapper(broadcast, artifact.model_id, artifact.engine, batch_size, artifact.network)
    constants = {"model_id": artifact.model_id, "run_id": arguments.run_id}
    table = Table(spark, f"{arguments.database}.features")
    by_spark = writing.is_left_to_spark(run, table)
    if counts.outdated or counts.orphans or by_spark:
        columns = {name: F.lit(value) for name, value in constants.items()}
        computed = _embedded(run, work, counts, mapper, schemas.EMBEDDING).frame().withColumns(columns)
        return computed.persist(StorageLevel.DISK_ONLY)  # a MERGE evaluates its source more than once
    to_files = writing.file_writer(table, mapper, constants)
    files = _embedded(run, work, counts, to_files, schemas.DATA_FILE).fetch()
    writing.append(spark, table, files)
    return None


def _work(run: job_run.Run) -> tuple[align.AlignedRows, Counts]:
    """Align images and features by key, in one pass that reads neither pixels nor vectors.

    Returns:
        The image ids with something to do (`_WORK`); and the counts, taken in the same pass.
    """
    spark, database = run.spark, run.arguments.database
    sides = (
        align.key_columns(spark, f"{database}.images", content="content_sha256", image_run="run_id"),
        align.key_columns(spark, f"{database}.features", model_id="model_id", of_features="content_sha256"),
    )
    work, tally = align.align(spark, sides, _look(run.arguments.model_id, run.arguments.full_refresh), _WORK)
    return work, Counts(**tally.counts, runs=sorted(tally.runs))


def _look(model_id: str, anew: bool) -> align.Classifier:
    """Look for images without features of a model, or all of them `anew`, and for features without an image."""

    def look(rows: pa.Table) -> tuple[pa.Table, align.Tally]:
        this_model = align.equals(rows["model_id"], model_id)
        of_another = align.is_not_null(rows["model_id"]) & ~this_model
        row = align.group_by_image(
            rows["image_id"],
            {
                "content": rows["content"],
                "image_run": rows["image_run"],
                "done": align.null_unless(this_model, rows["of_features"]),
            },
            {"others": of_another.astype(np.int64)},
        )
        present, done = align.is_not_null(row["content"]), align.is_not_null(row["done"])
        pending = present & (anew | ~align.equals(row["done"], row["content"]))
        counts = align.count_flags(images=present, pending=pending, outdated=pending & done, orphans=~present) | {
            "of_other_models": int(np.asarray(row["others"])[present].sum())
        }
        work = align.with_flags(row, _WORK, pending=pending, orphan=~present).filter(pending | ~present)
        runs = frozenset(row["image_run"].filter(pending).to_pylist())
        return work, align.Tally(counts, runs)

    return look


def _embedded(
    run: job_run.Run, work: align.AlignedRows, counts: Counts, mapper: Mapper, schema: pa.Schema
) -> data_files.MappedRows:
    """Map the pixels of the pending images, read from the files of the runs that wrote them.

    Straight from the files where their row groups spread the work evenly; else Spark's reader and a shuffle do.
    """
    name = f"{run.arguments.database}.images"
    columns = ["image_id", "content_sha256", "pixels"]
    parts = job_run.partition_count(counts.pending, run.cores, ROWS_PER_PARTITION)
    everything = counts.pending == counts.images
    if counts.pending <= (_BROADCAST_ROWS if everything else _NAMED_ROWS):
        where: dict[str, list[str]] = {} if everything else {"run_id": counts.runs}
        pieces = data_files.Selection(run.spark, name, columns, where).slices()
        if pieces is not None and (parts == 1 or data_files.is_balanced(pieces, counts.pending, parts)):
            if not everything:
                where["image_id"] = [row.image_id for row in work.collect(["image_id"], "pending")]
            # Few rows may lie in large files: these every core helps to read.
            hands = run.cores if parts == 1 else parts
            pending = data_files.Selection(run.spark, name, columns, where)
            return pending.map(mapper, schema, hands, pieces, job_run.BATCH_ROWS)
    pixels = run.spark.table(name)
    if not everything:
        ids = work.frame(["image_id"], "pending")
        ids = F.broadcast(ids) if counts.pending <= _BROADCAST_ROWS else ids
        pixels = pixels.where(F.col("run_id").isin(counts.runs)).join(ids, "image_id", "left_semi")
    return data_files.MappedRows(pixels.select(*columns).repartition(parts), mapper, schema)


if __name__ == "__main__":
    sys.exit(job_run.run(STAGE, parser().parse_args(), featurize))
