"""What other DAGs can follow: `schedule=[published_tables(SETTINGS, "fruits")]` runs after each publication."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import Asset, AssetAlias
from pydantic import JsonValue

from fruits_airflow.config.settings import Settings
from fruits_airflow.records.models import RunRecord

if TYPE_CHECKING:
    from airflow.sdk import Context

# An outlet that is an asset has an event whenever its task succeeds, and verdict succeeds also when a night had nothing
# to do; an alias has the events that the task adds, and so one for the database that was published to.
PUBLISHED = AssetAlias("fruits_published")


def published_tables(settings: Settings, database: str) -> Asset:
    """The tables of a database, as an asset."""
    return Asset(name=f"{database}.current_pca", uri=f"s3://{settings.lake_bucket}/tables/{database}.db")


def announce(settings: Settings, context: Context, database: str, record: RunRecord) -> None:
    """Adds the event; Airflow emits it when the task has succeeded.

    Args:
        settings: of the deployment.
        context: of a task with the outlet PUBLISHED.
        database: what was published to.
        record: the run's record.
    """
    extra: dict[str, JsonValue] = {"run_id": record.run_id, "pca_id": record.pca.pca_id, "rows": record.pca.n}
    context["outlet_events"][PUBLISHED].add(published_tables(settings, database), extra=extra)
