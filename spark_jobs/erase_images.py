"""Erase images from the database: their rows, every snapshot that still holds them, and the files behind.

Reads a request that the control plane wrote: ``{"image_ids": [...], "content_sha256": [...]}``; an image is erased
by its id, and under whatever key by its content. The PCA sums are taken anew without it before the snapshot that
they covered is let go. The basis itself, an average over all images, stays as it is. Running it again changes
nothing. It runs alone, under the database's lock.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from fruits.base import objects, schemas
from fruits.base.errors import InputError, ReconciliationError
from fruits.job import job_run
from fruits.lake import tables
from fruits.lake.iceberg import Table
from fruits.pca import gramian_store
from fruits.publish import upkeep
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

STAGE = "erase_images"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CONTENT = ("features", "images")
"""Where ids are found by content. Rows go from here last: killed before that and run again, it finds the same ids."""


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    made = job_run.parser(STAGE, __doc__ or "")
    made.add_argument("--erasure", required=True, metavar="URI", help="the request: erasures/ID/request.json")
    return made


def erase_images(run: job_run.Run) -> None:
    """Delete the rows, sum anew, and let no old file keep what was deleted."""
    spark, database = run.spark, run.arguments.database
    image_ids, contents = _request(run.arguments.erasure)
    tables.ensure(spark, database)
    ids = _ids(run, image_ids, contents)
    run.log(f"erasing {ids.count()} image ids from {database}")
    others = [name for name, keys in schemas.KEYS.items() if "image_id" in keys and name not in _CONTENT]
    rows = {name: _delete(run, name, ids) for name in (*others, *_CONTENT)}
    written = [name for name in schemas.TABLES if Table(spark, f"{database}.{name}").snapshot_id is not None]
    for name in written:
        _rewrite_manifests(run, name)
    for model_id in gramian_store.stored_models(run):
        # Read from what is left, not subtracted: nothing of the erased rows is needed for it.
        with gramian_store.refresh(run, model_id, full_refresh=True) as kept:
            run.log(kept.description)
    gramian_store.drop_stale_tags(run)
    _require_gone(run, image_ids, contents)
    removed = {name: _purge(run, name, name in written) for name in schemas.TABLES}
    run.finish({"rows": rows, "files_removed": removed})


def _request(uri: str) -> tuple[list[str], list[str]]:
    try:
        said = json.loads(objects.read_bytes(uri))
        lists = [said[name] for name in ("image_ids", "content_sha256")]
    except FileNotFoundError as error:
        raise InputError(f"{error}: write the request first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{uri} is not a request with image_ids and content_sha256 ({error!r})") from error
    if not all(isinstance(part, list) and all(_is_digest(value) for value in part) for part in lists):
        raise InputError(f"{uri} names something that is no hex SHA-256: resolve keys to digests first")
    return lists[0], lists[1]


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _ids(run: job_run.Run, image_ids: list[str], contents: list[str]) -> DataFrame:
    """Name the images asked for by id, and those that have one of the contents."""
    asked = run.spark.createDataFrame(pa.table({"image_id": pa.array(image_ids, pa.string())}))
    content = run.spark.createDataFrame(pa.table({"content_sha256": pa.array(contents, pa.string())}))
    for name in _CONTENT:
        rows = run.spark.table(f"{run.arguments.database}.{name}").select("image_id", "content_sha256")
        asked = asked.unionByName(
            rows.join(F.broadcast(content), "content_sha256", "left_semi").select("image_id")
        )
    return tables.fetched(asked.distinct())


def _delete(run: job_run.Run, name: str, ids: DataFrame) -> int:
    keys = run.spark.table(f"{run.arguments.database}.{name}").select(*schemas.KEYS[name])
    doomed = tables.fetched(keys.join(F.broadcast(ids), "image_id", "left_semi"))
    count = doomed.count()
    if count:
        tables.merge(run.spark, run.arguments.database, name, None, doomed)
    return count


def _require_gone(run: job_run.Run, image_ids: list[str], contents: list[str]) -> None:
    """Look again in every table, by id and by content.

    Raises:
        ReconciliationError: A table still has rows of an erased image, for example from a writer that took no lock.
    """
    ids = F.broadcast(_ids(run, image_ids, contents))
    tables_by_id = [name for name, keys in schemas.KEYS.items() if "image_id" in keys]
    left = {
        name: run.spark.table(f"{run.arguments.database}.{name}").join(ids, "image_id", "left_semi").count()
        for name in tables_by_id
    }
    if any(left.values()):
        raise ReconciliationError(
            f"{sum(left.values())} rows of erased images are left ({left}): end what else writes to "
            f"{run.arguments.database}, then run the job again"
        )


def _rewrite_manifests(run: job_run.Run, name: str) -> None:
    """Write each manifest anew: one that took a file out still names it, with the bounds of its columns.

    Before the sums are taken: their tag holds a snapshot, and that one's manifests with it. By Iceberg's own API,
    since its procedure leaves a lone manifest as it is.
    """
    session: Any = run.spark
    # Its reader hands on all files of a manifest in one object, so that they stay together.
    itself = session._jvm.java.util.function.Function.identity()
    Table(run.spark, f"{run.arguments.database}.{name}").java.rewriteManifests().clusterBy(itself).commit()


def _purge(run: job_run.Run, name: str, written: bool) -> int:
    """Let go of all that is not the table as it is now; give the number of files that nobody knew any more."""
    if written:
        upkeep.expire(run, name, datetime.now(UTC) + timedelta(days=1), retain=1)
        for versions in ("1", tables.METADATA_VERSIONS):
            # Each commit drops the metadata files beyond this number.
            run.spark.sql(
                f"ALTER TABLE {run.arguments.database}.{name} "
                f"SET TBLPROPERTIES ('write.metadata.previous-versions-max' = '{versions}')"
            )
    return upkeep.remove_orphans(run, name, datetime.now(UTC) + timedelta(days=1))


if __name__ == "__main__":
    sys.exit(job_run.run(STAGE, parser().parse_args(), erase_images))
