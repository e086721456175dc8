"""What a night on AWS has shown: measured values, and answers to what AWS's documentation leaves open."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from fruits_airflow.emr.cluster_body import CLUSTER_FILE
from fruits_airflow.emr.clusters import instances_of
from fruits_airflow.emr.step_logs import MAX_LOG_BYTES
from fruits_airflow.records.models import RunRecord
from fruits_airflow.storage.inflate import inflate

from ops.preflight import Finding
from ops.removal import emr_endpoints, emr_security_groups, networks_of
from ops.stack import Deployment
from ops.template import REPOSITORY

EVIDENCE = REPOSITORY / "docs" / "evidence" / "first_night.json"
OF_RECORD = {"run_id", "state", "region", "simulated", "cluster", "images", "cost", "seconds"}
UNKNOWN_CLUSTER = "j-0000000000000"
_PYTHON_LINE = re.compile(r"python3\.\d+ (is on the image|comes from the repository of the image)")
_FIXED_MINUTES = re.compile(r"(\n  demo:\n.*?fixed_minutes: )[^\n]*", re.DOTALL)


def collect(deployment: Deployment, emr: Any, run: RunRecord, findings: Iterable[Finding]) -> dict[str, Any]:
    """Return the evidence of a run with a cluster, from its record, the nodes, steps and logs, and the network.

    `emr` acts as Airflow's role; `findings` are those of preflight.
    """
    s3, lake = deployment.account.client("s3"), deployment.outputs()["LakeBucket"]
    cluster_id = str(run.cluster.id)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=lake, Prefix=f"logs/{cluster_id}/")
    logs = {item["Key"]: item["LastModified"] for page in pages for item in page.get("Contents", [])}
    steps = [step for page in emr.get_paginator("list_steps").paginate(ClusterId=cluster_id) for step in page["Steps"]]
    delays, encryption, pythons = [], set(), set()
    for step in steps:
        if written := logs.get(key := f"logs/{cluster_id}/steps/{step['Id']}/stderr.gz"):
            delays.append((written - step["Status"]["Timeline"]["EndDateTime"]).total_seconds())
            encryption.add(s3.head_object(Bucket=lake, Key=key)["ServerSideEncryption"])
    for key in logs:
        if "/bootstrap-actions/" in key and key.endswith("/stdout.gz"):
            pieces = inflate(s3.get_object(Bucket=lake, Key=key)["Body"], MAX_LOG_BYTES)
            text = b"".join(pieces).decode(errors="replace")
            pythons |= {match[1] for match in _PYTHON_LINE.finditer(text)}
    nodes = [
        {"type": node["InstanceType"], "market": node["Market"], **_minutes(node["Status"]["Timeline"])}
        for node in instances_of(emr, cluster_id)
    ]
    work_s = run.seconds.load_images + run.seconds.featurize
    images = run.images.loaded + run.images.rejected
    ec2, networks = deployment.account.client("ec2"), networks_of(deployment)
    return {
        **run.model_dump(include=OF_RECORD),
        "start_up_minutes": round(run.seconds.cluster_start / 60, 2),
        "fixed_minutes": round(max(node["minutes"] for node in nodes) - work_s / 60, 1),
        "images_per_s_per_vcpu": round(images / work_s / run.cluster.vcpus, 3) if work_s else None,
        "log_delay_s": max(delays, default=None),
        "nodes": nodes,
        "answers": {
            "what EMR leaves in the network": [
                *emr_endpoints(ec2, networks),
                *(group["GroupName"] for group in emr_security_groups(ec2, networks)),
            ],
            "Python 3.11 before the applications": sorted(pythons),
            "encryption of the logs": sorted(encryption),
            "quotas": [asdict(finding) for finding in findings if finding.subject.startswith("quota")],
            "DescribeCluster of an unknown id": _error_code(emr),
        },
    }


def write(evidence: Mapping[str, Any], folder: Path, account_id: str, cluster_file: Path = CLUSTER_FILE) -> Path:
    """Write the evidence with the account's id masked, and the measured fixed_minutes into include/cluster.yaml.

    Returns:
        EVIDENCE, or a file of `folder` for a night that failed or that the AWS emulator ran.
    """
    is_measured = evidence["state"] == "succeeded" and not evidence["simulated"]
    path = EVIDENCE if is_measured else folder / EVIDENCE.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(evidence, indent=1).replace(account_id, "*" * 12) + "\n")
    if is_measured:
        value = rf"\g<1>{evidence['fixed_minutes']} # measured: docs/evidence/{EVIDENCE.name}"
        cluster_file.write_text(_FIXED_MINUTES.sub(value, cluster_file.read_text(), count=1))
    return path


def _minutes(timeline: Mapping[str, Any]) -> dict[str, float]:
    """Return the minutes from a node's creation until it was ready, and until it ended; 0 where EMR names no end."""
    start = timeline["CreationDateTime"]
    ends = {"minutes_to_ready": timeline.get("ReadyDateTime"), "minutes": timeline.get("EndDateTime")}
    return {name: round(((end or start) - start).total_seconds() / 60, 2) for name, end in ends.items()}


def _error_code(emr: Any) -> str:
    try:
        emr.describe_cluster(ClusterId=UNKNOWN_CLUSTER)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "none"
