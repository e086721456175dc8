"""The sample that `publish` measures neighbours on and the report shows, kept in `samples` between nights.

They are the first by their ids, which are digests and so as good as drawn by lot: a night with few new images changes
few of them, and only their vectors and pixels are read, from the files of the runs that wrote them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fruits.base import keys, objects, schemas
from fruits.base.batches import list_column, matrix
from fruits.job import job_run
from fruits.lake import align, data_files, overwrite
from fruits.pca.principal_components import Pca
from fruits.publish import export, quality

ROWS = 2_000
SHOWN = 600
_FEW = 50
_DRAWN = ("image_id", "label", "source_key", "image_run", "of_features", "of_run")


@dataclass(frozen=True)
class Samples:
    """The images of the sample, in the order in which they were drawn.

    Attributes:
        image_ids: n ids.
        labels: n labels, None where there is none.
        sequences: n rotation sequences (`keys.sequence`).
        features: (n, d) float32.
        thumbnails: n WebP pictures; None beyond the first `SHOWN`.
        kept: Whether `samples` holds exactly these.
        table: As `samples` keeps them.
    """

    image_ids: list[str]
    labels: list[str | None]
    sequences: list[str]
    features: npt.NDArray[np.float32]
    thumbnails: list[bytes | None]
    kept: bool
    table: pa.Table

    def agreement(self, fitted: Pca) -> tuple[float | None, float | None, int]:
        """Measure 1-NN label agreement by raw features and by PCA, and on how many photos."""
        labelled = [i for i, label in enumerate(self.labels) if label is not None]
        if not labelled:
            return None, None, 0
        vectors = self.features[labelled]
        labels = [str(self.labels[i]) for i in labelled]
        sequences = [self.sequences[i] for i in labelled]
        by_features, judged = quality.neighbour_agreement(vectors, labels, sequences)
        by_pca, _ = quality.neighbour_agreement(fitted.project(vectors), labels, sequences)
        return by_features, by_pca, judged

    def write_shown(self, fitted: Pca, uri: str) -> None:
        """Write the report's sample: first two components and small pictures."""
        shown = slice(0, SHOWN)
        projected = fitted.project(self.features[shown])
        # With k = 1 there is no second component: the scatter is a line.
        second = projected[:, 1] if fitted.k > 1 else np.zeros(len(projected), np.float32)
        columns = [
            pa.array(self.image_ids[shown], pa.string()),
            pa.array(self.labels[shown], pa.string()),
            pa.array(projected[:, 0]),
            pa.array(second),
            pa.array(self.thumbnails[shown], pa.binary()),
        ]
        table = pa.Table.from_arrays(columns, schema=schemas.SAMPLE)
        with objects.writer(uri, None) as out:
            pq.write_table(table, out, compression="zstd")


def draw(run: job_run.Run, laid: align.Laid, model_id: str) -> Samples:
    """Draw the sample and read what is not kept of it.

    Args:
        run: The run, with its database.
        laid: What there is, side by side (`unpublished.lay`): the sample is drawn from what is `present`.
        model_id: Whose features.
    """
    drawn = laid.first(ROWS, _DRAWN, "present")
    known = _kept(run, model_id)
    lacking = [row for row in drawn if _version(row) not in known]
    known |= _features(run, model_id, lacking)
    unseen = [row for row in drawn[:SHOWN] if known[_version(row)][1] is None]
    thumbnails = _thumbnails(run, unseen)
    found = [known[_version(row)] for row in drawn]
    features = [vector for vector, _ in found]
    new = {row.image_id for row in unseen}
    pictures = [
        thumbnails[row.image_id] if row.image_id in new else picture
        for row, (_, picture) in zip(drawn, found, strict=True)
    ]
    matrix_of_all = np.stack(features) if features else np.zeros((0, 0), np.float32)
    table = pa.Table.from_arrays(
        [
            pa.array([row.image_id for row in drawn], pa.string()),
            pa.array([model_id] * len(drawn), pa.string()),
            pa.array([row.of_features for row in drawn], pa.string()),
            pa.array([row.of_run for row in drawn], pa.string()),
            list_column(matrix_of_all) if features else pa.array([], pa.list_(pa.float32())),
            pa.array(pictures, pa.binary()),
        ],
        schema=schemas.KEPT_SAMPLES,
    )
    return Samples(
        image_ids=[row.image_id for row in drawn],
        labels=[row.label for row in drawn],
        sequences=[keys.sequence(row.source_key) for row in drawn],
        features=matrix_of_all,
        thumbnails=pictures,
        kept=not lacking and not unseen and len(known) == len(drawn),
        table=table,
    )


