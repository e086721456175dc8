"""Compute the features of the images that have none yet from this model.

The driver reads the model once, checks its SHA-256 and broadcasts it; executors turn pixels into 1280 floats each.
Features of images that are gone are removed. Running it again changes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from typing import Any

from fruits import beside, embedding, job, keras_reference, model, schemas, tables
from fruits.errors import ReconciliationError
from fruits.iceberg import Table
from pyspark import StorageLevel
from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

STAGE = "featurize"
ROWS_PER_PARTITION = 10_000
_BROADCAST_ROWS = 1_000_000


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    made = job.parser(STAGE, __doc__ or "")
    made.add_argument(
        "--model", required=True, metavar="URI", help="folder of the model: s3://lake/models/ID"
    )
    made.add_argument("--model-id", required=True, help="SHA-256 that the model's file must have")
    made.add_argument("--engine", choices=model.ENGINES, help="default: the one that the model is for")
    made.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="pictures per call of the model (default %(default)s)",
    )
    made.add_argument("--full-refresh", action="store_true", help="compute the features of every image again")
    return made


@dataclass(frozen=True)
class Counts:
    """What the images and their features amount to, laid side by side by key.

    Attributes:
        images: Images.
        pending: Of them, those without features of this model for their present content.
        outdated: Of these, those that have features of earlier content.
        orphans: Images that are gone and still have features, of whatever model.
        of_other_models: Rows of features that other models have of these images.
        runs: The runs that wrote the pending images' rows, as a JSON list.
    """

    images: int
    pending: int
    outdated: int
    orphans: int
    of_other_models: int
    runs: str


def featurize(run: job.Run) -> None:
    """Broadcast the model, embed what is new, commit `features` once."""
    spark, arguments = run.spark, run.arguments
    artifact = model.read(arguments.model, arguments.model_id, arguments.engine)
    tables.ensure(spark, arguments.database)
    images = spark.table(f"{arguments.database}.images")
    features = spark.table(f"{arguments.database}.features")
    work, counts = _work(run)
    run.say(
        f"{counts.pending} of {counts.images} images to compute with model {artifact.model_id[:12]} "
        f"({artifact.engine})"
    )

    computed = None
    if counts.pending:
        weights: Any = (
            keras_reference.read_weights(artifact.data) if artifact.engine == "tensorflow" else artifact.data
        )
        broadcast = spark.sparkContext.broadcast(weights)
        run.say(f"broadcast {len(artifact.data) / 1e6:.1f} MB of weights")
        mapper = embedding.mapper(broadcast, artifact.model_id, artifact.engine, max(1, arguments.batch_size))
        computed = (
            _pixels(images, work, counts)
            .repartition(job.partitions(counts.pending, run.cores, ROWS_PER_PARTITION))
            .mapInArrow(mapper, schemas.spark(schemas.EMBEDDED))
            .withColumns({"model_id": F.lit(artifact.model_id), "run_id": F.lit(arguments.run_id)})
        )
        if counts.outdated or counts.orphans:
            # A MERGE evaluates its source more than once.
            computed = computed.persist(StorageLevel.DISK_ONLY)
    orphans = features.select("image_id", "model_id").join(
        tables.keys_of(work.where("NOT pending")), "image_id", "left_semi"
    )
    tables.merge(
        spark,
        arguments.database,
        "features",
        computed,
        orphans if counts.orphans else None,
        only_adds=not counts.outdated,
    )
    run.say(f"{counts.pending} images computed")
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
                "engine": artifact.engine,
                "weights": artifact.weights,
            },
            "bytes": {"features": tables.size_bytes(spark, arguments.database, "features", rows)},
        }
    )


def _work(run: job.Run) -> tuple[DataFrame, Counts]:
    """Lay images and features side by side, once, without touching pixels or vectors.

    Returns:
        The image ids with something to do, each with a flag `pending` (else its image is gone); and the counts,
        taken in the same pass.
    """
    spark, database = run.spark, run.arguments.database
    sides = (
        beside.side(spark, f"{database}.images", content="content_sha256", image_run="run_id"),
        beside.side(spark, f"{database}.features", model_id="model_id", of_features="content_sha256"),
    )
    this_model = F.col("model_id") == F.lit(run.arguments.model_id)
    laid = beside.together(sides).agg(
        F.max("content").alias("content"),
        F.max("image_run").alias("image_run"),
        F.max(F.when(this_model, F.col("of_features"))).alias("done"),
        F.count_if(~this_model).alias("others"),
    )
    present, current = F.col("content").isNotNull(), F.col("done").eqNullSafe(F.col("content"))
    pending = present & (F.lit(run.arguments.full_refresh) | ~current)
    observed = Observation("work")
    rows = laid.withColumn("pending", pending).observe(
        observed,
        F.count_if(present).alias("images"),
        F.count_if("pending").alias("pending"),
        F.count_if(F.col("pending") & F.col("done").isNotNull()).alias("outdated"),
        F.count_if(~present).alias("orphans"),
        F.coalesce(F.sum(F.when(present, F.col("others"))), F.lit(0)).alias("of_other_models"),
        F.to_json(F.collect_set(F.when(F.col("pending"), F.col("image_run")))).alias("runs"),
    )
    work = beside.held(sides, rows.where(F.col("pending") | ~present).select("image_id", "pending"))
    return work, Counts(**observed.get)


def _pixels(images: DataFrame, work: DataFrame, counts: Counts) -> DataFrame:
    """Fetch the pixels of the pending images, from the files of the runs that wrote them."""
    columns = ("image_id", "content_sha256", "pixels")
    if counts.pending == counts.images:
        return images.select(*columns)
    candidates = images.where(F.col("run_id").isin(json.loads(counts.runs)))
    ids = tables.keys_of(work.where("pending"))
    if counts.pending <= _BROADCAST_ROWS:
        ids = F.broadcast(ids)
    return candidates.select(*columns).join(ids, "image_id", "left_semi")


if __name__ == "__main__":
    sys.exit(job.main(STAGE, parser(), featurize, None))
