"""All that is kept about one photo, into a folder: `make export-image KEY=images/…/me.jpg` (or ID=… for its image id).

Reads the deployment's settings, and both buckets with the caller's own credentials: the raw photo is part of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from fruits_airflow.aws.endpoints import CALLED
from fruits_airflow.config.errors import FruitsError
from fruits_airflow.config.settings import load_settings
from fruits_airflow.erasure.subject_access import find_photo
from fruits_airflow.storage.object_versions import image_id_of, image_ids_of


def main(argv: list[str] | None = None) -> int:
    """Writes the folder; returns the exit status: 1 when nothing is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--key", help="of the object in the raw bucket")
    which.add_argument("--id", help="of the image: hex SHA-256 of its key")
    parser.add_argument(
        "--out", type=Path, default=Path("build/exports"), help="folder for a folder of its own"
    )
    arguments = parser.parse_args(argv)
    image_ids = frozenset({arguments.id}) if arguments.id else image_ids_of(arguments.key)
    try:
        settings = load_settings()
        client = CALLED.watch(boto3.client("s3", region_name=settings.region))
        found = find_photo(client, settings.raw_bucket, settings.lake_bucket, image_ids)
        if not (found.versions or found.rows or found.texts):
            which_form = "this image id" if arguments.id else "this key, in composed and decomposed form"
            print(f"Nothing is kept under {which_form} ({', '.join(sorted(image_ids))}).", file=sys.stderr)
            print("Check its spelling against a listing of the bucket.", file=sys.stderr)
            return 1
        folder = arguments.out / (arguments.id or image_id_of(arguments.key))
        found.write(folder)
    except (FruitsError, BotoCoreError, ClientError, FileExistsError) as error:
        print(f"ERROR {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    rows = sum(map(len, found.rows.values()))
    print(f"{folder}: {len(found.versions)} object versions, {rows} rows, {len(found.files)} pictures")
    print("It holds personal data: hand it over, then delete it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
