"""Compute the features of the images that have none yet from this model.

The driver reads the model once, checks its SHA-256 and broadcasts it; executors turn pixels into 1280 floats each.
Features of images that are gone are removed. Running it again changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from fruits import embedding, job, keras_reference, model, schemas, tables
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

STAGE = "featurize"
ROWS_PER_PARTITION = 10_000
_MAX_RUNS = 100
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


def featurize(run: job.Run) -> None:
    """Broadcast the model, embed what is new, commit `features` once."""
    spark, arguments = run.spark, run.arguments
    artifact = model.read(arguments.model, arguments.model_id, arguments.engine)
    tables.ensure(spark, arguments.database)
    images = spark.table(f"{arguments.database}.images")
    features = spark.table(f"{arguments.database}.features")
    pending = _pending(run, images, features)
    count = pending.count()
    run.say(
        f"{count} of {images.count()} images to compute with model {artifact.model_id[:12]} ({artifact.engine})"
    )

    computed = None
    if count:
        weights: Any = (
            keras_reference.read_weights(artifact.data) if artifact.engine == "tensorflow" else artifact.data
        )
        broadcast = spark.sparkContext.broadcast(weights)
        run.say(f"broadcast {len(artifact.data) / 1e6:.1f} MB of weights")
        mapper = embedding.mapper(broadcast, artifact.model_id, artifact.engine, max(1, arguments.batch_size))
        computed = (
            _pixels(images, pending, count)
            .repartition(job.partitions(count, run.cores, ROWS_PER_PARTITION))
            .mapInArrow(mapper, schemas.spark(schemas.EMBEDDED))
            .withColumns({"model_id": F.lit(artifact.model_id), "run_id": F.lit(arguments.run_id)})
            .persist(StorageLevel.DISK_ONLY)
        )
        run.say(f"{computed.count()} images computed")
    orphans = features.select("image_id", "model_id").join(tables.keys_of(images), "image_id", "left_anti")
    tables.merge(spark, arguments.database, "features", computed, orphans)
    rows = tables.of_model(spark.table(f"{arguments.database}.features"), artifact.model_id).count()
    run.finish(
        {
            "features": {
                "rows": rows,
                "computed": count,
                "model_id": artifact.model_id,
                "engine": artifact.engine,
                "weights": artifact.weights,
            },
            "bytes": {"features": tables.size_bytes(spark, arguments.database, "features")},
        }
    )


def _pending(run: job.Run, images: DataFrame, features: DataFrame) -> DataFrame:
    """Name the images without features of this model for their present content, without touching pixels."""
    wanted = images.select("image_id", "content_sha256", "run_id")
    if not run.arguments.full_refresh:
        done = tables.of_model(features, run.arguments.model_id).select("image_id", "content_sha256")
        wanted = wanted.join(done, ["image_id", "content_sha256"], "left_anti")
    return tables.fixed(wanted)


def _pixels(images: DataFrame, pending: DataFrame, count: int) -> DataFrame:
    """Fetch the pixels of the pending images, from the files of the runs that wrote them where these are few."""
    runs = [row.run_id for row in pending.select("run_id").distinct().limit(_MAX_RUNS + 1).collect()]
    candidates = images.where(F.col("run_id").isin(runs)) if len(runs) <= _MAX_RUNS else images
    ids = tables.keys_of(pending)
    if count <= _BROADCAST_ROWS:
        ids = F.broadcast(ids)
    return candidates.select("image_id", "content_sha256", "pixels").join(ids, "image_id", "left_semi")


if __name__ == "__main__":
    sys.exit(job.main(STAGE, parser(), featurize, None))
