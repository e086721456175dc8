"""Columns of the Iceberg tables, and Arrow schemas of what mappers return to Spark."""

import re
from typing import Any

import numpy as np
import pyarrow as pa

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
        features ARRAY<FLOAT> NOT NULL COMMENT '1280 values of MobileNetV2, average-pooled',
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
        features ARRAY<FLOAT> NOT NULL COMMENT '1280 values of MobileNetV2',
        thumbnail BINARY COMMENT 'WebP, for the images of the report'""",
    "pca_models": """
        pca_id STRING NOT NULL COMMENT 'SHA-256 of the sums and k',
        model_id STRING NOT NULL COMMENT 'the model whose features it was fitted on',
        k INT NOT NULL COMMENT 'number of components',
        asked STRING NOT NULL COMMENT 'variance=0.95 or k=64',
        n BIGINT NOT NULL COMMENT 'images that it was fitted on',
        mean ARRAY<DOUBLE> NOT NULL COMMENT 'a value for each feature',
        components ARRAY<ARRAY<DOUBLE>> NOT NULL COMMENT 'k rows of a value for each feature',
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
    "classifiers": """
        classifier_id STRING NOT NULL COMMENT 'SHA-256 of the sums, PCA model, settings and photos held out',
        pca_id STRING NOT NULL COMMENT 'the PCA model whose vectors it names',
        settings STRING NOT NULL COMMENT 'that it was fitted with',
        label_set STRING NOT NULL COMMENT 'SHA-256 of the labels of all photos',
        n BIGINT NOT NULL COMMENT 'labelled photos, those held out included',
        labels ARRAY<STRING> NOT NULL COMMENT 'the labels it knows, sorted',
        whitening ARRAY<ARRAY<DOUBLE>> NOT NULL COMMENT 'k rows of k values',
        means ARRAY<ARRAY<DOUBLE>> NOT NULL COMMENT 'k values for each label, whitened',
        log_priors ARRAY<DOUBLE> NOT NULL COMMENT 'logarithm of the share of each label',
        temperature DOUBLE NOT NULL COMMENT 'scores are divided by it',
        min_confidence DOUBLE NOT NULL COMMENT 'of an answer, 0 to 1; above 1 nothing is answered',
        max_distance DOUBLE NOT NULL COMMENT 'of an answer, squared Mahalanobis distance from the nearest label',
        top1 DOUBLE NOT NULL COMMENT 'share of photos held out whose most probable label is right',
        evaluation STRING NOT NULL COMMENT 'JSON of fruits.classifier.evaluation.evaluate',
        run_id STRING NOT NULL COMMENT 'the run that published it',
        published_at TIMESTAMP NOT NULL COMMENT 'the largest one is current'""",
    "predictions": """
        image_id STRING NOT NULL COMMENT 'as in images',
        classifier_id STRING NOT NULL COMMENT 'as in classifiers',
        label STRING COMMENT 'the name; NULL where the classifier does not know',
        confidence DOUBLE NOT NULL COMMENT 'calibrated probability of the most probable label, 0 to 1',
        second_label STRING NOT NULL COMMENT 'the next most probable label',
        content_sha256 STRING NOT NULL COMMENT 'of the image that was named',
        features_run_id STRING NOT NULL COMMENT 'run_id of the row of features that was named',
        run_id STRING NOT NULL COMMENT 'the run that named it'""",
}
"""Columns of each table, as SQL."""

CURRENT_PCA: str = """
SELECT p.*
FROM (SELECT max_by(pca_id, published_at) AS pca_id FROM {database}.pca_models) AS latest
LEFT JOIN {database}.pca AS p ON p.pca_id = latest.pca_id
WHERE CASE WHEN p.pca_id IS NULL THEN CAST('pca is older than pca_models: ' || latest.pca_id AS BOOLEAN) ELSE TRUE END
"""
"""The query for the rows of the current PCA model, in the SQL of Spark, Athena and DuckDB.

A reader whose catalog caches tables can hold a `pca` that is older than its `pca_models`. The CAST then fails with
that sentence; an inner join would return no rows. Before the first publication there are no rows.
"""

KEYS: dict[str, tuple[str, ...]] = {
    "images": ("image_id",),
    "rejects": ("image_id",),
    "features": ("image_id", "model_id"),
    "pca_sums": ("model_id",),
    "samples": ("image_id", "model_id"),
    "pca_models": ("pca_id",),
    "pca": ("image_id", "pca_id"),
    "classifiers": ("classifier_id",),
    "predictions": ("image_id", "classifier_id"),
}
"""The unique key of each table."""

