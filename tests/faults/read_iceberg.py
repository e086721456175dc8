"""Prints the rows of a database's Iceberg tables as JSON; runs in .venv-spark, which has pyiceberg.

python read_iceberg.py ENDPOINT DATABASE
"""

from __future__ import annotations

import json
import sys

from pyiceberg.catalog import Catalog, load_catalog

TABLES = ("images", "rejects", "features", "pca", "pca_models")


def open_catalog(endpoint: str) -> Catalog:
    """The Glue catalog of a `local_aws`."""
    access = {"region": "eu-west-1", "access-key-id": "local", "secret-access-key": "local"}
    properties = {f"{part}.{name}": value for part in ("glue", "s3") for name, value in access.items()}
    properties |= {"glue.endpoint": endpoint, "s3.endpoint": endpoint, "s3.path-style-access": "true"}
    return load_catalog("lake", type="glue", **properties)


def main(endpoint: str, database: str) -> None:
    """Reads each table at its present snapshot; what is not there yet is empty."""
    catalog = open_catalog(endpoint)
    there = {name for _, name in catalog.list_tables(database)}
    found = {
        name: catalog.load_table((database, name)).scan().to_arrow().to_pylist() if name in there else []
        for name in TABLES
    }
    json.dump(
        found, sys.stdout, default=lambda value: value.hex() if isinstance(value, bytes) else str(value)
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
