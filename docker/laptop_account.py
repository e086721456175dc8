"""Fills the laptop's AWS for docker-compose.yaml: the stack, the model, the photos; by the demo's own code.

Runs once for each start of the `aws` container, whose account begins empty. A second call on the same account
changes nothing but the photos that have been added meanwhile.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from dev.demo.account import STACK, Account
from dev.demo.drawing import draw_fruits
from dev.demo.preflight import image_files

PREFIX = "photos"
TEMPLATE = Path("include/stack.yaml")
MODELS = Path("/var/lib/fruits/models")
PHOTOS = Path("/input/photos")
DRAWN = Path("/tmp/photos")  # noqa: S108  the container's own
SETTINGS = Path("/var/lib/fruits/deployment/settings.env")


def main() -> None:
    """Deploys, uploads, and leaves the settings that follow from it for docker/entrypoint.sh."""
    account = Account(os.environ["AWS_ENDPOINT_URL"], os.environ["AWS_REGION"], os.environ)
    stack = _stack(account, os.environ["FRUITS_DEPLOYMENT_ID"])
    model = json.loads((MODELS / "made.json").read_text())
    for model_id in (model["model_id"], model["reference_model_id"]):
        account.upload_model(MODELS / model_id, stack["LakeBucket"])
    photos = PHOTOS
    if not photos.is_dir() or not image_files(photos):
        photos = DRAWN
        draw_fruits(photos)
    count = account.upload_folder(photos, stack["RawBucket"], PREFIX)
    _write_settings(
        {
            "FRUITS_RAW_BUCKET": stack["RawBucket"],
            "FRUITS_RAW_PREFIX": f"{PREFIX}/",
            "FRUITS_LAKE_BUCKET": stack["LakeBucket"],
            "FRUITS_MODEL_ID": model["model_id"],
            "FRUITS_SERVICE_ROLE": stack["ServiceRole"],
            "FRUITS_INSTANCE_PROFILE": stack["InstanceProfile"],
            "FRUITS_SECURITY_CONFIGURATION": stack["SecurityConfiguration"],
            "FRUITS_SUBNET_ID": stack["SubnetId"],
            "FRUITS_NODE_ENVIRONMENT": "preinstalled",
        }
    )
    drawn = " drawn" if photos == DRAWN else ""
    print(f"photos: {count}{drawn} in s3://{stack['RawBucket']}/{PREFIX}/")
    print(f"lake: s3://{stack['LakeBucket']}/  model: {model['model_id'][:12]}, weights: {model['weights']}")
    if model["weights"] == "random":
        print(
            "WARNING weights: random, so the vectors mean nothing. Give real ones: make up WEIGHTS=file.h5",
            flush=True,
        )


def _stack(account: Account, deployment_id: str) -> dict[str, str]:
    formation = account.client("cloudformation")
    found = [stack for stack in formation.describe_stacks()["Stacks"] if stack["StackName"] == STACK]
    if not found:
        return account.deploy(TEMPLATE, deployment_id)
    return {output["OutputKey"]: output["OutputValue"] for output in found[0]["Outputs"]}


def _write_settings(settings: dict[str, str]) -> None:
    new = SETTINGS.with_suffix(".new")
    new.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    new.rename(SETTINGS)


if __name__ == "__main__":
    main()
