"""Check the run and publish its PCA: the rows of `pca`, the exports, and last the row of `pca_models`.

That last commit is the publication: until it is there, readers see the PCA published before. When a check fails
nothing is published, the failing checks are in stages/publish.json, and the exit status is 3.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from fruits import export, job, keys, pca, quality, schemas, tables
from fruits.batches import matrix
from fruits.embedding import DIMS
from fruits.errors import InputError, QualityGateError
from fruits.objects import join
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

STAGE = "publish"
SAMPLE_ROWS = 600
NEIGHBOUR_ROWS = 2_000
SEED = 20


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    made = job.parser(STAGE, __doc__ or "")
    made.add_argument("--model-id", required=True, help="the model whose features were reduced")
    made.add_argument(
        "--max-reject-rate",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="fail when more of the listed objects than this are rejects (default %(default)s)",
    )
    return made


def publish(run: job.Run) -> None:
    """Project, judge, commit `pca`, export, and publish with the last commit."""
    spark, arguments = run.spark, run.arguments
    fitted = pca.load(join(arguments.run_folder, "pca_model.npz"))
    if fitted.model_id != arguments.model_id:
        raise InputError(
            f"the run's PCA is of model {fitted.model_id}, asked for was {arguments.model_id}: run reduce_pca again"
        )
    tables.ensure(spark, arguments.database)
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "1024")  # rows of 5 kB, not of pixels
    images = spark.table(f"{arguments.database}.images")
    features = tables.of_model(spark.table(f"{arguments.database}.features"), arguments.model_id)
    projected = _projected(features, images, fitted).persist(StorageLevel.DISK_ONLY)

    checks = quality.gate(_facts(run, images, features, projected, fitted.n), arguments.max_reject_rate)
    failed = sorted(name for name, check in checks.items() if not check.ok)
    before, after = _neighbours(images, features, fitted) if not failed else (None, None)
    metrics = {
        "published": not failed,
        "quality": {
            "knn_accuracy_features": before,
            "knn_accuracy_pca": after,
            "checks": quality.as_json(checks),
        },
    }
    if failed:
        run.finish(metrics | {"bytes": {"pca": 0}})
        said = ", ".join(f"{name} is {checks[name].value:g}, limit {checks[name].limit:g}" for name in failed)
        raise QualityGateError(f"{said}: nothing was published, the last published PCA stays current")
    run.say(f"all {len(checks)} checks hold")

    rows = projected.select("image_id", "label", "pca").withColumns(
        {"pca_id": F.lit(fitted.pca_id), "run_id": F.lit(arguments.run_id)}
    )
    _commit_rows(run, rows, images, fitted.pca_id)
    export.write_parquet(rows, join(arguments.run_folder, "pca.parquet"), schemas.PCA_EXPORT)
    export.write_parquet(_sample(rows, images), join(arguments.run_folder, "sample.parquet"), schemas.SAMPLE)
    _publish(run, fitted)
    run.finish(metrics | {"bytes": {"pca": tables.size_bytes(spark, arguments.database, "pca")}})


def _projected(features: DataFrame, images: DataFrame, fitted: pca.Pca) -> DataFrame:
    rows = features.select("image_id", "features").mapInArrow(
        pca.projector(fitted), schemas.spark(schemas.PROJECTED)
    )
    return rows.join(images.select("image_id", "label"), "image_id", "left")


def _facts(
    run: job.Run, images: DataFrame, features: DataFrame, projected: DataFrame, pca_n: int
) -> quality.Facts:
    """Count by key, in one pass over the keys of all three: equal totals alone would hide swapped rows."""
    content = F.col("content_sha256")
    sources = [
        images.select("image_id", content.alias("of_image")),
        features.select("image_id", content.alias("of_features")),
        projected.select("image_id", "finite", "dims", F.col("pca").isNotNull().alias("in_pca")),
    ]
    keyed = sources[0]
    for source in sources[1:]:
        keyed = keyed.unionByName(source, allowMissingColumns=True)
    by_key = keyed.groupBy("image_id").agg(
        *(F.max(column).alias(column) for column in ("of_image", "of_features")),
        F.coalesce(F.bool_or("in_pca"), F.lit(False)).alias("in_pca"),
        F.bool_and("finite").alias("finite"),
        F.max("dims").alias("dims"),
    )
    image, feature = F.col("of_image").isNotNull(), F.col("of_features").isNotNull()
    same = F.coalesce(F.col("of_image") == F.col("of_features"), F.lit(False))
    counted = by_key.agg(
        F.count_if(image).alias("images"),
        F.count_if(image & ~same).alias("images_without_features"),
        F.count_if(feature & ~same).alias("features_without_image"),
        F.count_if(feature & ~F.col("in_pca")).alias("features_without_pca"),
        F.count_if(~F.col("finite")).alias("not_finite"),
        F.count_if(F.col("dims") != DIMS).alias("wrong_dims"),
    ).collect()[0]
    rejects = run.spark.table(f"{run.arguments.database}.rejects").count()
    return quality.Facts(**counted.asDict(), rejects=rejects, images_in_pca=pca_n)


def _neighbours(images: DataFrame, features: DataFrame, fitted: pca.Pca) -> tuple[float | None, float | None]:
    """Measure 1-NN label agreement on a bounded, seeded choice of labelled images, before and after reduction."""
    chosen = _chosen(images.where("label IS NOT NULL"), NEIGHBOUR_ROWS).select(
        "image_id", "label", "source_key"
    )
    table = (
        chosen.join(features.select("image_id", "features"), "image_id", "inner")
        .orderBy("image_id")
        .toArrow()
    )
    if not table.num_rows:
        return None, None
    vectors = matrix(table.column("features").combine_chunks(), len(fitted.mean))
    labels = table.column("label").to_pylist()
    sequences = [keys.sequence(key) for key in table.column("source_key").to_pylist()]
    return (
        quality.neighbour_agreement(vectors, labels, sequences),
        quality.neighbour_agreement(np.ascontiguousarray(fitted.project(vectors)), labels, sequences),
    )


def _chosen(images: DataFrame, rows: int) -> DataFrame:
    return images.orderBy(F.sha2(F.concat("image_id", F.lit(str(SEED))), 256)).limit(rows)


def _commit_rows(run: job.Run, rows: DataFrame, images: DataFrame, pca_id: str) -> None:
    """Commit the rows of this PCA, unless they are all there, and remove those of images that are gone."""
    table = run.spark.table(f"{run.arguments.database}.pca")
    present = table.where(F.col("pca_id") == pca_id).select("image_id")
    missing = tables.fixed(rows.join(present, "image_id", "left_anti"))
    orphans = table.select("image_id", "pca_id").join(tables.keys_of(images), "image_id", "left_anti")
    count = missing.count()
    tables.merge(run.spark, run.arguments.database, "pca", missing if count else None, orphans)
    run.say(f"{count} rows written to pca")


def _sample(rows: DataFrame, images: DataFrame) -> DataFrame:
    chosen = _chosen(rows, SAMPLE_ROWS)
    pixels = images.select("image_id", "pixels")
    return (
        F.broadcast(chosen.select("image_id", "label", "pca"))
        .join(pixels, "image_id", "inner")
        .select("image_id", "label", "pca", "pixels")
        .mapInArrow(export.thumbnails, schemas.spark(schemas.SAMPLE))
    )


def _publish(run: job.Run, fitted: pca.Pca) -> None:
    """Make this PCA the current one; when it is already, do nothing."""
    spark, database = run.spark, run.arguments.database
    if tables.current_pca_id(spark, database) == fitted.pca_id:
        run.say(f"PCA {fitted.pca_id[:12]} is the current one already")
        return
    row = {
        "pca_id": fitted.pca_id,
        "model_id": fitted.model_id,
        "k": fitted.k,
        "n": fitted.n,
        "mean": fitted.mean.tolist(),
        "components": fitted.components.tolist(),
        "explained_variance": fitted.explained_variance.tolist(),
        "explained_variance_ratio": fitted.explained_variance_ratio.tolist(),
        "run_id": run.arguments.run_id,
        "published_at": datetime.now(UTC),
    }
    model = spark.createDataFrame(pa.Table.from_pylist([row], schemas.PCA_MODEL))
    tables.merge(spark, database, "pca_models", model, None)
    run.say(f"published PCA {fitted.pca_id[:12]}: {fitted.k} components of {fitted.n} images")


if __name__ == "__main__":
    sys.exit(job.main(STAGE, parser(), publish, None))
