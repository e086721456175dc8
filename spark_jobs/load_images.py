"""Load the listed photos into the tables `images` and `rejects`.

The job reads listing.parquet in the run's folder, fetches only objects that are new or changed since the last run,
decodes and checks each, drops all metadata (EXIF, GPS...), and keeps the pixels losslessly. An object that is not a
photo becomes a row in `rejects` with its code, and the job continues. Running it again changes nothing.
"""

import argparse
import sys
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fruits.base import objects, schemas
from fruits.base.errors import InputError, ReconciliationError
from fruits.base.objects import join
from fruits.images import decoding, loading, suppression
from fruits.images.fetching import Source
from fruits.images.loading import Outcome
from fruits.images.rejects import RETRIED_CODES
from fruits.job import job_run
from fruits.lake import align, input_listing, tables, writing
from fruits.lake.data_files import MappedRows
from fruits.lake.iceberg import Table
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

STAGE = "load_images"
ROWS_PER_PARTITION = 20_000
BYTES_PER_PARTITION = 1024**3


def parser() -> argparse.ArgumentParser:
    """Create the command line."""
    arguments = job_run.parser(STAGE, __doc__ or "")
    arguments.add_argument("--input", required=True, metavar="URI", help="s3://bucket/prefix, or a folder of photos")
    arguments.add_argument(
        "--complete",
        action="store_true",
        help="the listing covers the whole input: rows of objects that are no longer listed are removed",
    )
    arguments.add_argument("--full-refresh", action="store_true", help="load every listed object again")
    stop = "stop before more than this share of the rows, and more than --max-removed-rows, is removed; 1 never stops"
    number = partial(job_run.add_number, arguments)
    number("--max-removed-share", 1.0, stop, "SHARE")
    number("--max-removed-rows", 1000, "as many rows may be removed, whatever their share", "N")
    number("--expected-removals", 0, "removals not to count, because the bucket's retention explains them", "N")
    number("--max-pixels", decoding.MAX_PIXELS, "reject larger pictures before decoding them")
    number("--max-bytes", decoding.MAX_BYTES, "reject larger objects without reading them")
    arguments.add_argument(
        "--suppression",
        metavar="URI",
        help="folder of Parquet files with the key and content digests of erased photos, which are not loaded again",
    )
    return arguments


@dataclass(frozen=True)
class Counts:
    """Counts of the listing and both tables, aligned by image id."""

    seen: int  # listed objects that were not erased
    seen_bytes: int
    new: int  # seen objects that neither table has in this state
    new_bytes: int  # of those that are read; objects above `--max-bytes` are rejected unread
    hidden: int  # listed objects that were erased
    had: int  # objects that had a row in either table before
    gone: int  # objects with a row that are no longer listed; 0 unless the listing is complete
    missing: int  # gone objects that were not erased
    in_images: int  # new and gone objects that have a row in `images`
    in_rejects: int  # new, gone and stale objects that have a row in `rejects`
    after: int  # rows that both tables must have in the end


_WORK = pa.schema(
    [
        *schemas.required(image_id=pa.string()),
        *(field.with_nullable(True) for field in schemas.LISTING if field.name != "image_id"),
        ("reject_run", pa.string()),
        *schemas.required(
            is_new=pa.bool_(),
            had_image=pa.bool_(),
            had_reject=pa.bool_(),
            leaves_images=pa.bool_(),
            leaves_rejects=pa.bool_(),
        ),
    ]
)
"""An object to work on: its row of the listing, NULL if it is not listed, and what to do. An object that has left the
listing leaves both tables. A reject beside an image of the same object (the second commit of a killed run is missing)
leaves `rejects`. `reject_run` is the run that first rejected the object in this state."""


def load_images(run: job_run.Run) -> None:
    """Read the listing, load new objects, commit `images`, then `rejects`.

    A rerun after a kill ends in the same tables: objects that were not committed count as new again, and the rows that
    the second commit would have removed are found beside those of the first.
    """
    spark, arguments = run.spark, run.arguments
    tables.ensure(spark, arguments.database)
    erased = suppression.read(arguments.suppression)
    work, counts = _find_work(run, erased)
    run.log(f"{counts.seen} objects listed, {counts.new} of them new or changed ({counts.new_bytes / 1e6:.1f} MB)")
    _require_believable(arguments, counts)
    images, rejects = (Table(spark, f"{arguments.database}.{name}") for name in ("images", "rejects"))
    rows = _load(run, work, counts, erased) if counts.new else None
    if rows and not counts.in_images and not counts.in_rejects and not writing.is_left_to_spark(run, images, rejects):
        outcome = _append(run, rows, images, rejects)
    else:
        outcome = _merge(run, work, counts, rows)
    run.log(f"{outcome.loaded} loaded, {outcome.rejected} rejected")
    suppressed = counts.hidden + outcome.suppressed
    if suppressed:
        run.log(f"{suppressed} objects are on the suppression list and were not loaded")
    _require_reconciled(counts, outcome, images.rows + rejects.rows)
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
            "bytes": {"input": counts.seen_bytes, "pixels": images.size_bytes},
        },
        writes=["images", "rejects"],
    )


