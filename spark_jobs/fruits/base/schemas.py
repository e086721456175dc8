"""The shapes of what flows: table columns, and the Arrow schemas of what mappers give back to Spark."""

from __future__ import annotations

import re

import pyarrow as pa
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

TABLES: dict[str, str] = {
    "images": """
        image_id STRING NOT NULL COMMENT 'hex SHA-256 of source_key',
        source_key STRING NOT NULL COMMENT 'key of the object in the raw bucket, or path below the input folder',
        etag STRING NOT NULL COMMENT 'of the object as it was loaded',
        label STRING COMMENT 'last folder under the input prefix; NULL directly under it',
        width_px INT NOT NULL COMMENT 'of the stored pixels',
        height_px INT NOT NULL COMMENT 'of the stored pixels',
        pixels BINARY NOT NULL COMMENT 'lossless WebP, RGB, upright, no metadata',
        content_sha256 STRING NOT NULL COMMENT 'of the original bytes',
        run_id STRING NOT NULL COMMENT 'the run that loaded it',
        loaded_at TIMESTAMP NOT NULL COMMENT 'UTC'""",
    "rejects": """
        image_id STRING NOT NULL COMMENT 'hex SHA-256 of source_key',
        source_key STRING NOT NULL COMMENT 'key of the object in the raw bucket, or path below the input folder',
        etag STRING NOT NULL COMMENT 'of the object as it was loaded',
        error_code STRING NOT NULL COMMENT 'why it is no image (RejectCode)',
        detail STRING NOT NULL COMMENT 'one sentence for a person',
        run_id STRING NOT NULL COMMENT 'the run that rejected it'""",
    "features": """
        image_id STRING NOT NULL COMMENT 'as in images',
        model_id STRING NOT NULL COMMENT 'SHA-256 of the model artifact',
        features ARRAY<FLOAT> NOT NULL COMMENT '1280 values, average-pooled',
        content_sha256 STRING NOT NULL COMMENT 'of the image that they were computed from',
        run_id STRING NOT NULL COMMENT 'the run that computed them'""",
    "pca_sums": """
        model_id STRING NOT NULL COMMENT 'the model whose features they are of',
        n BIGINT NOT NULL COMMENT 'images summed',
        sums BINARY NOT NULL COMMENT 'fruits.pca.gramian.Gramian.to_bytes: count, sum, upper triangle of the Gramian',
        features_snapshot BIGINT NOT NULL COMMENT 'the snapshot of features that they cover, held by a tag',
        run_id STRING NOT NULL COMMENT 'the run that summed last'""",
    "samples": """
        image_id STRING NOT NULL COMMENT 'as in images',
        model_id STRING NOT NULL COMMENT 'as in features',
        content_sha256 STRING NOT NULL COMMENT 'of the image that they were computed from',
        features_run_id STRING NOT NULL COMMENT 'run_id of the row of features',
        features ARRAY<FLOAT> NOT NULL COMMENT '1280 values',
        thumbnail BINARY COMMENT 'WebP, for the images of the report'""",
    "pca_models": """
        pca_id STRING NOT NULL COMMENT 'SHA-256 of the sums and k',
        model_id STRING NOT NULL COMMENT 'the model whose features it was fitted on',
        k INT NOT NULL COMMENT 'number of components',
        asked STRING NOT NULL COMMENT 'variance=0.95 or k=64',
        n BIGINT NOT NULL COMMENT 'images that it was fitted on',
        mean ARRAY<DOUBLE> NOT NULL COMMENT '1280 values',
        components ARRAY<ARRAY<DOUBLE>> NOT NULL COMMENT 'k rows of 1280 values',
        explained_variance ARRAY<DOUBLE> NOT NULL COMMENT 'k values',
        explained_variance_ratio ARRAY<DOUBLE> NOT NULL COMMENT 'k values',
        variance_curve ARRAY<DOUBLE> NOT NULL COMMENT 'share of the first 1, 2, 3... of all components',
        run_id STRING NOT NULL COMMENT 'the run that published it',
        published_at TIMESTAMP NOT NULL COMMENT 'the largest one is current'""",
    "pca": """
        image_id STRING NOT NULL COMMENT 'as in images',
        pca_id STRING NOT NULL COMMENT 'as in pca_models',
        label STRING COMMENT 'as in images',
        pca ARRAY<FLOAT> NOT NULL COMMENT 'k values',
        content_sha256 STRING NOT NULL COMMENT 'of the image that was projected',
        features_run_id STRING NOT NULL COMMENT 'run_id of the row of features that was projected',
        run_id STRING NOT NULL COMMENT 'the run that computed them'""",
}
"""Columns of each table, as SQL."""

