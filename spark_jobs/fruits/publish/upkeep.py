"""Upkeep of the tables: compaction, expiry, orphan files. Each when the metadata says that it pays.

It runs under the database's lock, after a publication; a usual night looks at a few numbers and does nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fruits.base.schemas import TABLES
from fruits.job import job_run
from fruits.lake.iceberg import Table, each
from fruits.pca import gramian_store

TARGET_BYTES = 128 * 1024 * 1024
SMALL_FILES = 16
KEPT_DAYS = 7
KEPT_SNAPSHOTS = 20
EXPIRE_FROM = 2 * KEPT_SNAPSHOTS
ORPHAN_DAYS = 3
_COMPACTED = ("images", "rejects", "features", "pca")  # the others are rewritten whole each time


@dataclass(frozen=True)
class Found:
    """What a table's metadata says.

    Attributes:
        files: Data files.
        size_bytes: Their size.
        snapshots: Snapshots kept.
        oldest_days: Age of the oldest one.
    """

    files: int
    size_bytes: int
    snapshots: int
    oldest_days: float

    @property
    def wants_compaction(self) -> bool:
        """Whether `SMALL_FILES` files fewer would hold the same rows, and half of them are gone for it."""
        needed = max(1, -(-self.size_bytes // TARGET_BYTES))
        return self.files - needed >= SMALL_FILES and self.files >= 2 * needed

    @property
    def wants_expiry(self) -> bool:
        """Whether so many snapshots are older than they are kept that dropping them is worth its listing."""
        return self.snapshots >= EXPIRE_FROM and self.oldest_days > KEPT_DAYS


def look(table: Table) -> Found:
    """Look at a table's metadata: no Spark job."""
    oldest = table.oldest_ms
    age = 0.0 if oldest is None else max(0.0, time.time() - oldest / 1000) / 86_400
    return Found(table.files, table.size_bytes, table.snapshots, age)


def done(run: job_run.Run) -> dict[str, Any]:
    """Do what pays, and tell what was done: seconds by table and kind, empty on a usual night."""
    database = run.arguments.database
    report: dict[str, Any] = {}
    for name in TABLES:
        found = look(Table(run.spark, f"{database}.{name}"))
        work: dict[str, float] = {}
        if name in _COMPACTED and found.wants_compaction:
            work["compact"] = _timed(compact, run, name)
        if found.wants_expiry:
            work["expire"] = _timed(
                expire, run, name, datetime.now(UTC) - timedelta(days=KEPT_DAYS), KEPT_SNAPSHOTS
            )
            work["orphans"] = _timed(
                remove_orphans, run, name, datetime.now(UTC) - timedelta(days=ORPHAN_DAYS)
            )
        if work:
            report[name] = work
            said = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in work.items())
            run.log(f"upkeep of {name} ({found.files} files, {found.snapshots} snapshots): {said}")
    return report


def compact(run: job_run.Run, name: str) -> None:
    """Rewrite small files into files of the target size. The rows, and so the kept sums, stay what they are."""
    catalog, table = _names(run, name)
    before = Table(run.spark, f"{run.arguments.database}.{name}").snapshot_id
    run.spark.sql(
        f"CALL {catalog}.system.rewrite_data_files(table => '{table}', options => "
        f"map('target-file-size-bytes', '{TARGET_BYTES}', 'min-input-files', '2'))"
    )
    now = Table(run.spark, f"{run.arguments.database}.{name}").snapshot_id
    if name == "features" and before is not None and now is not None and before != now:
        # Otherwise the next night would read the compacted files only to find that nothing changed.
        gramian_store.move_snapshot(run, before, now)


def expire(run: job_run.Run, name: str, older_than: datetime, retain: int) -> None:
    """Drop snapshots but the last `retain`, and the files that only they hold. A tagged snapshot stays."""
    catalog, table = _names(run, name)
    run.spark.sql(
        f"CALL {catalog}.system.expire_snapshots(table => '{table}', older_than => "
        f"TIMESTAMP '{older_than:%Y-%m-%d %H:%M:%S.%f}', retain_last => {retain})"
    )


def remove_orphans(run: job_run.Run, name: str, older_than: datetime) -> int:
    """Remove files that no snapshot knows: what killed jobs left.

    Args:
        run: The run.
        name: The table.
        older_than: Files younger than this stay: on AWS another writer may be about to commit them. Erasure, alone
            under the lock, asks for all; that is why this is Iceberg's action and not its procedure, which refuses
            less than a day.

    Returns:
        The number of files removed.
    """
    table = Table(run.spark, f"{run.arguments.database}.{name}")
    session: Any = run.spark
    actions = session._jvm.org.apache.iceberg.spark.actions.SparkActions.get(session._jsparkSession)
    result = (
        actions.deleteOrphanFiles(table.java)
        .olderThan(int(older_than.timestamp() * 1000))
        .usePrefixListing(True)  # through the catalog's own file system: a laptop's Hadoop knows no s3://
        .execute()
    )
    return sum(1 for _ in each(result.orphanFileLocations()))


def _names(run: job_run.Run, name: str) -> tuple[str, str]:
    catalog, database = run.arguments.database.split(".")
    return catalog, f"{database}.{name}"


def _timed(work: Any, *arguments: Any) -> float:
    started = time.monotonic()
    work(*arguments)
    return round(time.monotonic() - started, 2)