def _require_believable(arguments: argparse.Namespace, counts: Counts) -> None:
    """Stop before anything is written if too many photos are missing: an input can be mounted or listed in part.

    Raises:
        InputError: More rows than `--max-removed-rows` and than `--max-removed-share` of them would be removed.
    """
    missing = counts.missing - arguments.expected_removals
    if missing > max(arguments.max_removed_rows, arguments.max_removed_share * counts.had):
        raise InputError(
            f"{missing} of {counts.had} photos are no longer in {arguments.input}; nothing was loaded or removed. "
            "Check that the input is complete; if the photos were deleted on purpose, run again with force"
        )


def _require_reconciled(counts: Counts, outcome: Outcome, rows: int) -> None:
    """Check that both tables have as many rows as they must, and that each new object has an outcome.

    Raises:
        ReconciliationError: A commit was lost, or another writer changed a table.
    """
    expected = counts.after - outcome.suppressed
    settled = outcome.loaded + outcome.rejected + outcome.suppressed
    if rows != expected or settled != counts.new:
        raise ReconciliationError(
            f"images and rejects have {rows} rows together and should have {expected}; "
            f"{counts.new} objects were to be loaded and {settled} were: run the job again"
        )


def _find_work(run: job_run.Run, erased: suppression.SuppressionList) -> tuple[align.AlignedRows, Counts]:
    """Align the listing with both tables once, by narrow columns.

    Returns:
        A row for each object to work on (`_WORK`); and the counts, from the same pass.
    """
    spark, arguments = run.spark, run.arguments
    sides = (
        input_listing.read(spark, join(arguments.run_folder, "listing.parquet")),
        align.key_columns(spark, f"{arguments.database}.images", image_etag="etag"),
        align.key_columns(
            spark, f"{arguments.database}.rejects", reject_etag="etag", error_code="error_code", reject_run="run_id"
        ),
    )
    classify = partial(
        _classify,
        erased_ids=erased.image_ids,
        is_complete=arguments.complete,
        is_refresh=arguments.full_refresh,
        max_bytes=arguments.max_bytes,
    )
    work, tally = align.align(spark, sides, classify, _WORK)
    return work, Counts(**tally.counts)


def _classify(
    rows: pa.Table, erased_ids: Collection[str], is_complete: bool, is_refresh: bool, max_bytes: int
) -> tuple[pa.Table, align.Tally]:
    """Find the objects that are new, changed or gone; in a refresh, all that are listed."""
    columns = {name: rows[name] for name in rows.column_names if name != "image_id"}
    grouped = align.group_by_image(rows["image_id"], columns)
    listed, had_image, had_reject = (align.is_not_null(grouped[name]) for name in ("etag", "image_etag", "reject_etag"))
    erased = align.is_in(grouped["image_id"], erased_ids)
    seen, had = listed & ~erased, had_image | had_reject
    is_new = seen & (is_refresh | ~_is_known(grouped))
    gone = ~seen & had & is_complete
    stale = seen & ~is_new & had_image & had_reject
    counts = align.count_flags(
        seen=seen,
        hidden=listed & erased,
        new=is_new,
        had=had,
        gone=gone,
        missing=gone & ~erased,
        in_images=(is_new | gone) & had_image,
        in_rejects=(is_new | gone | stale) & had_reject,
        after=(seen | had) & ~gone,
    )
    is_same_reject = align.equals(grouped["reject_etag"], grouped["etag"])
    reject_run = align.null_unless(is_same_reject, grouped["reject_run"])
    work = align.with_flags(
        grouped.set_column(grouped.column_names.index("reject_run"), "reject_run", reject_run),
        _WORK,
        is_new=is_new,
        had_image=had_image,
        had_reject=had_reject,
        leaves_images=gone & had_image,
        leaves_rejects=(gone | stale) & had_reject,
    ).filter(is_new | gone | stale)
    return work, align.Tally(counts | _sum_bytes(grouped, seen, is_new, max_bytes))


def _is_known(grouped: pa.Table) -> align.Flags:
    """Return where a table has a final row of the listed state; a reject counts only if there is no image."""
    is_final = ~align.is_in(grouped["error_code"], [str(code) for code in RETRIED_CODES])
    return np.where(
        align.is_not_null(grouped["image_etag"]),
        align.equals(grouped["image_etag"], grouped["etag"]),
        align.equals(grouped["reject_etag"], grouped["etag"]) & is_final,
    )


def _sum_bytes(grouped: pa.Table, seen: align.Flags, is_new: align.Flags, max_bytes: int) -> dict[str, int]:
    sizes = np.where(seen, grouped["size_bytes"].fill_null(0), 0)
    # A film of a terabyte among photos, which is not read, would otherwise cut the work into tiny partitions.
    return {"seen_bytes": int(sizes.sum()), "new_bytes": int(sizes[is_new & (sizes <= max_bytes)].sum())}


