"""The documents in which EMR's API shows a cluster."""

from typing import Any

from local_aws.emr import releases
from local_aws.emr.cluster import Cluster
from local_aws.emr.validation import MANAGED_GROUPS, subnets_of

# Members of `Cluster` and `Ec2InstanceAttributes` that repeat the request.
_OF_REQUEST = (
    *("LogEncryptionKmsKeyId", "ReleaseLabel", "ServiceRole", "SecurityConfiguration", "AutoScalingRole"),
    *("CustomAmiId", "EbsRootVolumeSize", "EbsRootVolumeIops", "EbsRootVolumeThroughput", "RepoUpgradeOnBoot"),
    *("KerberosAttributes", "OSReleaseLabel"),
)
_OF_INSTANCES = ("Ec2KeyName", *MANAGED_GROUPS)


def summary(cluster: Cluster) -> dict[str, Any]:
    """Return `ClusterSummary` of ListClusters, which has no tags."""
    with cluster.changed:
        return {
            "Id": cluster.id,
            "Name": cluster.name,
            "Status": {
                "State": cluster.state,
                "StateChangeReason": cluster.reason,
                "Timeline": cluster.timeline.describe(),
            },
            "NormalizedInstanceHours": 0,
            "ClusterArn": cluster.arn,
        }


def describe(cluster: Cluster) -> dict[str, Any]:
    """Return `Cluster` of DescribeCluster."""
    request = cluster.request
    with cluster.changed:
        address = None if cluster.state == "STARTING" else cluster.primary.describe()["PrivateDnsName"]
        return {
            **summary(cluster),
            **{name: request.get(name) for name in _OF_REQUEST},
            "Ec2InstanceAttributes": _ec2_attributes(cluster),
            "InstanceCollectionType": "INSTANCE_FLEET",
            "LogUri": _log_uri(request.get("LogUri")),
            "AutoTerminate": not cluster.keep_alive,
            "TerminationProtected": cluster.termination_protected,
            "UnhealthyNodeReplacement": bool(request["Instances"].get("UnhealthyNodeReplacement")),
            "VisibleToAllUsers": request.get("VisibleToAllUsers", True),
            "Applications": releases.applications(request["ReleaseLabel"], request.get("Applications") or []),
            "Tags": [{"Key": key, "Value": value} for key, value in cluster.tags.items()],
            "MasterPublicDnsName": address,
            "Configurations": request.get("Configurations") or [],
            "ScaleDownBehavior": request.get("ScaleDownBehavior", "TERMINATE_AT_TASK_COMPLETION"),
            "StepConcurrencyLevel": cluster.step_concurrency_level,
            "PlacementGroups": request.get("PlacementGroupConfigs") or [],
        }


def _ec2_attributes(cluster: Cluster) -> dict[str, Any]:
    instances = cluster.request["Instances"]
    subnets, placement = subnets_of(instances), instances.get("Placement") or {}
    return {
        **{name: instances.get(name) for name in _OF_INSTANCES},
        "Ec2SubnetId": subnets[0] if subnets else None,
        "RequestedEc2SubnetIds": subnets,
        "Ec2AvailabilityZone": placement.get("AvailabilityZone") or f"{cluster.region}a",
        "IamInstanceProfile": cluster.request["JobFlowRole"],
        "AdditionalMasterSecurityGroups": instances.get("AdditionalMasterSecurityGroups") or [],
        "AdditionalSlaveSecurityGroups": instances.get("AdditionalSlaveSecurityGroups") or [],
    }


def _log_uri(requested: str | None) -> str | None:
    """Return the LogUri that EMR shows, `s3n://…/` for every spelling in the request."""
    return None if requested is None else "s3n://" + requested.partition("://")[2].rstrip("/") + "/"
