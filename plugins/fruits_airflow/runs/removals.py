"""Stop a run before it removes the rows of more missing photos than the settings allow."""

import hashlib
import io
import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from botocore.exceptions import ClientError

from fruits_airflow.config.errors import RunRefused
from fruits_airflow.config.settings import Settings
from fruits_airflow.storage.lake import Lake, error_code
from fruits_airflow.storage.listing import ListedObject, compare, read_listing

log = logging.getLogger(__name__)

_DAY_S = 24 * 3600


def require_plausible_removals(settings: Settings, lake: Lake, before: Path, after: Path, now: datetime) -> int:
    """Refuse a listing in which too many photos of an earlier listing are missing.

    Erased photos, and photos that the bucket's lifecycle rules have expired, do not count. What explains a missing
    photo is looked up only when the limits are passed.

    Returns:
        The number of photos that the lifecycle rules explain; 0 when they were not looked up.

    Raises:
        RunRefused: More photos are missing than `max_removed_rows` and than `max_removed_share` of the earlier ones.
        ClientError: S3 does not answer now; another attempt asks again.
    """
    import pyarrow.parquet as pq

    photos = pq.read_metadata(before).num_rows
    limit = max(settings.max_removed_rows, settings.max_removed_share * photos)
    if compare(read_listing(before), read_listing(after)).removed <= limit:
        return 0
    erased = _erased_ids(lake)
    is_expired = _expiry(lake, settings.raw_bucket, now.timestamp())
    unexplained = expired = 0

    def count(photo: ListedObject) -> None:
        nonlocal unexplained, expired
        if hashlib.sha256(photo.key.encode()).hexdigest() in erased:
            return
        is_old = is_expired(photo)
        expired, unexplained = expired + is_old, unexplained + (not is_old)

    compare(read_listing(before), read_listing(after), count)
    if unexplained > limit:
        raise RunRefused(
            f"{unexplained} of {photos} photos are no longer in s3://{settings.raw_bucket}, more than max_removed_rows "
            f"({settings.max_removed_rows}) and max_removed_share ({settings.max_removed_share:g}) allow; nothing was "
            "removed. Check that the bucket is complete; if the photos were deleted on purpose, trigger with force"
        )
    return expired


def _erased_ids(lake: Lake) -> set[str]:
    """Read the ids of all erased photos from the suppression list."""
    import pyarrow.parquet as pq

    ids: set[str] = set()
    for key in lake.keys("suppression/"):
        part = io.BytesIO(lake.read(key) or b"")
        ids.update(pq.read_table(part, columns=["key_sha256"]).column(0).drop_null().to_pylist())
    return ids


def _expiry(lake: Lake, bucket: str, now_s: float) -> Callable[[ListedObject], bool]:
    """Tell which photos the bucket's lifecycle rules have expired; no photo where the rules cannot be read."""
    try:
        rules = lake.client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    except ClientError as error:
        if error_code(error) != "NoSuchLifecycleConfiguration":
            log.warning("The lifecycle rules of %s cannot be read, so no photo counts as expired: %s", bucket, error)
        return lambda _: False
    days = {
        rule.get("Filter", rule).get("Prefix", ""): rule["Expiration"]["Days"]
        for rule in rules
        if rule["Status"] == "Enabled"
        and "Days" in rule.get("Expiration", {})
        and rule.get("Filter", {}).keys() <= {"Prefix"}  # a rule with tags or sizes does not apply to every photo
    }

    def is_expired(photo: ListedObject) -> bool:
        # S3 counts from the next midnight; a photo whose time is not known is not expired.
        ages = [days[prefix] for prefix in days if photo.key.startswith(prefix)]
        return bool(photo.uploaded_s and ages) and photo.uploaded_s + min(ages) * _DAY_S <= now_s

    return is_expired
