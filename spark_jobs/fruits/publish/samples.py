"""The sample on which `publish` measures neighbours and which the report shows, kept in `samples` between runs.

The sample consists of the first images by id. Ids are digests, so this is as good as a random choice, and a run with
few new images changes few of them. Only their vectors and pixels are read, from the files of the runs that wrote them.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fruits.base import keys, objects, schemas
from fruits.base.batches import to_list_column, to_matrix
from fruits.job import job_run
from fruits.lake import align, overwrite
from fruits.lake.data_files import RowFilter, Selection
from fruits.pca.principal_components import Pca
from fruits.publish import export, quality

ROWS = 2_000
SHOWN = 600
NEW_ROWS = 1_000
_FEW = 50
_COLUMNS = ("image_id", "label", "source_key", "image_run", "features_content", "features_run", "unpublished")


@dataclass(frozen=True)
class Samples:
    """The images of the sample by image id, then unpublished images beside it.

    Attributes:
        table: The rows for the table `samples`; only the first `SHOWN` have a thumbnail.
        features: The features of the sample and of the images beside it, (n, d) float32.
        labels: n labels, None for an image without label.
        sequences: n rotation sequences (`keys.sequence`).
        unpublished: n flags: whether the published PCA model lacks the image.
        is_stored: Whether the table `samples` holds exactly these rows.
    """

    table: pa.Table
    features: npt.NDArray[np.float32]
    labels: list[str | None]
    sequences: list[str]
    unpublished: list[bool]
    is_stored: bool

    def measure(self, fitted: Pca) -> dict[str, Any]:
        """Measure label agreement, and what the PCA explains of unpublished images, as `quality.Facts` has them."""
        new = self.features[np.asarray(self.unpublished, dtype=bool)]
        variance = np.square(new - fitted.mean).sum()
        explained = float(np.square(fitted.project(new)).sum(dtype=np.float64) / variance) if variance else None
        return {"new_photos": len(new), "explained_variance_of_new": explained} | self._agreement(fitted)

    def _agreement(self, fitted: Pca) -> dict[str, Any]:
        labelled = [i for i, label in enumerate(self.labels) if label is not None]
        if not labelled:
            return {}
        vectors, sampled = self.features[labelled], bisect_left(labelled, len(self.table))
        labels = [str(self.labels[i]) for i in labelled]
        sequences = [self.sequences[i] for i in labelled]
        sample = labels[:sampled], sequences[:sampled]
        projected = fitted.project(vectors)
        by_features, judged_photos = quality.neighbour_agreement(vectors[:sampled], *sample)
        by_pca, _ = quality.neighbour_agreement(projected[:sampled], *sample)
        unpublished = [self.unpublished[i] for i in labelled]
        of_new, judged_new = quality.neighbour_agreement(projected, labels, sequences, unpublished)
        return {
            "agreement_features": by_features,
            "agreement_pca": by_pca,
            "judged_photos": judged_photos,
            "agreement_of_new": of_new,
            "judged_new_photos": judged_new,
        }

    def write_shown(self, fitted: Pca, uri: str) -> None:
        """Write the report's sample: the first two components and thumbnails."""
        shown = self.table.slice(0, SHOWN)
        labels = pa.array(self.labels[: len(shown)], pa.string())
        projected = fitted.project(self.features[: len(shown)])
        # With k = 1 there is no second component: the scatter is a line.
        second = projected[:, 1] if fitted.k > 1 else np.zeros(len(projected), np.float32)
        columns = [shown["image_id"], labels, pa.array(projected[:, 0]), pa.array(second), shown["thumbnail"]]
        table = pa.Table.from_arrays(columns, schema=schemas.REPORT_SAMPLE)
        with objects.writer(uri, None) as out:
            pq.write_table(table, out, compression="zstd")


_Version = tuple[str, str, str]
_Stored = dict[_Version, tuple[npt.NDArray[np.float32], bytes | None]]


