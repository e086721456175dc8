"""Where everything of a run is, read back from AWS: `runs/<run_id>/residency.json`.

`plan` writes the first half, and fails closed: what lies outside the European Union, or cannot be placed, stops the run
before anything is created. When the run has ended, the cluster and the endpoints that were really called are added.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from fruits_airflow.aws.endpoints import called_endpoints, place_of
from fruits_airflow.config.errors import ConfigError, ResidencyError
from fruits_airflow.config.regions import require_eu_region
from fruits_airflow.config.settings import REPOSITORY, Settings
from fruits_airflow.emr.clusters import Cluster
from fruits_airflow.records.digests import EVIDENCE as EVIDENCE
from fruits_airflow.records.models import read_stages
from fruits_airflow.storage.lake import (
    MISSING,
    Lake,
    error_code,
    run_key,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# What is wrong in the account or the settings, and so will be at the next attempt: not throttling, credentials that
# have expired, or trouble of AWS's own.
_REFUSED = MISSING | {"NoSuchBucket", "InvalidBucketName", "AccessDenied", "AllAccessDisabled", "403"}
_NO_SUCH_KEY = frozenset(
    {"NotFoundException", "InvalidArnException", "ValidationException", "AccessDeniedException"}
)
BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


def bucket_region(client: S3Client, setting: str, bucket: str) -> str:
    """The region of a bucket.

    Raises:
        ConfigError: the bucket does not exist or may not be read.
        ResidencyError: it lies outside the European Union.
        ClientError, BotoCoreError: S3 does not tell now; another attempt asks again.
    """
    try:
        place = client.get_bucket_location(Bucket=bucket).get("LocationConstraint")
    except ClientError as error:
        if error_code(error) not in _REFUSED:
            raise
        raise ConfigError(
            f"{setting}: cannot read {bucket!r}: {error}; deploy include/stack.yaml first"
        ) from error
    region = {None: "us-east-1", "EU": "eu-west-1"}.get(place, str(place))
    return require_eu_region(region, f"{setting} {bucket!r} lies in a region that")


def survey(
    settings: Settings, cluster_region: str, client: S3Client, describe_key: Callable[[str, str], str]
) -> dict[str, Any]:
    """Looks where buckets, keys, catalog and cluster of a run would be.

    Args:
        settings: of the deployment.
        cluster_region: where the cluster is to run.
        client: S3 client.
        describe_key: gives the ARN of a KMS key by region and id.

    Returns:
        The first half of residency.json.

    Raises:
        ConfigError: a bucket cannot be read, or may be made public.
        ResidencyError: something is outside the European Union, or cannot be placed.
        ClientError, BotoCoreError: AWS does not tell now; another attempt asks again.
    """
    buckets = {}
    for setting in ("raw_bucket", "lake_bucket"):
        name = getattr(settings, setting)
        region = bucket_region(client, setting, name)
        require_not_public(client, setting, name)
        buckets[setting] = {
            "name": name,
            "region": region,
            "encryption": _encryption(client, setting, name, region, describe_key),
            "policy_sha256": _policy_digest(client, setting, name),
            "public_access": "blocked",
        }
    lake = buckets["lake_bucket"]["region"]
    return {
        "checked_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cluster_region": require_eu_region(cluster_region, "params.region"),
        "buckets": buckets,
        "catalog": {"kind": "AWS Glue", "region": lake, "by": "spark.sql.catalog.lake.client.region"},
        "model": {"region": lake, "source": f"s3://{settings.lake_bucket}/models/"},
        "logs": {"region": lake, "place": f"s3://{settings.lake_bucket}/logs/"},
        "endpoint": {"service": "s3", "region": place_of(urlsplit(client.meta.endpoint_url).hostname or "")},
        "region_lock": _region_lock(),
    }


def require_not_public(client: S3Client, setting: str, bucket: str) -> None:
    """Refuses a bucket that a policy or an ACL could open to the world.

    Raises:
        ConfigError: it does not block public access in all four ways, or may not be asked.
        ClientError, BotoCoreError: S3 does not tell now; another attempt asks again.
    """
    try:
        block: Mapping[str, Any] = client.get_public_access_block(Bucket=bucket)[
            "PublicAccessBlockConfiguration"
        ]
    except ClientError as error:
        if error_code(error) in _REFUSED:
            raise ConfigError(f"{setting}: whether {bucket!r} is public cannot be read: {error}") from error
        if error_code(error) != "NoSuchPublicAccessBlockConfiguration":
            raise
        block = {}
    missing = [name for name in BLOCKS if not block.get(name)]
    if missing:
        raise ConfigError(
            f"{setting}: {bucket!r} may become public ({', '.join(missing)} off); block all public access, as "
            "include/stack.yaml does"
        )


def complete(lake: Lake, run_id: str, clusters: Sequence[Cluster]) -> None:
    """Adds to residency.json what is known when the run has ended: its clusters, and the endpoints really called.

    Those of tasks are seen by a hook; those of the Spark jobs are told by the jobs themselves
    (fruits/job/client_endpoints.py).

    Raises:
        ResidencyError: something was where it must not be; the evidence is written first.
    """
    evidence = lake.read_json(run_key(run_id, EVIDENCE))
    if evidence is None:
        return  # the plan stopped the run before it had looked
    evidence["clusters"] = {
        cluster.job_flow_id: {
            "region": str(cluster.description.get("ClusterArn", "")).split(":")[3:4],
            "log_uri": cluster.log_uri,
            "security_configuration": cluster.description.get("SecurityConfiguration"),
        }
        for cluster in clusters
    }
    for one in evidence["clusters"].values():
        one["region"] = one["region"][0] if one["region"] else "unknown"
    evidence["endpoints"] = called_endpoints(lake, run_id)
    evidence["stages"] = {
        stage: [endpoint.model_dump() for endpoint in metrics.endpoints]
        for stage, metrics in read_stages(lake, run_id).items()
    }
    evidence["not_seen"] = (
        "calls of EMR's own agents on the nodes, which start a node and upload logs; of spark-submit, which fetches "
        "the job's code from the lake; and of a stage that left no record. Their regions are those of buckets and "
        "cluster"
    )
    lake.write_json(run_key(run_id, EVIDENCE), evidence)
    for job_flow_id, one in evidence["clusters"].items():
        require_eu_region(one["region"], f"cluster {job_flow_id} ran in a region that")
    for stage, called in evidence["stages"].items():
        for one in called:
            require_eu_region(one["region"], f"{stage}: {one['client']} signed for a region that")
            place_of(one["host"])


def unknown_key(region: str, key_id: str) -> str:
    """`describe_key` of `survey` where nobody can be asked.

    Raises:
        ResidencyError: always.
    """
    raise ResidencyError(f"key {key_id!r} in {region}: nobody was asked where it is")


def key_describer(client_of: Callable[[str], Any]) -> Callable[[str, str], str]:
    """`describe_key` of `survey`, from what gives a KMS client of a region."""

    def describe(region: str, key_id: str) -> str:
        return str(client_of(region).describe_key(KeyId=key_id)["KeyMetadata"]["Arn"])

    return describe


def _encryption(
    client: S3Client, setting: str, bucket: str, region: str, describe_key: Callable[[str, str], str]
) -> dict[str, Any]:
    try:
        rules = client.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    except ClientError as error:
        if error_code(error) in _REFUSED:
            raise ConfigError(f"{setting}: the encryption of {bucket!r} cannot be read: {error}") from error
        if error_code(error) != "ServerSideEncryptionConfigurationNotFoundError":
            raise
        rules = []
    default: Mapping[str, Any] = rules[0].get("ApplyServerSideEncryptionByDefault", {}) if rules else {}
    key = default.get("KMSMasterKeyID")
    if not str(default.get("SSEAlgorithm", "")).startswith("aws:kms") or not key:
        # S3's own keys, or KMS's default key for S3: both are in the bucket's region
        return {"algorithm": default.get("SSEAlgorithm", "AES256"), "key": "AWS's own", "region": region}
    arn = key if key.startswith("arn:") else _described(describe_key, setting, region, key)
    parts = arn.split(":")
    key_region = require_eu_region(
        parts[3] if len(parts) > 5 else "", f"{setting}: the key {arn!r} in a region that"
    )
    return {"algorithm": default["SSEAlgorithm"], "key": arn, "region": key_region}


def _described(describe_key: Callable[[str, str], str], setting: str, region: str, key: str) -> str:
    try:
        return describe_key(region, key)
    except (ClientError, ResidencyError) as error:
        if isinstance(error, ClientError) and error_code(error) not in _NO_SUCH_KEY:
            raise
        raise ResidencyError(
            f"{setting}: nobody can tell where the key {key!r} is: {error}; name its ARN in the bucket's encryption"
        ) from error


def _policy_digest(client: S3Client, setting: str, bucket: str) -> str | None:
    """SHA-256 of the bucket policy in force, or None without one."""
    try:
        policy = client.get_bucket_policy(Bucket=bucket)["Policy"]
    except ClientError as error:
        if error_code(error) == "NoSuchBucketPolicy":
            return None
        if error_code(error) in _REFUSED:
            raise ConfigError(f"{setting}: the policy of {bucket!r} cannot be read: {error}") from error
        raise
    return hashlib.sha256(json.dumps(json.loads(policy), sort_keys=True).encode()).hexdigest()


def _region_lock() -> dict[str, str]:
    """The template that binds Airflow's role to its region; a task may not read its own role's policy back."""
    template = REPOSITORY / "include" / "stack.yaml"
    digest = (
        hashlib.sha256(template.read_bytes()).hexdigest()
        if template.is_file()
        else "not deployed with the DAGs"
    )
    return {
        "declared_in": "include/stack.yaml",
        "condition": "aws:RequestedRegion",
        "template_sha256": digest,
    }
