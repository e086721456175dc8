"""The Glue catalog of one account and region."""

import threading
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.glue.models import FakeTable, GlueBackend


class ConcurrentModification(JsonRESTError):
    """The table has changed since it was read."""

    def __init__(self) -> None:
        super().__init__("ConcurrentModificationException", "Update table failed due to concurrent modifications.")


class StrictGlueBackend(GlueBackend):
    """moto's catalog, with updates of old versions refused and calls that never interleave."""

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self._commit = threading.Lock()

    def create_table(self, *args: Any, **kwargs: Any) -> FakeTable:
        """Create a table."""
        with self._commit:
            return super().create_table(*args, **kwargs)

    def commit_table(
        self, database_name: str, table_input: dict[str, Any], version_id: str | None, *, skip_archive: bool
    ) -> None:
        """Replace the definition of the table that `table_input` names, and forget the old one if `skip_archive`.

        As on AWS, a `version_id` of None replaces any version.

        Raises:
            ConcurrentModification: The table has another version.
        """
        with self._commit:
            table = self.get_table(database_name, table_input["Name"])
            current = str(table.as_dict()["VersionId"])
            if version_id is not None and version_id != current:
                raise ConcurrentModification
            table.update(table_input)
            if skip_archive:
                table.delete_version(current)
