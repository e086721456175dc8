"""Load the listed photos into the tables `images` and `rejects`.

Reads listing.parquet in the run's folder, fetches only objects that are new or changed since the last run, decodes
and checks each one, drops all metadata (EXIF, GPS...), and keeps the pixels losslessly. What is not a photo becomes
a row in `rejects` with its code; the job goes on. Running it again changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from fruits.base import objects, schemas
from fruits.base.errors import InputError, ReconciliationError
from fruits.base.objects import join
from fruits.images import (
    decoding,
    loading,
    rejects,
    suppression,
)
from fruits.images.fetching import Source
from fruits.job import job_run
from fruits.lake import align, input_listing, tables
from fruits.lake.iceberg import Table
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

STAGE = "load_images"
ROWS_PER_PARTITION = 20_000
BYTES_PER_PARTITION = 1024**3


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    made = job_run.parser(STAGE, __doc__ or "")
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
        "--max-removed-share",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="stop before more than this share of the rows is removed, if it is more rows than --max-removed-rows "
        "(default %(default)s: never stop)",
    )
    made.add_argument("--max-removed-rows", type=int, default=1000, metavar="N", help="default %(default)s")
    made.add_argument(
        "--expected-removals",
        type=int,
        default=0,
        metavar="N",
        help="removals not to count, because the bucket's retention explains them",
    )
    made.add_argument(
        "--max-pixels",
        type=int,
        default=decoding.MAX_PIXELS,
        help="reject larger pictures before decoding them (default %(default)s)",
    )
    made.add_argument(
        "--max-bytes",
        type=int,
        default=decoding.MAX_BYTES,
        help="reject larger objects without reading them (default %(default)s)",
    )
    made.add_argument(
        "--suppression",
        metavar="URI",
        help="folder of Parquet files with the key and content digests of erased photos, which are not loaded again",
    )
    return made


@dataclass(frozen=True)
class Counts:
    """What the listing and both tables amount to, laid side by side by key.

    Attributes:
        seen: Listed objects.
        seen_bytes: Their bytes.
        new: Of them, those that neither table has in this state.
        new_bytes: The bytes of those that are read: what has more than `--max-bytes` is refused unread.
        hidden: Listed objects that were erased.
        had: Objects with a row in either table before.
        gone: Rows of objects that are no longer listed, when the listing is complete; else 0.
        missing: Of the gone, those that no erasure explains.
        in_images: Of the new and the gone, those that have a row in `images`.
        in_rejects: Of the new, the gone and the stale, those that have a row in `rejects`.
        after: Rows that both tables must have in the end.
    """

    seen: int
    seen_bytes: int
    new: int
    new_bytes: int
    hidden: int
    had: int
    gone: int
    missing: int
    in_images: int
    in_rejects: int
    after: int


_WORK = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        *(field.with_nullable(True) for field in schemas.LISTED if field.name != "image_id"),
        *(
            pa.field(name, pa.bool_(), nullable=False)
            for name in ("wanted", "had_image", "had_reject", "leaves_images", "leaves_rejects")
        ),
    ]
)
"""An object with something to do: its row of the listing, NULL where it is not listed, and what that is. What has left
the listing leaves both tables; a reject beside an image of the same object (a killed run's second commit is missing)
leaves `rejects`."""


def load_images(run: job_run.Run) -> None:
    """Read the listing, load what is new, commit `images`, then `rejects`.

    Killed at any moment and run again, it ends in the same tables: what is not committed is simply new again, and
    what the second commit would have removed is found beside the first one's rows.
    """
    spark, arguments = run.spark, run.arguments
    tables.ensure(spark, arguments.database)
    erased = suppression.read(arguments.suppression)
    work, counts = _work(run, erased)
    run.log(
        f"{counts.seen} objects listed, {counts.new} of them new or changed ({counts.new_bytes / 1e6:.1f} MB)"
    )
    _require_believable(arguments, counts)
    loaded, outcome = None, Outcome(0, 0, {}, 0, [])
    if counts.new:
        loaded = _loaded(run, work, counts, erased).persist(StorageLevel.DISK_ONLY)
        outcome = _outcome(loaded)
        run.log(f"{outcome.loaded} loaded, {outcome.rejected} rejected")
    suppressed = counts.hidden + outcome.suppressed
    if suppressed:
        run.log(f"{suppressed} objects are on the suppression list and were not loaded")
    _commit(run, work, counts, loaded, outcome)
    written, rejected = (Table(spark, f"{arguments.database}.{name}") for name in ("images", "rejects"))
    rows = written.rows + rejected.rows
    settled = outcome.loaded + outcome.rejected + outcome.suppressed
    if rows != counts.after - outcome.suppressed or settled != counts.new:
        raise ReconciliationError(
            f"images and rejects have {rows} rows together and should have {counts.after - outcome.suppressed}; "
            f"{counts.new} objects were to be loaded and {settled} were: run the job again"
        )
    run.finish(
        {
            "images": {
                "seen": counts.seen,
                "new": counts.new,
                "unchanged": counts.seen - counts.new,
                "removed": counts.gone,
                "loaded": outcome.loaded,
                "rejected": outcome.rejected,
                "suppressed": suppressed,
            },
            "rejects_by_code": outcome.rejects_by_code,
            "reject_examples": outcome.examples,
            "metadata_stripped": outcome.metadata_stripped,
            "bytes": {"input": counts.seen_bytes, "pixels": written.size_bytes},
        }
    )


def _require_believable(arguments: argparse.Namespace, counts: Counts) -> None:
    """Stop before anything is written when too many photos are missing: an input may be mounted or listed in part.

    Raises:
        InputError: More rows than `--max-removed-rows` and than `--max-removed-share` of them would be removed.
    """
    missing = counts.missing - arguments.expected_removals
    if missing > max(arguments.max_removed_rows, arguments.max_removed_share * counts.had):
        raise InputError(
            f"{missing} of {counts.had} photos are no longer in {arguments.input}; nothing was loaded or removed. "
            "Check that the input is complete; if the photos were deleted on purpose, run again with force"
        )


def _work(run: job_run.Run, erased: suppression.SuppressionList) -> tuple[align.Laid, Counts]:
    """Lay the listing beside both tables, once, by narrow columns.

    Returns:
        A row for each object with something to do (`_WORK`); and the counts, taken in the same pass.
    """
    spark, arguments = run.spark, run.arguments
    sides = (
        input_listing.read(spark, join(arguments.run_folder, "listing.parquet")),
        align.side(spark, f"{arguments.database}.images", image_etag="etag"),
        align.side(spark, f"{arguments.database}.rejects", reject_etag="etag", error_code="error_code"),
    )
    look = _look(arguments.complete, arguments.full_refresh, erased.image_ids, arguments.max_bytes)
    work, told = align.together(spark, sides, look, _WORK)
    return work, Counts(**told.counts)


def _look(complete: bool, anew: bool, erased_ids: frozenset[str], max_bytes: int) -> align.Look:
    """Look for what is new, changed or gone; `anew`, for all that is listed. What was erased counts as not listed."""

    def look(rows: pa.Table) -> tuple[pa.Table, align.Told]:
        columns = {name: rows[name] for name in rows.column_names if name != "image_id"}
        row = align.by_key(rows["image_id"], columns)
        listed, had_image, had_reject = (
            align.given(row[name]) for name in ("etag", "image_etag", "reject_etag")
        )
        erased = align.among(row["image_id"], erased_ids)
        hidden = listed & erased
        seen, had = listed & ~hidden, had_image | had_reject
        final = ~align.among(row["error_code"], [str(code) for code in rejects.RETRIED_CODES])
        # A reject counts as known only while no image took its place.
        known = np.where(
            had_image,
            align.same(row["image_etag"], row["etag"]),
            align.same(row["reject_etag"], row["etag"]) & final,
        )
        wanted = seen & (anew | ~known)
        gone = ~seen & had & complete
        stale = seen & ~wanted & had_image & had_reject
        size_bytes = np.where(seen, row["size_bytes"].fill_null(0), 0)
        counts = align.counts(
            seen=seen,
            hidden=hidden,
            new=wanted,
            had=had,
            gone=gone,
            missing=gone & ~erased,
            in_images=(wanted | gone) & had_image,
            in_rejects=(wanted | gone | stale) & had_reject,
            after=(seen | had) & ~gone,
        )
        # One film of a terabyte among photos, which nobody reads, would else cut the work into crumbs.
        read = wanted & (size_bytes <= max_bytes)
        totals = {"seen_bytes": int(size_bytes.sum()), "new_bytes": int(size_bytes[read].sum())}
        flags = {
            "wanted": wanted,
            "had_image": had_image,
            "had_reject": had_reject,
            "leaves_images": gone & had_image,
            "leaves_rejects": (gone | stale) & had_reject,
        }
        work = align.flagged(row, _WORK, **flags).filter(wanted | gone | stale)
        return work, align.Told(counts | totals)

    return look


@dataclass(frozen=True)
class Outcome:
    """What became of the new objects.

    Attributes:
        loaded: Images.
        suppressed: Photos whose content was erased: neither image nor reject.
        rejects_by_code: Rejects.
        metadata_stripped: Images that had metadata.
        examples: Up to 20 rejects, by key.
    """

    loaded: int
    suppressed: int
    rejects_by_code: dict[str, int]
    metadata_stripped: int
    examples: list[dict[str, str]]

    @property
    def rejected(self) -> int:
        """Rejects in all."""
        return sum(self.rejects_by_code.values())


def _loaded(
    run: job_run.Run, work: align.Laid, counts: Counts, erased: suppression.SuppressionList
) -> DataFrame:
    """Fetch and clean what is wanted, in partitions of at most `ROWS_PER_PARTITION` and about `BYTES_PER_PARTITION`.

    Spark deals the rows out in the order of their hashes, so large photos are spread as by lot. One too many in a
    partition is at most `--max-bytes` more, a few seconds; dealing by size would take a sort of its own.
    """
    place = objects.place(run.arguments.input)
    source = (
        Source(None, place.key, None, run.arguments.max_bytes)
        if place.bucket is None
        else Source(place.bucket, "", objects.where_is_s3(), run.arguments.max_bytes)
    )
    rows_each = min(ROWS_PER_PARTITION, max(1, counts.new * BYTES_PER_PARTITION // max(1, counts.new_bytes)))
    mapper = loading.load_mapper(
        source, "" if place.bucket is None else place.key, run.arguments.max_pixels, erased.contents
    )
    return (
        work.frame(schemas.LISTED.names, "wanted")
        .repartition(job_run.partition_count(counts.new, run.cores, rows_each))
        .mapInArrow(mapper, schemas.spark(schemas.LOADED))
    )


def _outcome(loaded: DataFrame) -> Outcome:
    rows = (
        loaded.groupBy("error_code").agg(
            F.count("*").alias("rows"), F.count_if("had_metadata").alias("stripped")
        )
    ).collect()
    codes = {row.error_code: row.rows for row in rows if row.error_code is not None}
    suppressed = codes.pop(suppression.CODE, 0)
    rejected = loaded.where(f"error_code <> '{suppression.CODE}'").select(
        "source_key", "error_code", "detail"
    )
    examples = rejected.orderBy("source_key").limit(20).collect() if codes else []
    return Outcome(
        loaded=sum(row.rows for row in rows if row.error_code is None),
        suppressed=suppressed,
        rejects_by_code=codes,
        metadata_stripped=sum(row.stripped for row in rows),
        examples=[row.asDict() for row in examples],
    )


def _commit(
    run: job_run.Run, work: align.Laid, counts: Counts, loaded: DataFrame | None, outcome: Outcome
) -> None:
    """Commit both tables, `images` first; what only adds rows reads nothing of a table."""
    spark, database = run.spark, run.arguments.database
    run_id, loaded_at = F.lit(run.arguments.run_id), F.lit(datetime.now(UTC))
    good = bad = not_good = not_bad = None
    if loaded is not None:
        # Neither image nor reject: what is suppressed leaves both tables.
        suppressed = F.coalesce(F.col("error_code") == suppression.CODE, F.lit(False))
        not_good = loaded.where("error_code IS NOT NULL")
        not_bad = loaded.where(F.col("error_code").isNull() | suppressed)
        if outcome.loaded:
            good = loaded.where("error_code IS NULL").withColumns({"run_id": run_id, "loaded_at": loaded_at})
        if outcome.rejected:
            bad = not_good.where(~suppressed).withColumn("run_id", run_id)
    tables.merge(
        spark,
        database,
        "images",
        good,
        _leaving(work, "images", "had_image", not_good) if counts.in_images else None,
        only_adds=not counts.in_images,
    )
    tables.merge(
        spark,
        database,
        "rejects",
        bad,
        _leaving(work, "rejects", "had_reject", not_bad) if counts.in_rejects else None,
        only_adds=not counts.in_rejects,
    )


def _leaving(work: align.Laid, table: str, had: str, other: DataFrame | None) -> DataFrame:
    """Name a table's rows whose object is gone, or which the other table has now."""
    leaving = work.frame(["image_id"], f"leaves_{table}")
    if other is None:
        return leaving
    mine = work.to_join(["image_id"], had, "wanted")
    return leaving.unionByName(other.select("image_id").join(mine, "image_id", "left_semi"))


if __name__ == "__main__":
    sys.exit(job_run.run(STAGE, parser().parse_args(), load_images))
