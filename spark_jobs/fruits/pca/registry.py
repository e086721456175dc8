"""Published PCA models: the rows of `pca_models`."""

from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from fruits.base import schemas
from fruits.base.errors import InputError
from fruits.lake import data_files, tables
from fruits.pca.principal_components import Pca


def requested_sizes(spark: SparkSession, database: str) -> dict[str, str]:
    """Return the requested size of each published PCA model by its ID, the current model first."""
    rows = data_files.read_dicts(spark, f"{database}.pca_models", ["pca_id", "asked", "published_at"])
    rows.sort(key=lambda row: row["published_at"], reverse=True)
    return {row["pca_id"]: row["asked"] for row in rows}


def feature_models(spark: SparkSession, database: str) -> set[str]:
    """Return the IDs of the models whose features the published PCA models are for."""
    return {row["model_id"] for row in data_files.read_dicts(spark, f"{database}.pca_models", ["model_id"])}


def current(spark: SparkSession, database: str) -> Pca | None:
    """Read the current PCA model; None before the first publication."""
    pca_id = next(iter(requested_sizes(spark, database)), None)
    return read(spark, database, pca_id) if pca_id else None


def read(spark: SparkSession, database: str, pca_id: str) -> Pca:
    """Read a published PCA model.

    Raises:
        InputError: No published model has this ID, or it is no longer kept.
    """
    rows = data_files.read_dicts(spark, f"{database}.pca_models", [field.name for field in fields(Pca)])
    row = next((row for row in rows if row["pca_id"] == pca_id), None)
    if row is None:
        raise InputError(
            f"there is no PCA {pca_id} in {database}.pca_models: the current one and the one before it are kept, "
            f"now {', '.join(requested_sizes(spark, database)) or 'none'}"
        )
    arrays: dict[str, Any] = {name: np.array(value) for name, value in row.items() if isinstance(value, list)}
    return Pca(**row | arrays)


def publish(spark: SparkSession, database: str, pca: Pca, run_id: str) -> None:
    """Make a PCA model current: the commit that readers see. Its rows of `pca` must be complete."""
    row = schemas.row_of(pca) | {"k": pca.k, "run_id": run_id, "published_at": datetime.now(UTC)}
    model = spark.createDataFrame(pa.Table.from_pylist([row], schemas.PCA_MODEL)).coalesce(1)
    known = pca.pca_id in requested_sizes(spark, database)
    tables.merge(spark, database, "pca_models", model, None, only_adds=not known)


def delete_others(spark: SparkSession, database: str, kept: list[str]) -> None:
    """Delete all but these PCA models: from `pca_models` first, so that each listed model has all its rows."""
    ids = ", ".join(f"'{pca_id}'" for pca_id in kept)
    for table in ("pca_models", "pca"):
        tables.delete(spark, f"{database}.{table}", f"pca_id NOT IN ({ids})")
