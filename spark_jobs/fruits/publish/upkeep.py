"""Maintain the tables: compaction, snapshot expiry and removal of orphan files, each when the metadata justifies it.

It runs under the database's lock, after a publication. A usual run reads a few numbers and does nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fruits.base.schemas import TABLES
from fruits.job import job_run
from fruits.lake.iceberg import Table, iterate
from fruits.pca import gramian_store

TARGET_BYTES = 128 * 1024 * 1024
SMALL_FILES = 16
KEPT_DAYS = 7
KEPT_SNAPSHOTS = 20
EXPIRE_FROM = 2 * KEPT_SNAPSHOTS
ORPHAN_DAYS = 3
_COMPACTED = ("images", "rejects", "features", "pca", "predictions")  # the others are rewritten whole each time


@dataclass(frozen=True)
class TableStats:
    """Facts from a table's metadata; a table that is not partitioned has a single partition."""

    files: int
    size_bytes: int
    snapshots: int
    oldest_days: float
    partitions: int = 1

    @property
    def wants_compaction(self) -> bool:
        """Whether compaction removes `SMALL_FILES` files for each partition, and at least half of all files.

        Each partition keeps a file of its own, so a run that writes to every partition adds as many files.
        """
        needed = max(self.partitions, -(-self.size_bytes // TARGET_BYTES))
        return self.files - needed >= SMALL_FILES * self.partitions and self.files >= 2 * needed

    @property
    def wants_expiry(self) -> bool:
        """Whether enough snapshots are past their retention to justify the listing that expiry takes."""
        return self.snapshots >= EXPIRE_FROM and self.oldest_days > KEPT_DAYS


def read_stats(table: Table) -> TableStats:
    """Read a table's metadata, without a Spark job unless the table is partitioned."""
    oldest = table.oldest_ms
    age = 0.0 if oldest is None else max(0.0, time.time() - oldest / 1000) / 86_400
    return TableStats(table.files, table.size_bytes, table.snapshots, age, table.partitions)


def maintain(run: job_run.Run) -> dict[str, Any]:
    """Do the upkeep that is justified.

    Returns:
        Seconds by table and kind of upkeep; empty after a usual run.
    """
    report: dict[str, Any] = {}
    for name in TABLES:
        stats = read_stats(Table(run.spark, f"{run.arguments.database}.{name}"))
        seconds: dict[str, float] = {}
        now = datetime.now(UTC)
        if name in _COMPACTED and stats.wants_compaction:
            seconds["compact"] = _time(compact, run, name)
        if stats.wants_expiry:
            seconds["expire"] = _time(expire, run, name, now - timedelta(days=KEPT_DAYS), KEPT_SNAPSHOTS)
            seconds["orphans"] = _time(remove_orphans, run, name, now - timedelta(days=ORPHAN_DAYS))
        if seconds:
            report[name] = seconds
            times = ", ".join(f"{kind} {number:.1f} s" for kind, number in seconds.items())
            run.log(f"upkeep of {name} ({stats.files} files, {stats.snapshots} snapshots): {times}")
    return report


def compact(run: job_run.Run, name: str) -> None:
    """Rewrite small files into files of the target size. The rows, and so the kept statistics, stay the same."""
    table = f"{run.arguments.database}.{name}"
    before = Table(run.spark, table).snapshot_id
    options = f"map('target-file-size-bytes', '{TARGET_BYTES}', 'min-input-files', '2')"
    _call(run, f"rewrite_data_files(table => '{table}', options => {options})")
    now = Table(run.spark, table).snapshot_id
    if name == "features" and before is not None and now is not None and before != now:
        # Otherwise the next run would read the compacted files only to find that nothing has changed.
        gramian_store.move_snapshot(run, before, now)


def expire(run: job_run.Run, name: str, older_than: datetime, retain: int) -> None:
    """Expire snapshots except the last `retain` and tagged ones, and delete the files that only they refer to."""
    table, time_limit = f"{run.arguments.database}.{name}", f"TIMESTAMP '{older_than:%Y-%m-%d %H:%M:%S.%f}'"
    _call(run, f"expire_snapshots(table => '{table}', older_than => {time_limit}, retain_last => {retain})")


def remove_orphans(run: job_run.Run, name: str, older_than: datetime) -> int:
    """Remove files that no snapshot refers to, as killed jobs leave them; return their number.

    Files younger than `older_than` stay: on AWS another writer can be about to commit them. Erasure, which holds the
    lock, removes all. Iceberg's procedure refuses less than a day, so this calls its action.
    """
    table = Table(run.spark, f"{run.arguments.database}.{name}")
    session: Any = run.spark
    actions = session._jvm.org.apache.iceberg.spark.actions.SparkActions.get(session._jsparkSession)
    result = (
        actions.deleteOrphanFiles(table.java)
        .olderThan(int(older_than.timestamp() * 1000))
        .usePrefixListing(True)  # through the catalog's own file system: Hadoop on a laptop does not know s3://
        .execute()
    )
    return sum(1 for _ in iterate(result.orphanFileLocations()))


def _call(run: job_run.Run, procedure: str) -> None:
    run.spark.sql(f"CALL {run.arguments.database.partition('.')[0]}.system.{procedure}")


def _time(work: Callable[..., object], *arguments: Any) -> float:
    started = time.monotonic()
    work(*arguments)
    return round(time.monotonic() - started, 2)