_COLUMN = re.compile(r"^\s*(\w+) ([A-Z<>]+)( NOT NULL)?", re.MULTILINE)
_ARROW = {
    "STRING": pa.string(),
    "BINARY": pa.binary(),
    "INT": pa.int32(),
    "BIGINT": pa.int64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "TIMESTAMP": pa.timestamp("us", tz="UTC"),
}


def table_columns(table: str) -> dict[str, tuple[str, bool]]:
    """Return the SQL type of each column of a table, and whether it is required, by the column's name."""
    return {name: (kind, bool(required)) for name, kind, required in _COLUMN.findall(TABLES[table])}


def table_schema(table: str) -> pa.Schema:
    """Return the Arrow schema of a table's rows."""
    columns = table_columns(table).items()
    return pa.schema([pa.field(name, _arrow_type(kind), not required) for name, (kind, required) in columns])


def _arrow_type(kind: str) -> pa.DataType:
    if kind.startswith("ARRAY<"):
        return pa.list_(_arrow_type(kind.removeprefix("ARRAY<").removesuffix(">")))
    return _ARROW[kind]


def row_of(record: object) -> dict[str, Any]:
    """Return the fields of a dataclass as a row of a table, with arrays as lists."""
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(record).items()}


def required(**types: pa.DataType) -> list[pa.Field]:
    """Return fields that are not nullable, of the types given by name."""
    return [pa.field(name, kind, nullable=False) for name, kind in types.items()]


def to_spark(schema: pa.Schema) -> Any:
    """Convert an Arrow schema to Spark's; nothing else in this module needs PySpark, which `fruits_lake` lacks."""
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema)


LISTING = pa.schema(required(image_id=pa.string(), source_key=pa.string(), etag=pa.string(), size_bytes=pa.int64()))
"""A listed object."""

LOAD_RESULT = pa.schema(
    [
        *required(image_id=pa.string(), source_key=pa.string(), etag=pa.string()),
        ("label", pa.string()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("pixels", pa.binary()),
        ("content_sha256", pa.string()),
        ("had_metadata", pa.bool_()),
        ("error_code", pa.string()),
        ("detail", pa.string()),
    ]
)
"""A listed object after loading: pixels, or an error_code and its detail."""

EMBEDDING = pa.schema(required(image_id=pa.string(), content_sha256=pa.string(), features=pa.list_(pa.float32())))
"""The features of an image."""

PROJECTION = pa.schema(
    [
        *required(image_id=pa.string()),
        ("pca", pa.list_(pa.float32())),
        *required(dims=pa.int32(), finite=pa.bool_()),
        ("norm", pa.float32()),
    ]
)
"""The principal components of an image, NULL when its features cannot be projected, and the checks of its features."""

NAMED = pa.schema(
    [
        *(field for field in table_schema("predictions") if field.name not in ("classifier_id", "run_id")),
        *(("is_known", pa.bool_()), ("is_right", pa.bool_())),
    ]
)
"""A named image: `is_right` says whether its most probable label is its own, NULL without one."""

PCA_SUMS = table_schema("pca_sums")
SAMPLES = table_schema("samples")
PCA_MODEL = table_schema("pca_models")
CLASSIFIER = table_schema("classifiers")

GRAMIAN = pa.schema(required(sums=pa.binary()))
"""The PCA statistics of a partition (`fruits.pca.gramian.Gramian.to_bytes`)."""

PCA_EXPORT = pa.schema([table_schema("pca").field(name) for name in ("image_id", "label", "pca", "run_id")])
"""A published image in ``pca.parquet``; `run_id` is the run that computed its vector."""

REPORT_SAMPLE = pa.schema(
    [
        *required(image_id=pa.string()),
        ("label", pa.string()),
        ("pc1", pa.float32()),
        ("pc2", pa.float32()),
        ("thumbnail", pa.binary()),
    ]
)
"""An image of the report's scatter in ``sample.parquet``, without its file name; `pc2` is 0 when k is 1."""

THUMBNAIL = pa.schema(required(image_id=pa.string(), thumbnail=pa.binary()))

DATA_FILE = pa.schema(
    required(uri=pa.string(), size_bytes=pa.int64(), rows=pa.int64(), row_groups=pa.list_(pa.int64()))
)
"""A data file of a table (`fruits.lake.iceberg.DataFile`)."""

LOAD_FILE = pa.schema(
    [*(field.with_nullable(True) for field in DATA_FILE), ("table", pa.string()), ("outcome", pa.string())]
)
"""A data file of `images` or `rejects`; or, with NULL elsewhere, what came out of a task (JSON)."""

ROW_COUNT = pa.schema(required(rows=pa.int64()))
"""The number of rows that an export task wrote."""
