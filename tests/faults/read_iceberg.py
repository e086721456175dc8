"""Prints the rows of a database's Iceberg tables as JSON; runs in .venv-spark, which has pyiceberg.

python read_iceberg.py ENDPOINT DATABASE
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import Any

from pyiceberg.catalog import Catalog, load_catalog

TABLES = ("images", "rejects", "features", "pca", "pca_models", "pca_sums", "samples", "classifiers", "predictions")
_LARGE = {"pca_sums": "sums", "samples": "thumbnail"}
"""Columns of which the digest will do."""


def open_catalog(endpoint: str) -> Catalog:
    """The Glue catalog of a `local_aws`."""
    keys = {"access-key-id": os.environ["AWS_ACCESS_KEY_ID"], "secret-access-key": os.environ["AWS_SECRET_ACCESS_KEY"]}
    access = {"region": "eu-west-1", **keys}
    properties = {f"{part}.{name}": value for part in ("glue", "s3") for name, value in access.items()}
    properties |= {"glue.endpoint": endpoint, "s3.endpoint": endpoint, "s3.path-style-access": "true"}
    return load_catalog("lake", type="glue", **properties)


def main(endpoint: str, database: str) -> None:
    """Reads each table at its present snapshot; what is not there yet is empty."""
    catalog = open_catalog(endpoint)
    there = {name for _, name in catalog.list_tables(database)}
    found = {name: rows(catalog, database, name) if name in there else [] for name in TABLES}
    json.dump(found, sys.stdout, default=lambda value: value.hex() if isinstance(value, bytes) else str(value))


def rows(catalog: Catalog, database: str, name: str) -> list[dict[str, Any]]:
    """The rows of one table; what is large in them as its SHA-256."""
    found: list[dict[str, Any]] = catalog.load_table((database, name)).scan().to_arrow().to_pylist()
    large = _LARGE.get(name)
    for row in found if large else []:
        row[large] = hashlib.sha256(row[large] or b"").hexdigest()
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
