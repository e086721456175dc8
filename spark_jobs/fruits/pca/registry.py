"""Published PCA bases: the rows of `pca_models`."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from fruits.base import schemas
from fruits.base.errors import InputError
from fruits.lake import data_files, tables
from fruits.pca.principal_components import Pca


def asked(spark: SparkSession, database: str) -> dict[str, str]:
    """Tell what was asked for of each published basis, by its id, the current one first."""
    rows = data_files.read_dicts(spark, f"{database}.pca_models", ["pca_id", "asked", "published_at"])
    rows.sort(key=lambda row: row["published_at"], reverse=True)
    return {row["pca_id"]: row["asked"] for row in rows}


def models(spark: SparkSession, database: str) -> set[str]:
    """Name the models that the published bases are of."""
    return {row["model_id"] for row in data_files.read_dicts(spark, f"{database}.pca_models", ["model_id"])}


def current(spark: SparkSession, database: str) -> Pca | None:
    """Read the current basis; None before the first publication."""
    pca_id = next(iter(asked(spark, database)), None)
    return read(spark, database, pca_id) if pca_id else None


def read(spark: SparkSession, database: str, pca_id: str) -> Pca:
    """Read a published basis.

    Raises:
        InputError: There is none with this id, or no longer.
    """
    rows = data_files.read_dicts(spark, f"{database}.pca_models", schemas.PCA_MODEL.names)
    row = next((row for row in rows if row["pca_id"] == pca_id), None)
    if row is None:
        raise InputError(
            f"there is no PCA {pca_id} in {database}.pca_models: the current one and the one before it are kept, "
            f"now {', '.join(asked(spark, database)) or 'none'}"
        )
    return Pca(
        pca_id=row["pca_id"],
        model_id=row["model_id"],
        asked=row["asked"],
        n=row["n"],
        mean=np.array(row["mean"]),
        components=np.array(row["components"]),
        explained_variance=np.array(row["explained_variance"]),
        explained_variance_ratio=np.array(row["explained_variance_ratio"]),
        variance_curve=np.array(row["variance_curve"]),
    )


def publish(spark: SparkSession, database: str, fitted: Pca, run_id: str) -> None:
    """Make a basis the current one: the commit that readers see. Its rows of `pca` must all be there."""
    row = {
        "pca_id": fitted.pca_id,
        "model_id": fitted.model_id,
        "k": fitted.k,
        "asked": fitted.asked,
        "n": fitted.n,
        "mean": fitted.mean.tolist(),
        "components": fitted.components.tolist(),
        "explained_variance": fitted.explained_variance.tolist(),
        "explained_variance_ratio": fitted.explained_variance_ratio.tolist(),
        "variance_curve": fitted.variance_curve.tolist(),
        "run_id": run_id,
        "published_at": datetime.now(UTC),
    }
    model = spark.createDataFrame(pa.Table.from_pylist([row], schemas.PCA_MODEL)).coalesce(1)
    known = fitted.pca_id in asked(spark, database)
    tables.merge(spark, database, "pca_models", model, None, only_adds=not known)


def forget_all_but(spark: SparkSession, database: str, kept: list[str]) -> None:
    """Drop every other basis: first from `pca_models`, so that none is listed whose rows are not all there."""
    names = ", ".join(f"'{pca_id}'" for pca_id in kept)
    for table in ("pca_models", "pca"):
        tables.delete(spark, f"{database}.{table}", f"pca_id NOT IN ({names})")