CURRENT_PCA: str = """
SELECT p.*
FROM (SELECT max_by(pca_id, published_at) AS pca_id FROM {database}.pca_models) AS latest
LEFT JOIN {database}.pca AS p ON p.pca_id = latest.pca_id
WHERE CASE WHEN p.pca_id IS NULL THEN CAST('pca is older than pca_models: ' || latest.pca_id AS BOOLEAN) ELSE TRUE END
"""
"""The rows of the PCA published last, in the SQL of Spark, Athena and DuckDB.

A reader whose catalog caches tables can hold a `pca` older than its `pca_models`: the CAST then fails with that
sentence, where an inner join would give no rows. Before the first publication there are none.
"""

_COLUMN = re.compile(r"^\s*(\w+) ([A-Z<>]+)( NOT NULL)?", re.MULTILINE)

KEYS: dict[str, tuple[str, ...]] = {
    "images": ("image_id",),
    "rejects": ("image_id",),
    "features": ("image_id", "model_id"),
    "pca_sums": ("model_id",),
    "samples": ("image_id", "model_id"),
    "pca_models": ("pca_id",),
    "pca": ("image_id", "pca_id"),
}
"""What makes a row unique in each table."""

LISTED = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("source_key", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
    ]
)
"""One listed object."""

LOADED = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("source_key", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("width_px", pa.int32()),
        pa.field("height_px", pa.int32()),
        pa.field("pixels", pa.binary()),
        pa.field("content_sha256", pa.string()),
        pa.field("had_metadata", pa.bool_()),
        pa.field("error_code", pa.string()),
        pa.field("detail", pa.string()),
    ]
)
"""One listed object after loading: pixels, or an error_code and its detail."""

EMBEDDED = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("content_sha256", pa.string(), nullable=False),
        pa.field("features", pa.list_(pa.float32()), nullable=False),
    ]
)
"""One image's features."""

PROJECTED = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("pca", pa.list_(pa.float32())),
        pa.field("dims", pa.int32(), nullable=False),
        pa.field("finite", pa.bool_(), nullable=False),
        pa.field("norm", pa.float32()),
    ]
)
"""One image's principal components, NULL when its features cannot be projected, and what is wrong with them."""

KEPT_SUMS = pa.schema(
    [
        pa.field("model_id", pa.string(), nullable=False),
        pa.field("n", pa.int64(), nullable=False),
        pa.field("sums", pa.binary(), nullable=False),
        pa.field("features_snapshot", pa.int64(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)
"""One row of ``pca_sums``."""

KEPT_SAMPLES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("model_id", pa.string(), nullable=False),
        pa.field("content_sha256", pa.string(), nullable=False),
        pa.field("features_run_id", pa.string(), nullable=False),
        pa.field("features", pa.list_(pa.float32()), nullable=False),
        pa.field("thumbnail", pa.binary()),
    ]
)
"""One row of ``samples``."""

SUMS = pa.schema([pa.field("sums", pa.binary(), nullable=False)])
"""One partition's PCA sums (`fruits.pca.gramian.Gramian.to_bytes`)."""

PCA_MODEL = pa.schema(
    [
        pa.field("pca_id", pa.string(), nullable=False),
        pa.field("model_id", pa.string(), nullable=False),
        pa.field("k", pa.int32(), nullable=False),
        pa.field("asked", pa.string(), nullable=False),
        pa.field("n", pa.int64(), nullable=False),
        pa.field("mean", pa.list_(pa.float64()), nullable=False),
        pa.field("components", pa.list_(pa.list_(pa.float64())), nullable=False),
        pa.field("explained_variance", pa.list_(pa.float64()), nullable=False),
        pa.field("explained_variance_ratio", pa.list_(pa.float64()), nullable=False),
        pa.field("variance_curve", pa.list_(pa.float64()), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("published_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
"""One row of ``pca_models``."""

PCA_EXPORT = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("pca", pa.list_(pa.float32())),
    ]
)
"""``pca.parquet``: one published image."""

SAMPLE = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("pc1", pa.float32()),
        pa.field("pc2", pa.float32()),
        pa.field("thumbnail", pa.binary()),
    ]
)
"""``sample.parquet``: one image of the report's scatter, without its file name; 0 for `pc2` when k is 1."""

THUMBNAIL = pa.schema(
    [pa.field("image_id", pa.string(), nullable=False), pa.field("thumbnail", pa.binary(), nullable=False)]
)
"""One small picture."""

DATA_FILE = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("row_groups", pa.list_(pa.int64()), nullable=False),
    ]
)
"""One data file of a table (`fruits.lake.iceberg.DataFile`)."""

WRITTEN = pa.schema([pa.field("rows", pa.int64(), nullable=False)])
"""What an exporting task wrote."""


def columns(table: str) -> dict[str, tuple[str, bool]]:
    """Give the SQL type of each column of a table, and whether it is required, by its name."""
    return {name: (kind, bool(required)) for name, kind, required in _COLUMN.findall(TABLES[table])}


def spark(schema: pa.Schema) -> StructType:
    """Give an Arrow schema as Spark's."""
    return from_arrow_schema(schema)
