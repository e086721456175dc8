"""What EMR adds to the security groups of a cluster, by its guide, and whom the rules then let reach whom."""

from __future__ import annotations

from itertools import product
from typing import Any

EVERY_PORT = (("tcp", 0, 65535), ("udp", 0, 65535), ("icmp", -1, -1))
TAG = "for-use-with-amazon-emr-managed-policies"


def add_rules(ec2: Any, primary: str, core: str, service: str | None = None) -> None:
    """Let the nodes of a cluster reach each other, and EMR's service its nodes in a private subnet."""
    for group, source in product((primary, core), repeat=2):
        for protocol, first, last in EVERY_PORT:
            ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[_rule(protocol, first, last, source)])
    for group in (primary, core) if service else ():
        manager = {"IpPermissions": [_rule("tcp", 8443, 8443, str(service))]}
        ec2.authorize_security_group_ingress(GroupId=group, **manager)
        manager = {"IpPermissions": [_rule("tcp", 8443, 8443, group)]}
        ec2.authorize_security_group_egress(GroupId=service, **manager)


def create_default_groups(ec2: Any, vpc_id: str) -> tuple[str, str]:
    """Create the two groups that EMR gives each cluster of a VPC that names none."""
    tags = [{"ResourceType": "security-group", "Tags": [{"Key": TAG, "Value": "true"}]}]
    primary, core = (
        ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc_id, TagSpecifications=tags)["GroupId"]
        for name in ("ElasticMapReduce-Primary", "ElasticMapReduce-Core")
    )
    add_rules(ec2, primary, core)
    return primary, core


def reaches(ec2: Any, source: str, group: str) -> bool:
    """Tell whether any rule lets the members of one group in to those of another."""
    [described] = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    rules = described["IpPermissions"]
    pairs = [pair["GroupId"] for rule in rules for pair in rule.get("UserIdGroupPairs", [])]
    return source in pairs or any(rule.get("IpRanges") or rule.get("Ipv6Ranges") for rule in rules)


def _rule(protocol: str, first: int, last: int, group: str) -> dict[str, Any]:
    pairs = [{"GroupId": group}]
    return {"IpProtocol": protocol, "FromPort": first, "ToPort": last, "UserIdGroupPairs": pairs}
