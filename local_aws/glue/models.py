"""The Glue catalog of one account and region."""

from __future__ import annotations

import threading
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.glue.models import FakeTable, GlueBackend


class ConcurrentModification(JsonRESTError):
    """Somebody else changed the table since it was read."""

    def __init__(self) -> None:
        super().__init__(
            "ConcurrentModificationException", "Update table failed due to concurrent modifications."
        )


class StrictGlueBackend(GlueBackend):
    """moto's catalog, where an update of an old version is refused and two calls never interleave."""

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self._commit = threading.Lock()

    def create_table(
        self,
        database_name: str,
        table_name: str,
        table_input: dict[str, Any],
        open_table_format_input: dict[str, Any] | None = None,
    ) -> FakeTable:
        """Creates a table.

        Raises:
            JsonRESTError: the table is there already, or the database is not.
        """
        with self._commit:
            return super().create_table(database_name, table_name, table_input, open_table_format_input)

    def commit_table(
        self, database_name: str, table_input: dict[str, Any], version_id: str | None, *, skip_archive: bool
    ) -> None:
        """Replaces a table's definition: UpdateTable.

        Args:
            database_name: its database.
            table_input: the new definition, with the table's name.
            version_id: the version it was made from; None replaces whatever is there, as on AWS.
            skip_archive: whether the old version is forgotten.

        Raises:
            ConcurrentModification: the table is at another version.
            JsonRESTError: there is no such table.
        """
        with self._commit:
            table = self.get_table(database_name, table_input["Name"])
            current = str(table.as_dict()["VersionId"])
            if version_id is not None and version_id != current:
                raise ConcurrentModification
            table.update(table_input)
            if skip_archive:
                table.delete_version(current)