def draw(run: job_run.Run, rows: align.AlignedRows, model_id: str) -> Samples:
    """Draw the sample and read the vectors and pixels that `samples` does not hold.

    Of the rows of `pending.find_pending`, those that are `present` give the sample, and those that are `unpublished`
    give the images beside it, so that a small share of all images is judged, too.
    """
    drawn = rows.collect(_COLUMNS, "present", limit=ROWS)
    ids = {row.image_id for row in drawn}
    new = rows.collect(_COLUMNS, "unpublished", limit=NEW_ROWS)
    all_drawn = [*drawn, *(row for row in new if row.image_id not in ids)]
    kept = _read_stored(run, model_id)
    stored = kept | _read_features(run, model_id, [row for row in all_drawn if _version(row) not in kept])
    unseen = [row for row in drawn[:SHOWN] if stored[_version(row)][1] is None]
    thumbnails = _read_thumbnails(run, unseen)
    vectors = [stored[_version(row)][0] for row in all_drawn]
    features = np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)
    pictures = [thumbnails.get(row.image_id, stored[_version(row)][1]) for row in drawn]
    table = pa.Table.from_arrays(
        [
            pa.array([row.image_id for row in drawn], pa.string()),
            pa.array([model_id] * len(drawn), pa.string()),
            pa.array([row.features_content for row in drawn], pa.string()),
            pa.array([row.features_run for row in drawn], pa.string()),
            to_list_column(features[: len(drawn)]) if vectors else pa.array([], pa.list_(pa.float32())),
            pa.array(pictures, pa.binary()),
        ],
        schema=schemas.SAMPLES,
    )
    return Samples(
        table=table,
        features=features,
        labels=[row.label for row in all_drawn],
        sequences=[keys.sequence(row.source_key) for row in all_drawn],
        unpublished=[row.unpublished for row in all_drawn],
        is_stored=not unseen and kept.keys() == {_version(row) for row in drawn},
    )


def store(run: job_run.Run, samples: Samples) -> None:
    """Store the sample for the next run, replacing the last one."""
    if not samples.is_stored:
        overwrite.replace(run.spark, f"{run.arguments.database}.samples", samples.table, {})


def _version(row: Any) -> _Version:
    """Identify features by image, content and run: a run that is planned again can compute those of an image twice."""
    return row.image_id, row.features_content, row.features_run


def _read_stored(run: job_run.Run, model_id: str) -> _Stored:
    columns = ["image_id", "content_sha256", "features_run_id", "features", "thumbnail"]
    table = f"{run.arguments.database}.samples"
    return _by_version(Selection(run.spark, table, columns, {"model_id": [model_id]}).read())


def _read_features(run: job_run.Run, model_id: str, lacking: list[Any]) -> _Stored:
    if not lacking:
        return {}
    where = {"model_id": [model_id], **_where(lacking, lambda row: row.features_run)}
    columns = ["image_id", "content_sha256", "run_id", "features"]
    rows = Selection(run.spark, f"{run.arguments.database}.features", columns, where).read()
    rows = rows.rename_columns(["image_id", "content_sha256", "features_run_id", "features"])
    return _by_version(rows.append_column("thumbnail", pa.nulls(len(rows), pa.binary())))


def _read_thumbnails(run: job_run.Run, unseen: list[Any]) -> dict[str, bytes]:
    if not unseen:
        return {}
    where = _where(unseen, lambda row: row.image_run)
    pixels = Selection(run.spark, f"{run.arguments.database}.images", ["image_id", "pixels"], where)
    if len(unseen) > _FEW:
        # Not with Spark's reader: row groups of 16 MB would stay in the JVM until finalizers have run.
        pictures = pixels.map(export.thumbnails, schemas.THUMBNAIL, run.cores).fetch()
    else:
        # Starting Python on the executors takes longer than making few thumbnails.
        batches = export.thumbnails(pixels.read().to_batches())
        pictures = pa.Table.from_batches(batches, schemas.THUMBNAIL)
    return dict(zip(*(pictures[name].to_pylist() for name in schemas.THUMBNAIL.names), strict=True))


def _where(rows: list[Any], get_run: Callable[[Any], str]) -> RowFilter:
    return {"run_id": sorted({get_run(row) for row in rows}), "image_id": [row.image_id for row in rows]}


def _by_version(table: pa.Table) -> _Stored:
    stored: _Stored = {}
    for batch in table.to_batches():
        column = batch.column("features")
        vectors = to_matrix(column, len(column[0]) if batch.num_rows else 0)
        texts = (batch.column(name).to_pylist() for name in ("image_id", "content_sha256", "features_run_id"))
        versions = zip(*texts, strict=True)
        thumbnails = batch.column("thumbnail").to_pylist()
        stored.update(zip(versions, zip(vectors, thumbnails, strict=True), strict=True))
    return stored
