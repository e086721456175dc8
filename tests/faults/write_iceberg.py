"""Commits a word to each table of a database as another writer, and prints what each says; runs in .venv-spark.

python write_iceberg.py ENDPOINT DATABASE [WORD]
"""

from __future__ import annotations

import json
import sys

from read_iceberg import TABLES, open_catalog

NAME = "fault"


def main(endpoint: str, database: str, word: str | None = None) -> None:
    """Sets a property of each table, when there is a word; prints it as it is afterwards."""
    catalog, found = open_catalog(endpoint), {}
    for name in TABLES:
        table = catalog.load_table((database, name))
        if word is not None:
            with table.transaction() as transaction:
                transaction.set_properties({NAME: word})
        found[name] = catalog.load_table((database, name)).properties.get(NAME)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
