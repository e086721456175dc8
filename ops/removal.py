"""Remove a deployment (clusters, stack, every version of every object, keys) and verify that nothing costs."""

import operator
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError
from fruits_airflow.emr.cluster_lint import POLICY_TAG
from fruits_airflow.emr.clusters import LIVE_STATES

from ops.stack import Declined, Deployment, DeploymentFailed

KEY_DAYS = 7  # the minimum of KMS; a key that is pending deletion costs nothing
BUCKETS = ("raw", "lake", "access")
EMPTYING_ROUNDS = 5  # S3 may write access logs for hours


def destroy(deployment: Deployment) -> list[str]:
    """Remove everything that a deployment owns; a repeated call continues after an interruption.

    Returns:
        The lines of `verify_removed`.

    Raises:
        Declined: The answer was no.
        DeploymentFailed: Something that costs is still there; the message names it.
    """
    account, log = deployment.account, deployment.log
    buckets = _buckets(deployment)
    keys = _keys(deployment)
    stack = deployment.describe()
    if not (stack or buckets or keys):
        log(f"There is nothing of {deployment.stack_name} in {account.region}.")
        return verify_removed(deployment)
    for bucket in buckets:
        count, size = _size(account.client("s3"), bucket)
        log(f"  s3://{bucket}: {count} objects and versions, {size / 1e6:.1f} MB")
    log(f"  the stack {deployment.stack_name}, its roles, databases and {len(keys)} key(s)")
    if not deployment.confirm("Remove all this for good? Photos, tables and models cannot be brought back."):
        raise Declined
    _end_clusters(deployment)
    _remove_emr_leftovers(deployment)
    if stack:
        account.client("cloudformation").delete_stack(StackName=deployment.stack_name)
        deployment.wait_deleted()
        log("The stack is gone.")
    _remove_buckets(deployment, buckets)
    for key in keys:
        account.client("kms").schedule_key_deletion(KeyId=key, PendingWindowInDays=KEY_DAYS)
        log(f"The key {key} is disabled, and deleted in {KEY_DAYS} days.")
    return verify_removed(deployment)


def verify_removed(deployment: Deployment) -> list[str]:
    """Verify that nothing of a deployment is left that costs.

    Returns:
        A line for each kind of resource that was looked for.

    Raises:
        DeploymentFailed: Something is left; the message names it.
    """
    account = deployment.account
    tag = _by_tag(deployment)
    ec2 = account.client("ec2")
    running = [*tag, {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
    reservations = ec2.describe_instances(Filters=running)["Reservations"]
    networks = networks_of(deployment)
    left = {
        "buckets": _buckets(deployment),
        "clusters": [cluster["Id"] for cluster in _clusters(deployment)],
        "machines": [machine["InstanceId"] for group in reservations for machine in group["Instances"]],
        "disks": [disk["VolumeId"] for disk in ec2.describe_volumes(Filters=tag)["Volumes"]],
        "networks": networks,
        "endpoints": [endpoint["VpcEndpointId"] for endpoint in _endpoints(ec2, networks)],
        "keys": _keys(deployment),
        "stack": [deployment.stack_name] if deployment.describe() else [],
    }
    if still := {kind: names for kind, names in left.items() if names}:
        listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in still.items())
        raise DeploymentFailed(
            f"still there, and some of it costs: {listed}. Repeat make destroy, or remove it by hand"
        )
    return [f"{kind}: none" for kind in left]


def bucket_names(deployment: Deployment) -> list[str]:
    """Return the names of the deployment's buckets, as include/stack.yaml builds them."""
    account_id = deployment.account.client("sts").get_caller_identity()["Account"]
    return [f"fruits-{deployment.deployment_id}-{kind}-{account_id}-{deployment.account.region}" for kind in BUCKETS]


def _buckets(deployment: Deployment) -> list[str]:
    """Return the deployment's existing buckets by name; the access log, which the others write to, comes last."""
    existing = {bucket["Name"] for bucket in deployment.account.client("s3").list_buckets()["Buckets"]}
    return [name for name in bucket_names(deployment) if name in existing]


def _keys(deployment: Deployment) -> list[str]:
    """Return the deployment's keys, by their tags, without those that are pending deletion."""
    kms = deployment.account.client("kms")
    own_tags = {"project": "fruits", "deployment": deployment.deployment_id}.items()
    keys = []
    for page in kms.get_paginator("list_keys").paginate():
        for key in page["Keys"]:
            described = kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]
            if described["KeyManager"] != "CUSTOMER" or described["KeyState"] == "PendingDeletion":
                continue
            tags = kms.list_resource_tags(KeyId=key["KeyId"])["Tags"]
            if own_tags <= {tag["TagKey"]: tag["TagValue"] for tag in tags}.items():
                keys.append(key["KeyId"])
    return keys


