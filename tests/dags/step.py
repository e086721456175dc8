"""Stands for a Spark job: writes the metrics that the stage would write, or fails as it would.

step.py STAGE RUN_FOLDER work|fail|refuse
"""

from __future__ import annotations

import json
import sys
from urllib.parse import urlsplit

import boto3

METRICS = {
    "load_images": {"images": {"seen": 3, "new": 3, "loaded": 3, "rejected": 0}, "bytes": {"pixels": 30}},
    "featurize": {"features": {"rows": 3, "computed": 3}, "bytes": {"features": 300}},
    "reduce_pca": {"pca": {"pca_id": "p", "k": 2, "explained_variance": 0.96, "n": 3}, "variance_curve": [0.9, 0.96]},
    "publish": {"published": True, "quality": {"checks": {}}, "bytes": {"pca": 20}},
}


def main(stage: str, run_folder: str, behaviour: str) -> int:
    """Do what `behaviour` says; return the exit status."""
    sys.stdout.write(f"{stage} says hello\n")
    if behaviour == "fail":
        sys.stderr.write(f"working\nERROR WeightsMismatch: {stage} found other weights; run make model\n")
        return 1
    metrics = {"seconds": 1.0, **METRICS[stage]}
    if behaviour == "refuse":
        checks = {"reject_rate": {"ok": False, "value": 0.5, "limit": 0.2}}
        metrics |= {"published": False, "quality": {"checks": checks}}
    place = urlsplit(run_folder)
    key = f"{place.path.lstrip('/')}/stages/{stage}.json"
    boto3.client("s3").put_object(Bucket=place.netloc, Key=key, Body=json.dumps(metrics).encode())
    return 3 if behaviour == "refuse" else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