def keep(run: job_run.Run, samples: Samples) -> None:
    """Keep the sample for the next night, in place of the last one."""
    if not samples.kept:
        overwrite.replace(run.spark, f"{run.arguments.database}.samples", samples.table, {})


_Version = tuple[str, str, str]
_Known = dict[_Version, tuple[npt.NDArray[np.float32], bytes | None]]


def _version(row: Any) -> _Version:
    """Name features by image, content and run: a run that is planned anew may compute those of one image twice."""
    return row.image_id, row.of_features, row.of_run


def _kept(run: job_run.Run, model_id: str) -> _Known:
    columns = ["image_id", "content_sha256", "features_run_id", "features", "thumbnail"]
    return _by_id(
        data_files.here(run.spark, f"{run.arguments.database}.samples", columns, {"model_id": [model_id]})
    )


def _features(run: job_run.Run, model_id: str, lacking: list[Any]) -> _Known:
    if not lacking:
        return {}
    found = data_files.here(
        run.spark,
        f"{run.arguments.database}.features",
        ["image_id", "content_sha256", "run_id", "features"],
        {"model_id": [model_id], **_wanted(lacking, "of_run")},
    )
    columns = ["image_id", "content_sha256", "features_run_id", "features"]
    nothing = pa.nulls(len(found), pa.binary())
    return _by_id(found.rename_columns(columns).append_column("thumbnail", nothing))


def _thumbnails(run: job_run.Run, unseen: list[Any]) -> dict[str, bytes]:
    if not unseen:
        return {}
    table, columns = f"{run.arguments.database}.images", ["image_id", "pixels"]
    wanted = _wanted(unseen, "image_run")
    if len(unseen) > _FEW:
        # Not by Spark's reader: row groups of 16 MB would stay in the JVM until finalizers have run.
        made = data_files.mapped(
            run.spark, table, columns, wanted, export.thumbnails, schemas.THUMBNAIL, run.cores
        ).fetched()
    else:
        # Starting Python on the executors takes longer than drawing these.
        found = data_files.here(run.spark, table, columns, wanted)
        made = pa.Table.from_batches(export.thumbnails(found.to_batches()), schemas.THUMBNAIL)
    return dict(zip(*(made.column(name).to_pylist() for name in schemas.THUMBNAIL.names), strict=True))


def _wanted(drawn: list[Any], of_run: str) -> data_files.Wanted:
    runs = sorted({getattr(row, of_run) for row in drawn})
    return {"run_id": runs, "image_id": [row.image_id for row in drawn]}


def _by_id(table: pa.Table) -> _Known:
    known: _Known = {}
    for batch in table.to_batches():
        column = batch.column("features")
        vectors = matrix(column, len(column[0]) if batch.num_rows else 0)
        for image_id, content, run_id, vector, thumbnail in zip(
            batch.column("image_id").to_pylist(),
            batch.column("content_sha256").to_pylist(),
            batch.column("features_run_id").to_pylist(),
            vectors,
            batch.column("thumbnail").to_pylist(),
            strict=True,
        ):
            known[image_id, content, run_id] = (vector, thumbnail)
    return known