def _clusters(deployment: Deployment) -> list[dict[str, Any]]:
    emr = deployment.account.client("emr")
    pages = emr.get_paginator("list_clusters").paginate(ClusterStates=[*LIVE_STATES, "TERMINATING"])
    prefix = f"fruits/{deployment.deployment_id}/"
    clusters = (cluster for page in pages for cluster in page["Clusters"])
    return [cluster for cluster in clusters if cluster["Name"].startswith(prefix)]


def _end_clusters(deployment: Deployment) -> None:
    clusters = _clusters(deployment)
    if not clusters:
        return
    ids = [cluster["Id"] for cluster in clusters]
    emr = deployment.account.client("emr")
    emr.set_termination_protection(JobFlowIds=ids, TerminationProtected=False)
    emr.terminate_job_flows(JobFlowIds=ids)
    deployment.log(f"Ending {', '.join(ids)}")
    deployment.wait_until(lambda: _clusters(deployment), operator.not_)


def _by_tag(deployment: Deployment) -> list[dict[str, Any]]:
    return [{"Name": "tag:deployment", "Values": [deployment.deployment_id]}]


def networks_of(deployment: Deployment) -> list[str]:
    """Return the ids of the networks that carry the deployment's tag."""
    vpcs = deployment.account.client("ec2").describe_vpcs(Filters=_by_tag(deployment))["Vpcs"]
    return [vpc["VpcId"] for vpc in vpcs]


def _endpoints(ec2: Any, networks: list[str]) -> list[dict[str, Any]]:
    """Return the VPC endpoints in `networks` without the deleted ones, which EC2 lists for a while."""
    if not networks:
        return []
    pages = ec2.get_paginator("describe_vpc_endpoints").paginate(Filters=_in(networks))
    listed = [endpoint for page in pages for endpoint in page["VpcEndpoints"]]
    return [endpoint for endpoint in listed if endpoint["State"].lower() != "deleted"]


def _in(networks: list[str]) -> list[dict[str, Any]]:
    return [{"Name": "vpc-id", "Values": networks}]


def _is_from_emr(resource: dict[str, Any], *, or_stack: bool = False) -> bool:
    """Tell whether EMR created a resource: its v2 role tags each; the stack's have CloudFormation's tags too."""
    tags = {tag["Key"]: tag["Value"] for tag in resource.get("Tags", [])}
    return tags.get(POLICY_TAG) == "true" and (or_stack or "aws:cloudformation:stack-id" not in tags)


def emr_endpoints(ec2: Any, networks: list[str]) -> list[str]:
    """Return the ids of the endpoints that EMR created in the networks."""
    return [endpoint["VpcEndpointId"] for endpoint in _endpoints(ec2, networks) if _is_from_emr(endpoint)]


def emr_security_groups(ec2: Any, networks: list[str], *, or_stack: bool = False) -> list[dict[str, Any]]:
    """Return the security groups that EMR created in the networks, or also those of the stack that it adds rules to."""
    pages = ec2.get_paginator("describe_security_groups").paginate(Filters=_in(networks)) if networks else []
    return [group for page in pages for group in page["SecurityGroups"] if _is_from_emr(group, or_stack=or_stack)]


