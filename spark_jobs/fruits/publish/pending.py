"""What there is to publish: images, features and pca laid side by side by key, by their narrow columns alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fruits.job import job_run
from fruits.lake import align


@dataclass(frozen=True)
class Work:
    """What the narrow columns of images, features and pca amount to, laid side by side by key.

    Attributes:
        images: Images.
        features: Images whose features are of their present content.
        images_without_features: Images with no features of this model, or only of other content.
        features_without_image: Features of this model whose image is gone.
        missing: Features that this basis has no row of, or one of other content, or of features computed again since.
        outdated: Of these, those with a row.
        orphans: Images that are gone or have no features, and still have rows of some basis.
        others: Images with rows of neither this basis nor the one published before it.
        runs: The runs that computed the missing features.
    """

    images: int
    features: int
    images_without_features: int
    features_without_image: int
    missing: int
    outdated: int
    orphans: int
    others: int
    runs: list[str]


_LAID = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        *(
            pa.field(name, pa.string())
            for name in ("label", "source_key", "image_run", "of_features", "of_run")
        ),
        *(pa.field(name, pa.bool_(), nullable=False) for name in ("present", "missing", "orphan")),
    ]
)


def lay(run: job_run.Run, pca_id: str, before: str | None) -> tuple[align.Laid, Work]:
    """Lay images, features and pca side by side, once, without touching pixels or vectors.

    Equal totals alone would hide swapped rows. Content and run name a version of features: a run that is planned anew
    may compute those of one image twice.

    Args:
        run: The run, with its database and model.
        pca_id: The basis that is to be published.
        before: The one that was published before it and is kept; None where there is none.

    Returns:
        A row for each image id: `label`, `source_key`, `image_run`, the content and run of its features
        (`of_features`, `of_run`), and whether it is among the counts `features` (`present`), `missing` and `orphans`
        (`orphan`); and the counts.
    """
    spark, database = run.spark, run.arguments.database
    sides = (
        align.side(
            spark,
            f"{database}.images",
            of_image="content_sha256",
            label="label",
            source_key="source_key",
            image_run="run_id",
        ),
        align.side(
            spark,
            f"{database}.features",
            model_id="model_id",
            feature_content="content_sha256",
            feature_run="run_id",
        ),
        align.side(
            spark,
            f"{database}.pca",
            pca_id="pca_id",
            projected_content="content_sha256",
            projected_run="features_run_id",
        ),
    )
    look = _look(run.arguments.model_id, pca_id, [name for name in (pca_id, before) if name])
    laid, told = align.together(spark, sides, look, _LAID)
    return laid, Work(**told.counts, runs=sorted(told.runs))


def _look(model_id: str, pca_id: str, kept: list[str]) -> align.Look:
    """Look at what a basis lacks, for features of a model, and at rows of bases that are not among those `kept`."""

    def look(rows: pa.Table) -> tuple[pa.Table, align.Told]:
        of_model, in_pca = align.same(rows["model_id"], model_id), align.given(rows["pca_id"])
        of_basis = align.same(rows["pca_id"], pca_id)
        row = align.by_key(
            rows["image_id"],
            {name: rows[name] for name in ("of_image", "label", "source_key", "image_run")}
            | {
                "of_features": align.where(of_model, rows["feature_content"]),
                "of_run": align.where(of_model, rows["feature_run"]),
                "of_pca": align.where(of_basis, rows["projected_content"]),
                "pca_run": align.where(of_basis, rows["projected_run"]),
            },
            {
                "in_pca": in_pca.astype(np.int64),
                "others": (in_pca & ~align.among(rows["pca_id"], kept)).astype(np.int64),
            },
        )
        image, feature = align.given(row["of_image"]), align.given(row["of_features"])
        present = align.same(row["of_image"], row["of_features"])
        this_content = align.same(row["of_pca"], row["of_features"])
        missing = present & ~(this_content & align.same(row["pca_run"], row["of_run"]))
        orphan = (np.asarray(row["in_pca"]) > 0) & ~present
        counts = align.counts(
            images=image,
            features=present,
            images_without_features=image & ~present,
            features_without_image=feature & ~present,
            missing=missing,
            outdated=missing & align.given(row["pca_run"]),
            orphans=orphan,
            others=np.asarray(row["others"]) > 0,
        )
        laid = align.flagged(row, _LAID, present=present, missing=missing, orphan=orphan)
        runs = frozenset(row["of_run"].filter(missing).to_pylist())
        return laid, align.Told(counts, runs)

    return look
