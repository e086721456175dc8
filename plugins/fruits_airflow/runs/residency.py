"""The evidence of where the data of a run is, read back from AWS: `runs/<run_id>/residency.json`.

`plan` writes the first half and fails closed: what is outside the European Union, or cannot be located, stops the run
before anything is created. When the run has ended, the clusters and the endpoints that were called are added.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from fruits_airflow.aws.endpoints import called_endpoints, place_of
from fruits_airflow.config.aws_types import S3Client
from fruits_airflow.config.errors import ConfigError, ResidencyError
from fruits_airflow.config.regions import require_eu_region
from fruits_airflow.config.settings import REPOSITORY, Settings
from fruits_airflow.emr.clusters import Cluster
from fruits_airflow.records.digests import EVIDENCE as EVIDENCE
from fruits_airflow.records.models import read_stages
from fruits_airflow.storage.lake import MISSING, Lake, error_code, run_key

# Errors of the account or the settings, which the next attempt would repeat: no throttling, expired credentials or
# errors of AWS itself.
_REFUSED = MISSING | {"NoSuchBucket", "InvalidBucketName", "AccessDenied", "AllAccessDisabled", "403"}
_NO_SUCH_KEY = frozenset({"NotFoundException", "InvalidArnException", "ValidationException", "AccessDeniedException"})
BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


def bucket_region(client: S3Client, setting: str, bucket: str) -> str:
    """Return the region of a bucket.

    Raises:
        ConfigError: The bucket does not exist or may not be read.
        ResidencyError: It lies outside the European Union.
        ClientError, BotoCoreError: S3 does not answer now; another attempt asks again.
    """
    try:
        place = client.get_bucket_location(Bucket=bucket).get("LocationConstraint")
    except ClientError as error:
        if error_code(error) not in _REFUSED:
            raise
        raise ConfigError(f"{setting}: cannot read {bucket!r}: {error}; deploy include/stack.yaml first") from error
    region = {None: "us-east-1", "EU": "eu-west-1"}.get(place, str(place))
    return require_eu_region(region, f"{setting} {bucket!r} lies in a region that")


def survey(settings: Settings, cluster_region: str, client: S3Client, kms_of: Callable[[str], Any]) -> dict[str, Any]:
    """Locate buckets, keys, catalog and cluster of a run: the first half of residency.json.

    `kms_of` returns the KMS client of a region.

    Raises:
        ConfigError: A bucket cannot be read, or may become public.
        ResidencyError: Something is outside the European Union, or cannot be located.
        ClientError, BotoCoreError: AWS does not answer now; another attempt asks again.
    """
    buckets = {}
    for setting in ("raw_bucket", "lake_bucket"):
        name = getattr(settings, setting)
        region = bucket_region(client, setting, name)
        require_not_public(client, setting, name)
        buckets[setting] = {
            "name": name,
            "region": region,
            "encryption": _encryption(client, setting, name, region, kms_of),
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
    """Refuse a bucket that a policy or an ACL could make public.

    Raises:
        ConfigError: It does not block public access in all four ways, or its configuration may not be read.
        ClientError, BotoCoreError: S3 does not answer now; another attempt asks again.
    """
    subject, absent = f"{setting}: whether {bucket!r} is public", "NoSuchPublicAccessBlockConfiguration"
    answer = _read(client.get_public_access_block, bucket, subject, absent)
    block = answer.get("PublicAccessBlockConfiguration", {})
    missing = [name for name in BLOCKS if not block.get(name)]
    if missing:
        raise ConfigError(
            f"{setting}: {bucket!r} may become public ({', '.join(missing)} off); block all public access, as "
            "include/stack.yaml does"
        )


def complete(lake: Lake, run_id: str, clusters: Sequence[Cluster]) -> None:
    """Add the clusters of a run and the endpoints that were called to residency.json.

    A hook records the endpoints of tasks; the Spark jobs record their own (fruits/job/client_endpoints.py).

    Raises:
        ResidencyError: Something was outside the European Union; the evidence is written first.
    """
    evidence = lake.read_json(run_key(run_id, EVIDENCE))
    if evidence is None:
        return  # the plan stopped the run before it had looked
    evidence["clusters"] = {
        cluster.job_flow_id: {
            "region": _region_of_arn(str(cluster.description.get("ClusterArn", ""))) or "unknown",
            "log_uri": cluster.log_uri,
            "security_configuration": cluster.description.get("SecurityConfiguration"),
        }
        for cluster in clusters
    }
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
    for job_flow_id, cluster in evidence["clusters"].items():
        require_eu_region(cluster["region"], f"cluster {job_flow_id} ran in a region that")
    for stage, endpoints in evidence["stages"].items():
        for endpoint in endpoints:
            require_eu_region(endpoint["region"], f"{stage}: {endpoint['client']} signed for a region that")
            place_of(endpoint["host"])


def _encryption(
    client: S3Client, setting: str, bucket: str, region: str, kms_of: Callable[[str], Any]
) -> dict[str, Any]:
    subject, absent = (f"{setting}: the encryption of {bucket!r}", "ServerSideEncryptionConfigurationNotFoundError")
    answer = _read(client.get_bucket_encryption, bucket, subject, absent)
    rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
    default: Mapping[str, Any] = rules[0].get("ApplyServerSideEncryptionByDefault", {}) if rules else {}
    key = default.get("KMSMasterKeyID")
    if not str(default.get("SSEAlgorithm", "")).startswith("aws:kms") or not key:
        # The keys of S3, and the default key of KMS for S3, are in the region of the bucket.
        return {"algorithm": default.get("SSEAlgorithm", "AES256"), "key": "AWS's own", "region": region}
    arn = _arn_of(kms_of, setting, region, key)
    key_region = require_eu_region(_region_of_arn(arn), f"{setting}: the key {arn!r} in a region that")
    return {"algorithm": default["SSEAlgorithm"], "key": arn, "region": key_region}


def _region_of_arn(arn: str) -> str:
    parts = arn.split(":")
    return parts[3] if len(parts) > 5 else ""


def _arn_of(kms_of: Callable[[str], Any], setting: str, region: str, key: str) -> str:
    if key.startswith("arn:"):
        return key
    try:
        return str(kms_of(region).describe_key(KeyId=key)["KeyMetadata"]["Arn"])
    except ClientError as error:
        if error_code(error) not in _NO_SUCH_KEY:
            raise
        raise ResidencyError(
            f"{setting}: where the key {key!r} is cannot be read: {error}; name its ARN in the bucket's encryption"
        ) from error


def _policy_digest(client: S3Client, setting: str, bucket: str) -> str | None:
    """Compute the SHA-256 of the bucket policy in force; None without one."""
    subject, absent = f"{setting}: the policy of {bucket!r}", "NoSuchBucketPolicy"
    answer = _read(client.get_bucket_policy, bucket, subject, absent)
    policy = answer.get("Policy")
    return policy and hashlib.sha256(json.dumps(json.loads(policy), sort_keys=True).encode()).hexdigest()


def _read(call: Callable[..., Any], bucket: str, subject: str, absent: str) -> Mapping[str, Any]:
    """Return the answer of S3; empty where its error code is `absent`.

    Raises:
        ConfigError: The account or the settings do not allow the call.
    """
    try:
        answer: Mapping[str, Any] = call(Bucket=bucket)
    except ClientError as error:
        if error_code(error) == absent:
            return {}
        if error_code(error) in _REFUSED:
            raise ConfigError(f"{subject} cannot be read: {error}") from error
        raise
    return answer


def _region_lock() -> dict[str, str]:
    """Describe the template that binds Airflow's role to its region: a task may not read the policy of its own role."""
    template = REPOSITORY / "include" / "stack.yaml"
    digest = hashlib.sha256(template.read_bytes()).hexdigest() if template.is_file() else None
    return {
        "declared_in": "include/stack.yaml",
        "condition": "aws:RequestedRegion",
        "template_sha256": digest or "not deployed with the DAGs",
    }
