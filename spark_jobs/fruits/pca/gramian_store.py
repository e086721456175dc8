"""The Gramian kept from run to run: a run adds the files that came to `features` and subtracts those that went.

A row of `pca_sums` names the snapshot of `features` that it covers, and a tag holds that snapshot against expiry. Data
files never change, so two snapshots differ by whole files. A rewritten file is subtracted and its successor added, and
the rows that it carried over cancel to the last bit, because the Gramian is exact. Iceberg's changelog view gives the
same rows, but sorts all of them to find what was carried over, and needs the snapshots in between.

An update is three commits, in an order that survives a kill between any two: the new tag, the row (the only one that
counts), and the removal of the old tag. A tag that no row names would hold its snapshot, with what was erased since,
for ever: `drop_stale_tags` drops it.
"""

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from fruits.base import schemas
from fruits.job import job_run
from fruits.lake import data_files, overwrite, tables
from fruits.lake.data_files import FileSlice, MappedRows, Selection
from fruits.lake.iceberg import Table
from fruits.model.networks import Network
from fruits.pca import gramian
from fruits.pca.gramian import Gramian

_PREFIX = "pca_sums_"
_ON_DRIVER_ROWS = 1 << 17
"""Up to here, 0.7 GB of features, the driver sums alone: 100,000 rows take its two cores 3.3 s, and two cores of
executors, which have to start Python first, 4.9 s."""
_MAX_PARTS = 16


@dataclass(frozen=True)
class ModelGramian:
    """The Gramian of one model's features and what it covers."""

    gramian: Gramian | None  # None when the model has no features
    snapshot_id: int | None  # the snapshot of ``features``; None while the table is empty
    description: str  # what was read to compute it, for the log
    changed: bool  # whether it differs from the stored one


class _NotUsable(Exception):
    """Why all features must be read."""


@contextmanager
def refresh(
    run: job_run.Run, model_id: str, full_refresh: bool = False, network: Network | None = None
) -> Iterator[ModelGramian]:
    """Bring the Gramian of a model's features up to date, and commit it for the next run while the block uses it.

    A full refresh reads every row instead of building on the stored Gramian. Without a network, the features are as
    those of the stored one. The commit is done when the block has ended.
    """
    current = _compute(run, model_id, full_refresh, network)
    if not current.changed or current.snapshot_id is None:
        yield current
        return
    with ThreadPoolExecutor(1) as executor:  # a commit is mostly waiting, for the JVM and for S3
        commit = executor.submit(save, run, model_id, current.gramian, current.snapshot_id)
        yield current
        commit.result()


def _compute(run: job_run.Run, model_id: str, full_refresh: bool, network: Network | None) -> ModelGramian:
    features = _features(run)
    now = features.snapshot_id
    if now is None:
        return ModelGramian(None, None, "there are no features", changed=False)
    blank = Gramian(network.dims, network.limit) if network else _blank(run, model_id)
    try:
        if full_refresh:
            raise _NotUsable("a full refresh is requested")
        stored, covered = _stored(run, features, model_id)
        if (stored.dims, stored.limit) != (blank.dims, blank.limit):
            raise _NotUsable("the kept sums are of another range of features")
        if covered == now:
            return ModelGramian(stored, now, "nothing changed since the kept sums", changed=False)
        total, description = _update(run, model_id, stored, *_changes(run, features, covered, now))
    except _NotUsable as reason:
        full = _sum(run, model_id, None, blank)
        count = 0 if full is None else full.count
        return ModelGramian(full, now, f"summed all {count} images: {reason}", changed=True)
    return ModelGramian(total, now, description, changed=True)


def save(run: job_run.Run, model_id: str, total: Gramian | None, snapshot_id: int) -> None:
    """Commit a model's Gramian of a snapshot of `features`; delete the model's row if it has no images.

    A kill before the row leaves one tag too many, one after it the old tag: the next call drops both.
    """
    if total is not None and total.count:
        _features(run).tag(_tag(model_id, snapshot_id), snapshot_id)
        row = {
            "model_id": model_id,
            "n": total.count,
            "sums": total.to_bytes(),
            "features_snapshot": snapshot_id,
            "run_id": run.arguments.run_id,
        }
        rows = pa.Table.from_pylist([row], schemas.PCA_SUMS)
        overwrite.replace(run.spark, f"{run.arguments.database}.pca_sums", rows, {"model_id": model_id})
    else:
        _delete(run, model_id)
    drop_stale_tags(run)


def delete_other_models(run: job_run.Run, model_ids: Collection[str]) -> None:
    """Delete all models but these: each erasure would sum them again, and their tags hold old files."""
    for model_id in stored_models(run):
        if model_id not in model_ids:
            _delete(run, model_id)
    drop_stale_tags(run)


