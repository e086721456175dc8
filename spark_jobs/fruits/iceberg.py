"""What a table's metadata says, asked of Iceberg itself: no Spark job, where a metadata table would take one each."""

from __future__ import annotations

from typing import Any

from pyspark.sql import SparkSession


class Table:
    """One table as it is now.

    Args:
        spark: A session with the catalog configured.
        name: ``catalog.database.table``, which exists.
    """

    def __init__(self, spark: SparkSession, name: str) -> None:
        self.name = name
        session: Any = spark
        self._java = session._jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(
            session._jsparkSession, name
        )
        # The catalog keeps tables in memory for a while; another job may have written since.
        self._java.refresh()

    @property
    def snapshot_id(self) -> int | None:
        """The current snapshot; None while nothing was ever written."""
        snapshot = self._java.currentSnapshot()
        return None if snapshot is None else int(snapshot.snapshotId())

    @property
    def snapshots(self) -> int:
        """How many snapshots are kept."""
        return sum(1 for _ in self._java.snapshots())

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest kept snapshot was committed, epoch milliseconds."""
        return min((int(snapshot.timestampMillis()) for snapshot in self._java.snapshots()), default=None)

    @property
    def rows(self) -> int:
        """Rows of the current snapshot, exact for tables that are written copy-on-write, as all of ours."""
        return self._total("total-records")

    @property
    def files(self) -> int:
        """Data files of the current snapshot."""
        return self._total("total-data-files")

    @property
    def size_bytes(self) -> int:
        """Bytes of the current snapshot's data files."""
        return self._total("total-files-size")

    @property
    def tags(self) -> dict[str, int]:
        """Snapshots by the tags that hold them."""
        refs = self._java.refs()
        return {str(name): int(refs[name].snapshotId()) for name in refs if refs[name].isTag()}

    @property
    def java(self) -> Any:
        """Iceberg's own ``org.apache.iceberg.Table``."""
        return self._java

    def _total(self, key: str) -> int:
        snapshot = self._java.currentSnapshot()
        return 0 if snapshot is None else int(snapshot.summary().get(key) or 0)
