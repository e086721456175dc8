"""What EMR's API shows of a cluster."""

from __future__ import annotations

from typing import Any

from local_aws.emr import releases
from local_aws.emr.cluster import Cluster
from local_aws.emr.validation import subnets_of


def summary(cluster: Cluster) -> dict[str, Any]:
    """`ClusterSummary`, as ListClusters gives it: no tags."""
    with cluster.changed:
        return {
            "Id": cluster.id,
            "Name": cluster.request["Name"],
            "Status": {
                "State": cluster.state,
                "StateChangeReason": cluster.reason,
                "Timeline": cluster.timeline.describe(),
            },
            "NormalizedInstanceHours": 0,
            "ClusterArn": cluster.arn,
        }


def describe(cluster: Cluster) -> dict[str, Any]:
    """`Cluster`, as DescribeCluster gives it."""
    request = cluster.request
    with cluster.changed:
        return {
            **summary(cluster),
            "Ec2InstanceAttributes": _ec2_attributes(cluster),
            "InstanceCollectionType": "INSTANCE_FLEET" if cluster.machines[0].is_fleet else "INSTANCE_GROUP",
            "LogUri": _as_emr_shows(request.get("LogUri")),
            "LogEncryptionKmsKeyId": request.get("LogEncryptionKmsKeyId"),
            "ReleaseLabel": request["ReleaseLabel"],
            "AutoTerminate": not cluster.keep_alive,
            "TerminationProtected": cluster.termination_protected,
            "UnhealthyNodeReplacement": bool(request["Instances"].get("UnhealthyNodeReplacement")),
            "VisibleToAllUsers": cluster.visible_to_all_users,
            "Applications": releases.applications(request["ReleaseLabel"], request.get("Applications") or []),
            "Tags": [{"Key": key, "Value": value} for key, value in cluster.tags.items()],
            "ServiceRole": request["ServiceRole"],
            "MasterPublicDnsName": None
            if cluster.state == "STARTING"
            else cluster.primary.describe()["PrivateDnsName"],
            "Configurations": cluster.classifications,
            "SecurityConfiguration": request.get("SecurityConfiguration"),
            "AutoScalingRole": request.get("AutoScalingRole"),
            "ScaleDownBehavior": request.get("ScaleDownBehavior", "TERMINATE_AT_TASK_COMPLETION"),
            "CustomAmiId": request.get("CustomAmiId"),
            "EbsRootVolumeSize": request.get("EbsRootVolumeSize"),
            "EbsRootVolumeIops": request.get("EbsRootVolumeIops"),
            "EbsRootVolumeThroughput": request.get("EbsRootVolumeThroughput"),
            "RepoUpgradeOnBoot": request.get("RepoUpgradeOnBoot"),
            "KerberosAttributes": request.get("KerberosAttributes"),
            "StepConcurrencyLevel": cluster.step_concurrency_level,
            "PlacementGroups": request.get("PlacementGroupConfigs") or [],
            "OSReleaseLabel": request.get("OSReleaseLabel"),
        }


def _ec2_attributes(cluster: Cluster) -> dict[str, Any]:
    instances = cluster.request["Instances"]
    subnets = subnets_of(instances)
    return {
        "Ec2KeyName": instances.get("Ec2KeyName"),
        "Ec2SubnetId": subnets[0] if subnets else None,
        "RequestedEc2SubnetIds": subnets,
        "Ec2AvailabilityZone": (instances.get("Placement") or {}).get("AvailabilityZone")
        or f"{cluster.region}a",
        "IamInstanceProfile": cluster.request["JobFlowRole"],
        "EmrManagedMasterSecurityGroup": instances.get("EmrManagedMasterSecurityGroup"),
        "EmrManagedSlaveSecurityGroup": instances.get("EmrManagedSlaveSecurityGroup"),
        "ServiceAccessSecurityGroup": instances.get("ServiceAccessSecurityGroup"),
        "AdditionalMasterSecurityGroups": instances.get("AdditionalMasterSecurityGroups") or [],
        "AdditionalSlaveSecurityGroups": instances.get("AdditionalSlaveSecurityGroups") or [],
    }


def _as_emr_shows(log_uri: str | None) -> str | None:
    """EMR gives a LogUri back as `s3n://…/`, however it was sent."""
    return None if log_uri is None else "s3n://" + log_uri.partition("://")[2].rstrip("/") + "/"
