"""The PCA sums kept between nights: a night adds the files that came to `features` and subtracts those that went.

A row of `pca_sums` names the snapshot of `features` that it covers, and a tag holds that snapshot against expiry. Data
files never change, so two snapshots differ by whole files; a file that was rewritten is subtracted and its successor
added, and the rows that it carried over cancel to the last bit, because the sums are exact. That is what Iceberg's
changelog view would tell, without the sort of all rows by which it finds what was carried over, and without the
snapshots in between.

Three commits, in an order that a kill between any two survives: the new tag, the row (the only one that counts), and
the end of the old tag. A tag that no row names would hold its snapshot for ever, with what was erased since:
`untag` drops it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from fruits.base import schemas
from fruits.job import job_run
from fruits.lake import data_files, overwrite, tables
from fruits.lake.data_files import FileSlice, MappedRows, Selection
from fruits.lake.iceberg import Table
from fruits.pca import gramian
from fruits.pca.gramian import Sums

_PREFIX = "pca_sums_"
_ON_DRIVER_ROWS = 1 << 17
"""Up to here, 0.7 GB of features, the driver sums alone: 100,000 rows take its two cores 3.3 s, and two cores of
executors, which have to start Python first, 4.9 s."""
_MAX_PARTS = 16


@dataclass(frozen=True)
class Kept:
    """The sums of one model and what they cover.

    Attributes:
        sums: None when the model has no features.
        snapshot_id: The snapshot of ``features``; None while the table is empty.
        how: In words, for the log: what was read for them.
        changed: Whether they are other than those in the table.
    """

    sums: Sums | None
    snapshot_id: int | None
    how: str
    changed: bool


@contextmanager
def up_to_date(run: job_run.Run, model_id: str, anew: bool = False) -> Iterator[Kept]:
    """Give the sums of all features of a model, and commit them for the next night while the block uses them.

    Args:
        run: The run, with its database.
        model_id: Whose features.
        anew: Read every row, whatever is kept.

    Yields:
        The sums; committed when the block has ended.
    """
    kept = _brought_up_to_date(run, model_id, anew)
    if not kept.changed or kept.snapshot_id is None:
        yield kept
        return
    with ThreadPoolExecutor(1) as beside:  # a commit is mostly waiting, for the JVM and for S3
        commit = beside.submit(keep, run, model_id, kept.sums, kept.snapshot_id)
        yield kept
        commit.result()


def _brought_up_to_date(run: job_run.Run, model_id: str, anew: bool) -> Kept:
    features = Table(run.spark, f"{run.arguments.database}.features")
    now = features.snapshot_id
    if now is None:
        return Kept(None, None, "there are no features", changed=False)
    kept = "asked to sum anew" if anew else _kept(run, features, model_id)
    if isinstance(kept, str):
        total = _summed(run, model_id, None)
        how = f"summed all {0 if total is None else total.count} images: {kept}"
    elif kept.snapshot_id == now:
        return Kept(kept.sums, now, "nothing changed since the kept sums", changed=False)
    else:
        changes = _changes(run, features, kept.snapshot_id, now)
        if isinstance(changes, str):
            total = _summed(run, model_id, None)
            how = f"summed all {0 if total is None else total.count} images: {changes}"
        else:
            total, how = _merged(run, model_id, kept.sums, *changes)
    return Kept(total, now, how, changed=True)


def keep(run: job_run.Run, model_id: str, total: Sums | None, snapshot_id: int) -> None:
    """Commit the sums of a model that cover a snapshot of `features`; with no images, forget the model.

    A kill before the row leaves one tag too many, one after it the old tag: the next call drops both.
    """
    spark, database = run.spark, run.arguments.database
    if total is not None and total.count:
        Table(spark, f"{database}.features").tag(_tag(model_id, snapshot_id), snapshot_id)
        row = {
            "model_id": model_id,
            "n": total.count,
            "sums": total.to_bytes(),
            "features_snapshot": snapshot_id,
            "run_id": run.arguments.run_id,
        }
        rows = pa.Table.from_pylist([row], schemas.PCA_SUMS)
        overwrite.replace(spark, f"{database}.pca_sums", rows, {"model_id": model_id})
    else:
        _forget(run, model_id)
    untag(run)


def forget_all_but(run: job_run.Run, model_ids: Collection[str]) -> None:
    """Drop the sums of every other model: they would be summed anew by each erasure, their tags hold old files."""
    for model_id in models(run):
        if model_id not in model_ids:
            _forget(run, model_id)
    untag(run)


def untag(run: job_run.Run) -> None:
    """Drop the tags that no row of `pca_sums` names: those of sums that went, and what killed jobs left."""
    features = Table(run.spark, f"{run.arguments.database}.features")
    rows = data_files.read_dicts(
        run.spark, f"{run.arguments.database}.pca_sums", ["model_id", "features_snapshot"]
    )
    named = {_tag(row["model_id"], row["features_snapshot"]) for row in rows}
    for tag in features.tags:
        if tag.startswith(_PREFIX) and tag not in named:
            features.untag(tag)


def count(run: job_run.Run, model_id: str) -> int:
    """Tell how many images the kept sums of a model hold."""
    row = _row(run, model_id, "n")
    return 0 if row is None else int(row["n"])


def models(run: job_run.Run) -> list[str]:
    """Name the models whose sums are kept."""
    rows = data_files.read_dicts(run.spark, f"{run.arguments.database}.pca_sums", ["model_id"])
    return sorted(row["model_id"] for row in rows)


def covered(run: job_run.Run, model_id: str) -> int | None:
    """Name the snapshot of `features` that the kept sums of a model cover; None when there are none."""
    row = _row(run, model_id, "features_snapshot")
    return None if row is None else int(row["features_snapshot"])


def move(run: job_run.Run, before: int, now: int) -> None:
    """Let sums that cover one snapshot cover a later one with the same rows, as compaction leaves it."""
    for model_id in models(run):
        if covered(run, model_id) == before:
            kept = _kept(run, Table(run.spark, f"{run.arguments.database}.features"), model_id)
            if isinstance(kept, _Found):
                keep(run, model_id, kept.sums, now)


def _forget(run: job_run.Run, model_id: str) -> None:
    tables.delete(run.spark, f"{run.arguments.database}.pca_sums", f"model_id = '{model_id}'")


def _tag(model_id: str, snapshot_id: int) -> str:
    return f"{_PREFIX}{model_id[:16]}_{snapshot_id}"


@dataclass(frozen=True)
class _Found:
    sums: Sums
    snapshot_id: int


def _kept(run: job_run.Run, features: Table, model_id: str) -> _Found | str:
    """Find the kept sums, or say why there are none to build on."""
    row = _row(run, model_id, "sums", "features_snapshot")
    if row is None:
        return "no sums of this model are kept"
    snapshot = int(row["features_snapshot"])
    if features.tags.get(_tag(model_id, snapshot)) != snapshot:
        return f"the snapshot {snapshot} that the kept sums cover is no longer there"
    return _Found(Sums.from_bytes(row["sums"]), snapshot)


def _row(run: job_run.Run, model_id: str, *columns: str) -> dict[str, Any] | None:
    rows = data_files.read_dicts(run.spark, f"{run.arguments.database}.pca_sums", ["model_id", *columns])
    return next((row for row in rows if row["model_id"] == model_id), None)


def _changes(
    run: job_run.Run, features: Table, before: int, now: int
) -> tuple[list[FileSlice], list[FileSlice]] | str:
    changes = data_files.compare_snapshots(run.spark, features.name, before, now)
    if changes is None:
        return "another writer has marked rows as deleted"
    rows = sum(piece.rows for part in changes for piece in part)
    if rows >= features.rows:
        return f"{rows} rows lie in files that changed, no fewer than there are"
    return changes


def _merged(
    run: job_run.Run, model_id: str, kept: Sums, added: list[FileSlice], removed: list[FileSlice]
) -> tuple[Sums, str]:
    came, went = _summed(run, model_id, added), _summed(run, model_id, removed)
    if came is not None:
        kept.merge(came)
    if went is not None:
        kept.take(went)
    counts = [0 if part is None else part.count for part in (came, went)]
    return kept, f"added {counts[0]} rows to the kept sums and subtracted {counts[1]}"


def _summed(run: job_run.Run, model_id: str, pieces: list[FileSlice] | None) -> Sums | None:
    """Sum some pieces of `features`, or all of it: few rows here, many on the executors."""
    spark, table = run.spark, f"{run.arguments.database}.features"
    features = Selection(spark, table, ["features"], {"model_id": [model_id]})
    if pieces is None:
        pieces = features.slices()
    if pieces is not None and sum(piece.rows for piece in pieces) <= _ON_DRIVER_ROWS:
        total: Sums | None = gramian.summed(features.batches(pieces))
    else:
        parts = features.map(gramian.summer(), schemas.GRAMIAN, run.cores, pieces)
        if parts.tasks is None or parts.tasks > _MAX_PARTS:
            # 13 MB each: the driver gets a few, whatever the size of the table.
            parts = MappedRows(parts.frame().repartition(_MAX_PARTS), gramian.merger(), schemas.GRAMIAN)
        total = gramian.merged_sums(part.as_py() for part in parts.fetch()["sums"])
    return total if total is not None and total.count else None
