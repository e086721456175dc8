"""Fill the AWS emulator for docker-compose.yaml: the stack, the model, the photos; by the demo's own code.

Runs once for each start of the stack. A second call on the same account changes nothing but the photos that have been
added meanwhile. With --keep it stays, and fills the account again whenever the `aws` container has been restarted,
which empties it; that container is healthy from then on only (compose/healthy.py).
"""

import fcntl
import json
import os
import sys
import time
from pathlib import Path

from botocore.exceptions import BotoCoreError

from dev.demo.account import PARAMETERS, Account, emulator_settings, upload_model
from dev.demo.drawing import draw_fruits
from dev.demo.preflight import image_files
from ops.stack import Deployment

PREFIX = "photos"
MODELS = Path("/var/lib/fruits/models")
PHOTOS = Path("/input/photos")
DRAWN = Path("/tmp/photos")  # noqa: S108  the container's own
SETTINGS = Path("/var/lib/fruits/deployment/settings.env")
FILLED = SETTINGS.with_name("filled")  # newer than the start of `aws` while the account is filled
LOOK_SECONDS = 2


def main() -> None:
    """Fill the account; with --keep, again whenever it is empty."""
    account = Account(os.environ["AWS_ENDPOINT_URL"], os.environ["AWS_REGION"], os.environ)
    deployment = account.deployment(os.environ["FRUITS_DEPLOYMENT_ID"])
    keep = "--keep" in sys.argv
    filled = False
    while keep or not filled:
        try:
            with SETTINGS.with_name("lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # the service that keeps it filled and the one that fills it first
                if not filled or not deployment.describe():
                    FILLED.unlink(missing_ok=True)
                    fill(account, deployment)
                    filled = True
                    FILLED.touch()
        except BotoCoreError as error:
            print(f"waiting for the AWS emulator: {error}", flush=True)
            filled = False
        time.sleep(LOOK_SECONDS if keep or not filled else 0)


def fill(account: Account, deployment: Deployment) -> None:
    """Deploy, upload, and leave the settings that follow from it for compose/entrypoint.sh."""
    stack = deployment.deploy(PARAMETERS)
    model = json.loads((MODELS / "made.json").read_text())
    for model_id in (model["model_id"], model["reference_model_id"]):
        upload_model(account.client("s3"), MODELS / model_id, stack["LakeBucket"])
    photos = PHOTOS
    if not photos.is_dir() or not image_files(photos):
        photos = DRAWN
        draw_fruits(photos)
    count = account.upload_folder(photos, stack["RawBucket"], PREFIX)
    settings = emulator_settings(stack, model["model_id"]) | {
        "FRUITS_RAW_PREFIX": f"{PREFIX}/",
        # Of a real account, where .env names one.
        "FRUITS_RAW_BUCKET_OWNER": "",
        "FRUITS_ERASURE_ROLE": "",
    }
    new = SETTINGS.with_suffix(".new")
    new.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    new.rename(SETTINGS)
    drawn = " drawn" if photos == DRAWN else ""
    print(f"photos: {count}{drawn} in s3://{stack['RawBucket']}/{PREFIX}/")
    print(f"lake: s3://{stack['LakeBucket']}/  model: {model['model_id'][:12]}, weights: {model['weights']}")
    if model["weights"] == "random":
        print(
            "WARNING weights: random, so the vectors mean nothing. Give real ones: make up WEIGHTS=file.h5", flush=True
        )


if __name__ == "__main__":
    main()
