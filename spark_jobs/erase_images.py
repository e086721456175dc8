"""Erase images from the database: their rows, every snapshot that still holds them, and the files behind.

The job reads a request of the control plane: ``{"image_ids": [...], "content_sha256": [...]}``. It erases an image by
its id, and under any key by its content. It computes the PCA statistics again without the image before it removes the
snapshot that they covered. The PCA model itself, an average over all images, does not change. Running the job again
changes nothing. It runs alone, under the database's lock.
"""

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
"""Tables in which to find ids by content. Rows are deleted here last, so that a rerun finds the same ids."""
_BY_IMAGE = [name for name, keys in schemas.KEYS.items() if "image_id" in keys]


def parser() -> argparse.ArgumentParser:
    """Create the command line."""
    arguments = job_run.parser(STAGE, __doc__ or "")
    arguments.add_argument("--erasure", required=True, metavar="URI", help="the request: erasures/ID/request.json")
    return arguments


def erase_images(run: job_run.Run) -> None:
    """Delete the rows, compute the statistics again, and remove every old file that held deleted rows."""
    spark, database = run.spark, run.arguments.database
    image_ids, contents = _read_request(run.arguments.erasure)
    tables.ensure(spark, database)
    tables.require_own_files(spark, database)
    ids = _find_ids(run, image_ids, contents)
    run.log(f"erasing {ids.count()} image ids from {database}")
    others = [name for name in _BY_IMAGE if name not in _CONTENT]
    rows = {name: _delete(run, name, ids) for name in (*others, *_CONTENT)}
    written = [name for name in schemas.TABLES if Table(spark, f"{database}.{name}").snapshot_id is not None]
    for name in written:
        _rewrite_manifests(run, name)
    for model_id in gramian_store.stored_models(run):
        # Computed from the rest, not subtracted: this needs nothing of the erased rows.
        with gramian_store.refresh(run, model_id, full_refresh=True) as kept:
            run.log(kept.description)
    gramian_store.drop_stale_tags(run)
    _require_gone(run, image_ids, contents)
    tables.require_own_files(spark, database)  # again: a notebook takes no lock
    removed = {name: _purge(run, name, name in written) for name in schemas.TABLES}
    run.finish({"rows": rows, "files_removed": removed})


def _read_request(uri: str) -> tuple[list[str], list[str]]:
    try:
        request = json.loads(objects.read_bytes(uri))
        lists = [request[name] for name in ("image_ids", "content_sha256")]
    except FileNotFoundError as error:
        raise InputError(f"{error}: write the request first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{uri} is not a request with image_ids and content_sha256 ({error!r})") from error
    if not all(isinstance(part, list) and all(_is_digest(value) for value in part) for part in lists):
        raise InputError(f"{uri} has a value that is no hex SHA-256: resolve keys to digests first")
    return lists[0], lists[1]


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _find_ids(run: job_run.Run, image_ids: list[str], contents: list[str]) -> DataFrame:
    """Return the requested ids and those of images that have a requested content."""
    ids = run.spark.createDataFrame(pa.table({"image_id": pa.array(image_ids, pa.string())}))
    content = run.spark.createDataFrame(pa.table({"content_sha256": pa.array(contents, pa.string())}))
    for name in _CONTENT:
        rows = run.spark.table(f"{run.arguments.database}.{name}").select("image_id", "content_sha256")
        matches = rows.join(F.broadcast(content), "content_sha256", "left_semi")
        ids = ids.unionByName(matches.select("image_id"))
    return tables.fetch(ids.distinct())


def _delete(run: job_run.Run, name: str, ids: DataFrame) -> int:
    keys = run.spark.table(f"{run.arguments.database}.{name}").select(*schemas.KEYS[name])
    deletes = tables.fetch(keys.join(F.broadcast(ids), "image_id", "left_semi"))
    count = deletes.count()
    if count:
        tables.merge(run.spark, run.arguments.database, name, None, deletes)
    return count


def _require_gone(run: job_run.Run, image_ids: list[str], contents: list[str]) -> None:
    """Search every table again, by id and by content.

    Raises:
        ReconciliationError: A table still has rows of an erased image, for example from a writer without the lock.
    """
    ids = F.broadcast(_find_ids(run, image_ids, contents))
    left = {
        name: run.spark.table(f"{run.arguments.database}.{name}").join(ids, "image_id", "left_semi").count()
        for name in _BY_IMAGE
    }
    if any(left.values()):
        raise ReconciliationError(
            f"{sum(left.values())} rows of erased images are left ({left}): end what else writes to "
            f"{run.arguments.database}, then run the job again"
        )


def _rewrite_manifests(run: job_run.Run, name: str) -> None:
    """Rewrite each manifest, because a manifest that removed a file still holds the bounds of the file's columns.

    This precedes the statistics, whose tag retains a snapshot with its manifests. Iceberg's procedure does not rewrite
    a lone manifest, so this calls its API.
    """
    session: Any = run.spark
    # Iceberg's reader reuses an object for all files of a manifest, so that they stay together.
    identity = session._jvm.java.util.function.Function.identity()
    Table(run.spark, f"{run.arguments.database}.{name}").java.rewriteManifests().clusterBy(identity).commit()


def _purge(run: job_run.Run, name: str, written: bool) -> int:
    """Remove everything that is not part of the table's current state; return the number of orphan files removed."""
    if written:
        upkeep.expire(run, name, datetime.now(UTC) + timedelta(days=1), retain=1)
        for versions in ("1", tables.METADATA_VERSIONS):
            # Each commit deletes the metadata files beyond this number.
            run.spark.sql(
                f"ALTER TABLE {run.arguments.database}.{name} "
                f"SET TBLPROPERTIES ('write.metadata.previous-versions-max' = '{versions}')"
            )
    return upkeep.remove_orphans(run, name, datetime.now(UTC) + timedelta(days=1))


if __name__ == "__main__":
    sys.exit(job_run.run(STAGE, parser().parse_args(), erase_images))
