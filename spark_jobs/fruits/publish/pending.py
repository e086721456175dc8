"""Find the rows that a publication lacks, by aligning the narrow columns of images, features and pca."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fruits.base import schemas
from fruits.job import job_run
from fruits.lake import align


@dataclass(frozen=True)
class PublicationCounts:
    """Counts of images, features and rows of pca."""

    images: int
    features: int  # images whose features match their current content
    images_without_features: int  # or only of other content or models
    features_without_image: int  # features of this model whose image is deleted
    missing: int  # features whose projection by this PCA model is missing or stale
    outdated: int  # of these, those with a stale projection
    orphans: int  # images without row or features that still have rows of any PCA model
    others: int  # images with rows of PCA models other than this one and the one before it
    of_run: int  # images that this run loaded
    runs: list[str]  # that computed the missing features


_IMAGE_COLUMNS = {"label": "label", "source_key": "source_key", "image_run": "run_id"}
_SCHEMA = pa.schema(
    [
        *schemas.required(image_id=pa.string()),
        *((name, pa.string()) for name in (*_IMAGE_COLUMNS, "features_content", "features_run")),
        *schemas.required(present=pa.bool_(), missing=pa.bool_(), unpublished=pa.bool_(), orphan=pa.bool_()),
    ]
)


def find_pending(
    run: job_run.Run, pca_id: str, previous: str | None, current: str | None
) -> tuple[align.AlignedRows, PublicationCounts]:
    """Align images, features and pca once, without reading pixels or vectors.

    Equal totals alone would hide swapped rows. Content and run identify a version of features: a run that is planned
    again can compute those of an image twice.

    Args:
        run: The run, with its database and model.
        pca_id: The PCA model to publish.
        previous: The PCA model that was published before it and is kept.
        current: The PCA model that is published now: one of these two, or None.

    Returns:
        A row for each image id: `label`, `source_key`, `image_run`, the content and run of its features
        (`features_content`, `features_run`), and whether it is among the counts `features` (`present`), `missing` and
        `orphans` (`orphan`), or `unpublished`: the current PCA model has no projection of it; and the counts.
    """
    spark, database = run.spark, run.arguments.database
    sides = (
        align.key_columns(spark, f"{database}.images", image_content="content_sha256", **_IMAGE_COLUMNS),
        align.key_columns(
            spark, f"{database}.features", model_id="model_id", features_content="content_sha256", features_run="run_id"
        ),
        align.key_columns(
            spark, f"{database}.pca", pca_id="pca_id", pca_content="content_sha256", pca_run="features_run_id"
        ),
    )
    classify = partial(
        _classify,
        model_id=run.arguments.model_id,
        pca_id=pca_id,
        current=current,
        retained=[name for name in (pca_id, previous) if name],
        run_id=run.arguments.run_id,
    )
    rows, tally = align.align(spark, sides, classify, _SCHEMA)
    return rows, PublicationCounts(**tally.counts, runs=sorted(tally.runs))


def _classify(
    rows: pa.Table, model_id: str, pca_id: str, current: str | None, retained: Sequence[str], run_id: str
) -> tuple[pa.Table, align.Tally]:
    """Find what a PCA model and the `current` one lack, and rows of PCA models that are not `retained`."""
    images = _group(rows, model_id, pca_id, current, retained)
    has_image, has_features = (align.is_not_null(images[name]) for name in ("image_content", "features_content"))
    present = align.equals(images["image_content"], images["features_content"])
    missing, unpublished = (present & ~_is_projected(images, side) for side in ("pca", "current"))
    orphan = (np.asarray(images["pca_rows"]) > 0) & ~present
    counts = align.count_flags(
        images=has_image,
        features=present,
        images_without_features=has_image & ~present,
        features_without_image=has_features & ~present,
        missing=missing,
        outdated=missing & align.is_not_null(images["pca_run"]),
        orphans=orphan,
        others=np.asarray(images["other_rows"]) > 0,
        of_run=align.equals(images["image_run"], run_id),
    )
    runs = frozenset(images["features_run"].filter(missing).to_pylist())
    flagged = align.with_flags(
        images, _SCHEMA, present=present, missing=missing, unpublished=unpublished, orphan=orphan
    )
    return flagged, align.Tally(counts, runs)


def _is_projected(images: pa.Table, side: str) -> npt.NDArray[np.bool_]:
    """Flag the images whose features, of their content and run, the PCA model of `side` has projected."""
    return align.equals(images[f"{side}_content"], images["features_content"]) & align.equals(
        images[f"{side}_run"], images["features_run"]
    )


def _group(rows: pa.Table, model_id: str, pca_id: str, current: str | None, retained: Sequence[str]) -> pa.Table:
    """Group the rows by image: its columns, those of the features and pca in question, and counts of rows of pca."""
    of_model, of_pca = align.equals(rows["model_id"], model_id), align.equals(rows["pca_id"], pca_id)
    of_current = align.equals(rows["pca_id"], current or "")
    in_pca = align.is_not_null(rows["pca_id"])
    return align.group_by_image(
        rows["image_id"],
        {name: rows[name] for name in ("image_content", *_IMAGE_COLUMNS)}
        | {name: align.null_unless(of_model, rows[name]) for name in ("features_content", "features_run")}
        | {name: align.null_unless(of_pca, rows[name]) for name in ("pca_content", "pca_run")}
        | {f"current_{name}": align.null_unless(of_current, rows[f"pca_{name}"]) for name in ("content", "run")},
        {
            "pca_rows": in_pca.astype(np.int64),
            "other_rows": (in_pca & ~align.is_in(rows["pca_id"], retained)).astype(np.int64),
        },
    )
