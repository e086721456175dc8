"""The assets that other DAGs follow: `schedule=[published_tables(SETTINGS, "fruits")]` runs after each publication."""

from airflow.sdk import Asset, AssetAlias, Context
from pydantic import JsonValue

from fruits_airflow.config.settings import Settings
from fruits_airflow.records.models import RunRecord

# An outlet that is an asset has an event whenever its task succeeds, and `verdict` also succeeds when there was nothing
# to do. An alias has only the events that the task adds.
PUBLISHED = AssetAlias("fruits_published")


def published_tables(settings: Settings, database: str) -> Asset:
    """Return the tables of a database as an asset."""
    return Asset(name=f"{database}.current_pca", uri=f"s3://{settings.lake_bucket}/tables/{database}.db")


def announce(settings: Settings, context: Context, database: str, record: RunRecord) -> None:
    """Add the event of a publication to a task with the outlet PUBLISHED; Airflow emits it when the task succeeds."""
    extra: dict[str, JsonValue] = {"run_id": record.run_id, "pca_id": record.pca.pca_id, "rows": record.pca.n}
    context["outlet_events"][PUBLISHED].add(published_tables(settings, database), extra=extra)