def _load(run: job_run.Run, work: align.AlignedRows, counts: Counts, erased: suppression.SuppressionList) -> MappedRows:
    """Fetch and clean the new objects, in partitions of at most `ROWS_PER_PARTITION` and about `BYTES_PER_PARTITION`.

    Spark distributes rows by their hashes, so large photos are spread at random. A partition with an object too many
    reads at most `--max-bytes` more, a few seconds; distribution by size would take a sort.
    """
    arguments, path = run.arguments, objects.parse_uri(run.arguments.input)
    if path.bucket is None:
        source, prefix = Source(None, path.key, None, arguments.max_bytes), ""
    else:
        source, prefix = Source(path.bucket, "", objects.find_s3(), arguments.max_bytes), path.key
    mapper = loading.load_mapper(source, prefix, arguments.max_pixels, erased.contents)
    partition_rows = min(ROWS_PER_PARTITION, max(1, counts.new * BYTES_PER_PARTITION // max(1, counts.new_bytes)))
    tasks = job_run.partition_count(counts.new, run.cores, partition_rows)
    return work.map(mapper, schemas.LOAD_RESULT, tasks, schemas.LISTING.names, "is_new")


def _append(run: job_run.Run, rows: MappedRows, images: Table, rejects: Table) -> Outcome:
    """Let the tasks write data files, and append these to both tables, `images` first."""
    constants: dict[str, object] = {"run_id": run.arguments.run_id}
    to_images = writing.file_writer(images, iter, constants | {"loaded_at": datetime.now(UTC)})
    mapper = loading.file_mapper(rows.mapper, to_images, writing.file_writer(rejects, iter, constants))
    written = MappedRows(rows.source, mapper, schemas.LOAD_FILE).fetch()
    for table in (images, rejects):
        files = written.filter(pc.field("table") == table.short_name)
        writing.append(run.spark, table, files.select(schemas.DATA_FILE.names))
    return Outcome.total(written["outcome"].drop_null().to_pylist())


def _summarize(loaded: DataFrame) -> Outcome:
    rows = (
        loaded.groupBy("error_code")
        .agg(F.count("*").alias("rows"), F.count_if("had_metadata").alias("stripped"))
        .collect()
    )
    codes = {row.error_code: row.rows for row in rows if row.error_code is not None}
    suppressed = codes.pop(suppression.CODE, 0)
    rejected = loaded.where(f"error_code <> '{suppression.CODE}'").select(*loading.EXAMPLE)
    examples = rejected.orderBy("source_key").limit(loading.MAX_EXAMPLES).collect() if codes else []
    return Outcome(
        loaded=sum(row.rows for row in rows if row.error_code is None),
        suppressed=suppressed,
        rejects_by_code=codes,
        metadata_stripped=sum(row.stripped for row in rows),
        examples=[row.asDict() for row in examples],
    )


def _merge(run: job_run.Run, work: align.AlignedRows, counts: Counts, rows: MappedRows | None) -> Outcome:
    """Let Spark merge into both tables, `images` first; a commit that only adds rows reads nothing of its table."""
    loaded = rows.frame().persist(StorageLevel.DISK_ONLY) if rows else None
    outcome = _summarize(loaded) if loaded else Outcome.total([])
    run_id, loaded_at = F.lit(run.arguments.run_id), F.lit(datetime.now(UTC))
    images = reject_rows = not_images = not_rejects = None
    if loaded is not None:
        # A suppressed photo is neither image nor reject, and leaves both tables.
        suppressed = F.coalesce(F.col("error_code") == suppression.CODE, F.lit(False))
        not_images = loaded.where("error_code IS NOT NULL")
        not_rejects = loaded.where(F.col("error_code").isNull() | suppressed)
        if outcome.loaded:
            images = loaded.where("error_code IS NULL").withColumns({"run_id": run_id, "loaded_at": loaded_at})
        if outcome.rejected:
            reject_rows = not_images.where(~suppressed).withColumn("run_id", run_id)
            if counts.in_rejects:
                # An archived object is tried again each night: it stays a reject of the night that first met it.
                earlier = work.to_join(["image_id", "reject_run"], "had_reject", "is_new")
                reject_rows = reject_rows.join(earlier, "image_id", "left")
                reject_rows = reject_rows.withColumn("run_id", F.coalesce("reject_run", "run_id"))
    for table, upserts, others, affected in (
        ("images", images, not_images, counts.in_images),
        ("rejects", reject_rows, not_rejects, counts.in_rejects),
    ):
        deletes = _find_leaving(work, table, others) if affected else None
        tables.merge(run.spark, run.arguments.database, table, upserts, deletes, only_adds=not affected)
    return outcome


def _find_leaving(work: align.AlignedRows, table: str, others: DataFrame | None) -> DataFrame:
    """Return the ids of a table's rows whose object is gone, or is now among the `others`."""
    leaving = work.frame(["image_id"], f"leaves_{table}")
    if others is None:
        return leaving
    before = work.to_join(["image_id"], f"had_{table.removesuffix('s')}", "is_new")
    return leaving.unionByName(others.select("image_id").join(before, "image_id", "left_semi"))


if __name__ == "__main__":
    sys.exit(job_run.run(STAGE, parser().parse_args(), load_images))