def _remove_emr_leftovers(deployment: Deployment) -> None:
    """Remove EMR's interface endpoint and security groups, without which the network cannot be deleted.

    Raises:
        DeploymentFailed: EC2 refuses to delete an endpoint.
    """
    ec2, networks = deployment.account.client("ec2"), networks_of(deployment)

    def endpoints() -> list[str]:
        return emr_endpoints(ec2, networks)

    if left := endpoints():
        deployment.log(f"Removing what EMR left: {', '.join(left)}")
        if refused := ec2.delete_vpc_endpoints(VpcEndpointIds=left).get("Unsuccessful"):
            reason = refused[0]["Error"]["Message"]
            raise DeploymentFailed(f"{left[0]} cannot be deleted: {reason}; delete it, repeat make destroy")
        deployment.wait_until(endpoints, operator.not_)
    for group in emr_security_groups(ec2, networks, or_stack=True):  # they refer to each other: the rules go first
        if rules := group["IpPermissions"]:
            ec2.revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=rules)
        if rules := group["IpPermissionsEgress"]:
            ec2.revoke_security_group_egress(GroupId=group["GroupId"], IpPermissions=rules)
    if groups := emr_security_groups(ec2, networks):
        deployment.log(f"Removing what EMR left: {', '.join(group['GroupName'] for group in groups)}")
        ids = [group["GroupId"] for group in groups]
        deployment.wait_until(lambda: _delete_groups(ec2, ids), operator.not_)


def _delete_groups(ec2: Any, ids: list[str]) -> list[str]:
    """Delete security groups; return those that the interfaces of ended nodes still use."""
    in_use = []
    for group_id in ids:
        try:
            ec2.delete_security_group(GroupId=group_id)
        except ClientError as error:
            if error.response["Error"]["Code"] == "DependencyViolation":
                in_use.append(group_id)
            elif error.response["Error"]["Code"] != "InvalidGroup.NotFound":
                raise
    return in_use


def _size(s3: Any, bucket: str) -> tuple[int, int]:
    sizes = [version.get("Size", 0) for page in _versions(s3, bucket) for version in page]
    return len(sizes), sum(sizes)


def _versions(s3: Any, bucket: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the versions and delete markers of a bucket, at most 1000 at a time."""
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        yield [*page.get("Versions", []), *page.get("DeleteMarkers", [])]


def _remove_buckets(deployment: Deployment, buckets: list[str]) -> None:
    s3 = deployment.account.client("s3")
    for bucket in buckets:  # S3 must not write logs into a bucket that is being emptied
        s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={})
    for bucket in buckets:
        for round_left in range(EMPTYING_ROUNDS, 0, -1):
            removed = empty_bucket(s3, bucket)
            try:
                s3.delete_bucket(Bucket=bucket)
            except ClientError as error:
                if error.response["Error"]["Code"] != "BucketNotEmpty" or round_left == 1:
                    raise DeploymentFailed(f"s3://{bucket} cannot be removed: {error}; repeat make destroy") from error
                continue
            deployment.log(f"s3://{bucket}: {removed} objects and versions removed, and the bucket")
            break


def empty_bucket(s3: Any, bucket: str) -> int:
    """Remove every version, delete marker and unfinished upload; return how many.

    Raises:
        DeploymentFailed: S3 refused to delete an object.
    """
    removed = 0
    for versions in _versions(s3, bucket):
        if not versions:
            continue
        objects = [{"Key": version["Key"], "VersionId": version["VersionId"]} for version in versions]
        reply = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        if errors := reply.get("Errors"):
            raise DeploymentFailed(f"s3://{bucket}: {len(errors)} objects cannot be removed: {errors[0]['Message']}")
        removed += len(objects)
    for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
        for upload in page.get("Uploads", []):
            s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            removed += 1
    return removed