def drop_stale_tags(run: job_run.Run) -> None:
    """Drop the tags that no row of `pca_sums` names: those of deleted rows, and what killed jobs left."""
    features = _features(run)
    current = {_tag(row["model_id"], row["features_snapshot"]) for row in _rows(run, "features_snapshot")}
    for tag in features.tags:
        if tag.startswith(_PREFIX) and tag not in current:
            features.untag(tag)


def image_count(run: job_run.Run, model_id: str) -> int:
    """Return the number of images in a model's stored Gramian."""
    return sum(int(row["n"]) for row in _rows(run, "n") if row["model_id"] == model_id)


def stored_models(run: job_run.Run) -> list[str]:
    """Return the IDs of the models with a stored Gramian."""
    return sorted(row["model_id"] for row in _rows(run))


def move_snapshot(run: job_run.Run, before: int, now: int) -> None:
    """Let rows that cover one snapshot cover a later one with the same features, as compaction leaves it."""
    for row in _rows(run, "features_snapshot"):
        if row["features_snapshot"] == before:
            with suppress(_NotUsable):
                stored, _ = _stored(run, _features(run), row["model_id"])
                save(run, row["model_id"], stored, now)


def _features(run: job_run.Run) -> Table:
    return Table(run.spark, f"{run.arguments.database}.features")


def _delete(run: job_run.Run, model_id: str) -> None:
    tables.delete(run.spark, f"{run.arguments.database}.pca_sums", f"model_id = string(X'{model_id.encode().hex()}')")


def _tag(model_id: str, snapshot_id: int) -> str:
    return f"{_PREFIX}{model_id[:16]}_{snapshot_id}"


def _rows(run: job_run.Run, *columns: str) -> list[dict[str, Any]]:
    return data_files.read_dicts(run.spark, f"{run.arguments.database}.pca_sums", ["model_id", *columns])


def _stored(run: job_run.Run, features: Table, model_id: str) -> tuple[Gramian, int]:
    """Read a model's Gramian and the ID of the snapshot that it covers."""
    rows = _rows(run, "sums", "features_snapshot")
    row = next((row for row in rows if row["model_id"] == model_id), None)
    if row is None:
        raise _NotUsable("no sums of this model are kept")
    snapshot = int(row["features_snapshot"])
    if features.tags.get(_tag(model_id, snapshot)) != snapshot:
        raise _NotUsable(f"the snapshot {snapshot} that the kept sums cover is no longer there")
    return Gramian.from_bytes(row["sums"]), snapshot


def _blank(run: job_run.Run, model_id: str) -> Gramian:
    """Return a Gramian without images for features as those of the stored one."""
    sums = next((row["sums"] for row in _rows(run, "sums") if row["model_id"] == model_id), None)
    stored = Gramian.from_bytes(sums) if sums else Gramian()
    return Gramian(stored.dims, stored.limit)


def _changes(run: job_run.Run, features: Table, before: int, now: int) -> tuple[list[FileSlice], list[FileSlice]]:
    changes = data_files.compare_snapshots(run.spark, features.name, before, now)
    if changes is None:
        raise _NotUsable("another writer has marked rows as deleted")
    rows = sum(piece.rows for part in changes for piece in part)
    if rows >= features.rows:
        raise _NotUsable(f"{rows} rows lie in files that changed, no fewer than there are")
    return changes


def _update(
    run: job_run.Run, model_id: str, total: Gramian, added: list[FileSlice], removed: list[FileSlice]
) -> tuple[Gramian, str]:
    new, old = _sum(run, model_id, added, total), _sum(run, model_id, removed, total)
    if new is not None:
        total.merge(new)
    if old is not None:
        total.subtract(old)
    counts = [0 if part is None else part.count for part in (new, old)]
    return total, f"added {counts[0]} rows to the kept sums and subtracted {counts[1]}"


def _sum(run: job_run.Run, model_id: str, pieces: list[FileSlice] | None, like: Gramian) -> Gramian | None:
    """Sum some pieces of `features`, or all of it, as `like`: few rows on the driver, many on the executors."""
    spark, table = run.spark, f"{run.arguments.database}.features"
    features = Selection(spark, table, ["features"], {"model_id": [model_id]})
    if pieces is None:
        pieces = features.slices()
    if pieces is not None and sum(piece.rows for piece in pieces) <= _ON_DRIVER_ROWS:
        total: Gramian | None = gramian.sum_batches(features.batches(pieces), like.dims, like.limit)
    else:
        parts = features.map(gramian.sum_mapper(like.dims, like.limit), schemas.GRAMIAN, run.cores, pieces)
        if parts.tasks is None or parts.tasks > _MAX_PARTS:
            # 13 MB each: the driver gets a few, whatever the size of the table.
            parts = MappedRows(parts.frame().repartition(_MAX_PARTS), gramian.merge_mapper(), schemas.GRAMIAN)
        total = gramian.merge_serialized(part.as_py() for part in parts.fetch()["sums"])
    return total if total is not None and total.count else None
