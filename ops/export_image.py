"""Export everything that is stored about a photo into a folder.

The caller's own credentials read both buckets, since the raw photo is part of the export.
"""

from pathlib import Path

import boto3
from fruits_airflow.aws.endpoints import CALLED
from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.settings import load_settings
from fruits_airflow.erasure.subject_access import find_photo
from fruits_airflow.storage.object_versions import image_id_of, image_ids_of


def export_image(key: str | None, image_id: str | None, parent: Path) -> None:
    """Write what is stored about the image of a key, or of an `image_id`, below `parent`; print what the folder holds.

    Raises:
        ConfigError: Nothing is stored about the image.
        FileExistsError: There is an export of it already.
    """
    image_ids = image_ids_of(key) if key else frozenset({image_id or ""})
    settings = load_settings()
    client = CALLED.watch(boto3.client("s3", region_name=settings.region))
    photo = find_photo(client, settings.raw_bucket, settings.lake_bucket, image_ids)
    if not (photo.versions or photo.rows or photo.texts):
        form = "this key, in composed and decomposed form" if key else "this image id"
        raise ConfigError(
            f"nothing is kept under {form} ({', '.join(sorted(image_ids))}). Check its spelling against a listing of "
            "the bucket"
        )
    folder = parent / (image_id_of(key) if key else str(image_id))
    photo.write(folder)
    rows = sum(map(len, photo.rows.values()))
    print(f"{folder}: {len(photo.versions)} object versions, {rows} rows, {len(photo.files)} pictures")
    print("It holds personal data: hand it over, then delete it.")
