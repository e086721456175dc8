"""A network of the team's own, made fit for EMR's service role."""

from collections.abc import Callable
from typing import Any

from fruits_airflow.emr.cluster_lint import POLICY_TAG

from ops.stack import DeploymentFailed


def tag_network(account: Any, subnet_id: str, confirm: Callable[[str], bool]) -> None:
    """Tag an existing subnet and its VPC, so that EMR's service role may start nodes there.

    AmazonEMRServicePolicy_v2 allows EC2's calls in a subnet and a VPC only if both carry the tag. `confirm` asks a
    question, and returns true for yes.

    Raises:
        DeploymentFailed: A tag is missing, and the answer was no.
        ClientError: There is no such subnet, or the caller may not tag it.
    """
    ec2 = account.client("ec2")
    [subnet] = ec2.describe_subnets(SubnetIds=[subnet_id])["Subnets"]
    [vpc] = ec2.describe_vpcs(VpcIds=[subnet["VpcId"]])["Vpcs"]
    tag = {"Key": POLICY_TAG, "Value": "true"}
    untagged = [
        resource_id
        for resource_id, resource in ((subnet_id, subnet), (vpc["VpcId"], vpc))
        if tag not in resource.get("Tags", [])
    ]
    if not untagged:
        return
    names = " and ".join(untagged)
    if not confirm(f"Tag {names} with {POLICY_TAG}=true? EMR's service role acts in a tagged network only."):
        raise DeploymentFailed(
            f"{names}: the tag {POLICY_TAG}=true is missing, and EMR would start no node there. Set it, or "
            "deploy with CreateVpc=true"
        )
    ec2.create_tags(Resources=untagged, Tags=[tag])
