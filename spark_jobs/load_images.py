"""Load the listed photos into the tables `images` and `rejects`.

Reads listing.parquet in the run's folder, fetches only objects that are new or changed since the last run, decodes
and checks each one, drops all metadata (EXIF, GPS...), and keeps the pixels losslessly. What is not a photo becomes
a row in `rejects` with its code; the job goes on. Running it again changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import Any

from fruits import images, job, listing, loading, objects, schemas, tables
from fruits.errors import ReconciliationError
from fruits.fetching import Source
from fruits.objects import join
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

STAGE = "load_images"
ROWS_PER_PARTITION = 20_000
BYTES_PER_PARTITION = 1024**3


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    made = job.parser(STAGE, __doc__ or "")
    made.add_argument(
        "--input", required=True, metavar="URI", help="s3://bucket/prefix, or a folder of photos"
    )
    made.add_argument(
        "--complete",
        action="store_true",
        help="the listing covers the whole input: rows of objects that are no longer listed are removed",
    )
    made.add_argument("--full-refresh", action="store_true", help="load every listed object again")
    made.add_argument(
        "--max-pixels",
        type=int,
        default=images.MAX_PIXELS,
        help="reject larger pictures before decoding them (default %(default)s)",
    )
    return made


def load_images(run: job.Run) -> None:
    """Read the listing, load what is new, commit `images`, then `rejects`.

    Killed at any moment and run again, it ends in the same tables: what is not committed is simply new again, and
    the second commit is worked out from what the first one left.
    """
    spark, arguments = run.spark, run.arguments
    tables.ensure(spark, arguments.database)
    listed = listing.read(spark, join(arguments.run_folder, "listing.parquet")).persist(
        StorageLevel.DISK_ONLY
    )
    seen, input_bytes = _count(listed)
    pending = listed if arguments.full_refresh else _not_known(run, listed)
    new, new_bytes = _count(pending)
    run.say(f"{seen} objects listed, {new} of them new or changed ({new_bytes / 1e6:.1f} MB)")

    loaded = _loaded(run, pending, new, new_bytes).persist(StorageLevel.DISK_ONLY)
    metrics = _metrics(loaded)
    run.say(f"{metrics['loaded']} loaded, {metrics['rejected']} rejected")

    removed = _commit(run, listed, loaded, metrics["loaded"], metrics["rejected"])
    missing = tables.keys_of(listed).join(_kept(run), "image_id", "left_anti").count()
    if missing or metrics["loaded"] + metrics["rejected"] != new:
        raise ReconciliationError(
            f"{missing} listed objects are neither image nor reject, {new} were to be loaded and "
            f"{metrics['loaded'] + metrics['rejected']} were: run the job again"
        )
    run.finish(
        {
            "images": {
                "seen": seen,
                "new": new,
                "unchanged": seen - new,
                "removed": removed,
                "loaded": metrics["loaded"],
                "rejected": metrics["rejected"],
            },
            "rejects_by_code": metrics["by_code"],
            "reject_examples": metrics["examples"],
            "metadata_stripped": metrics["metadata_stripped"],
            "bytes": {
                "input": input_bytes,
                "pixels": tables.size_bytes(spark, arguments.database, "images"),
            },
        }
    )


def _count(listed: DataFrame) -> tuple[int, int]:
    row = listed.agg(F.count("*"), F.coalesce(F.sum("size_bytes"), F.lit(0))).first()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def _not_known(run: job.Run, listed: DataFrame) -> DataFrame:
    """Keep what neither table has in this state; a reject counts only while no image took its place."""
    known_images = run.spark.table(f"{run.arguments.database}.images").select("image_id", "etag")
    rejects = run.spark.table(f"{run.arguments.database}.rejects")
    known_rejects = (
        rejects.where(~F.col("error_code").isin([str(code) for code in images.RETRIED_CODES]))
        .select("image_id", "etag")
        .join(known_images.select("image_id"), "image_id", "left_anti")
    )
    known = known_images.unionByName(known_rejects)
    return tables.fixed(listed.join(known, ["image_id", "etag"], "left_anti"))


def _loaded(run: job.Run, pending: DataFrame, rows: int, size_bytes: int) -> DataFrame:
    place = objects.place(run.arguments.input)
    source = (
        Source(None, place.key, None)
        if place.bucket is None
        else Source(place.bucket, "", objects.where_is_s3())
    )
    rows_each = min(ROWS_PER_PARTITION, max(1, rows * BYTES_PER_PARTITION // max(1, size_bytes)))
    mapper = loading.loader(source, "" if place.bucket is None else place.key, run.arguments.max_pixels)
    return pending.repartition(job.partitions(rows, run.cores, rows_each)).mapInArrow(
        mapper, schemas.spark(schemas.LOADED)
    )


def _metrics(loaded: DataFrame) -> dict[str, Any]:
    rows = (
        loaded.groupBy("error_code").agg(
            F.count("*").alias("rows"), F.count_if("had_metadata").alias("stripped")
        )
    ).collect()
    rejected = loaded.where("error_code IS NOT NULL")
    examples = rejected.select("source_key", "error_code", "detail").orderBy("source_key").limit(20).collect()
    return {
        "loaded": sum(row.rows for row in rows if row.error_code is None),
        "rejected": sum(row.rows for row in rows if row.error_code is not None),
        "by_code": {row.error_code: row.rows for row in rows if row.error_code is not None},
        "metadata_stripped": sum(row.stripped for row in rows),
        "examples": [row.asDict() for row in examples],
    }


def _commit(run: job.Run, listed: DataFrame, loaded: DataFrame, loaded_rows: int, rejected_rows: int) -> int:
    """Commit both tables, `images` first.

    Returns:
        The number of rows that left because their object is no longer listed.
    """
    spark, database = run.spark, run.arguments.database
    good, bad = loaded.where("error_code IS NULL"), loaded.where("error_code IS NOT NULL")
    run_id, loaded_at = F.lit(run.arguments.run_id), F.lit(datetime.now(UTC))
    before = _kept(run)
    gone = before.join(tables.keys_of(listed), "image_id", "left_anti")
    removed = tables.fixed(gone if run.arguments.complete else before.limit(0))
    count = removed.count()
    tables.merge(
        spark,
        database,
        "images",
        good.withColumns({"run_id": run_id, "loaded_at": loaded_at}) if loaded_rows else None,
        _present(run, "images", tables.keys_of(bad).unionByName(removed)) if rejected_rows + count else None,
    )
    tables.merge(
        spark,
        database,
        "rejects",
        bad.withColumn("run_id", run_id) if rejected_rows else None,
        _present(
            run,
            "rejects",
            tables.keys_of(spark.table(f"{database}.images")).unionByName(removed),
        ),
    )
    return count


def _present(run: job.Run, table: str, ids: DataFrame) -> DataFrame:
    """Keep the ids that the table has: deleting nothing must not make a commit."""
    rows = tables.keys_of(run.spark.table(f"{run.arguments.database}.{table}"))
    return rows.join(ids, "image_id", "left_semi")


def _kept(run: job.Run) -> DataFrame:
    database = run.arguments.database
    both = [tables.keys_of(run.spark.table(f"{database}.{table}")) for table in ("images", "rejects")]
    return both[0].unionByName(both[1]).distinct()


if __name__ == "__main__":
    sys.exit(job.main(STAGE, parser(), load_images, None))
