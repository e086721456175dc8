"""A reader for each resource type of include/stack.yaml: the live resource, under the template's names.

A reader takes a function that returns boto3 clients, and the physical id. It returns None for a missing resource.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

Client = Callable[[str], Any]
Live = dict[str, Any]

# Error codes of all services that say that a resource, or a part of it, is missing.
_GONE = re.compile(r"404|NoSuch.+|Invalid.+\.NotFound|.*NotFound(Exception|Error)|InvalidRequestException")


def _none_if_gone(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except ClientError as error:
        if _GONE.fullmatch(error.response["Error"]["Code"]):
            return None
        raise


def _pick(resource: Live, *names: str) -> Live:
    return {name: resource[name] for name in names if name in resource}


def _key(client: Client, physical: str) -> Live | None:
    kms = client("kms")
    described = kms.describe_key(KeyId=physical)["KeyMetadata"]
    if described["KeyState"] != "Enabled":
        return None
    tags = kms.list_resource_tags(KeyId=physical)["Tags"]
    return {
        "Description": described["Description"],
        "EnableKeyRotation": kms.get_key_rotation_status(KeyId=physical)["KeyRotationEnabled"],
        # No call returns it: CloudFormation passes it on when it deletes the key.
        "PendingWindowInDays": 7,
        "KeyPolicy": json.loads(kms.get_key_policy(KeyId=physical, PolicyName="default")["Policy"]),
        "Tags": [{"Key": tag["TagKey"], "Value": tag["TagValue"]} for tag in tags],
    }


def _alias(client: Client, physical: str) -> Live | None:
    pages = client("kms").get_paginator("list_aliases").paginate()
    for alias in (alias for page in pages for alias in page["Aliases"]):
        if alias["AliasName"] == physical:
            return {"AliasName": physical, "TargetKeyId": alias.get("TargetKeyId")}
    return None


def _bucket(client: Client, physical: str) -> Live | None:
    s3 = client("s3")
    s3.head_bucket(Bucket=physical)

    def part(call: Callable[..., Live], key: str) -> Any:
        return _none_if_gone(lambda: call(Bucket=physical)[key])

    rules = part(s3.get_bucket_encryption, "ServerSideEncryptionConfiguration") or {"Rules": []}
    lifecycle = part(s3.get_bucket_lifecycle_configuration, "Rules") or []
    logging = s3.get_bucket_logging(Bucket=physical).get("LoggingEnabled", {})
    return {
        "BucketName": physical,
        "VersioningConfiguration": {"Status": s3.get_bucket_versioning(Bucket=physical).get("Status")},
        "OwnershipControls": part(s3.get_bucket_ownership_controls, "OwnershipControls"),
        "PublicAccessBlockConfiguration": part(s3.get_public_access_block, "PublicAccessBlockConfiguration"),
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [
                {"ServerSideEncryptionByDefault": rule["ApplyServerSideEncryptionByDefault"]}
                | ({"BucketKeyEnabled": True} if rule.get("BucketKeyEnabled") else {})
                for rule in rules["Rules"]
            ]
        },
        "LoggingConfiguration": {
            "DestinationBucketName": logging.get("TargetBucket"),
            "LogFilePrefix": logging.get("TargetPrefix"),
        },
        "LifecycleConfiguration": {"Rules": [_lifecycle_rule(rule) for rule in lifecycle]},
        "Tags": part(s3.get_bucket_tagging, "TagSet") or [],
    }


def _lifecycle_rule(rule: Live) -> Live:
    """Convert a rule of the S3 API to CloudFormation's names."""
    expiration = rule.get("Expiration", {})
    return {
        "Id": rule["ID"],
        "Status": rule["Status"],
        "Prefix": rule.get("Filter", {}).get("Prefix") or None,
        "ExpirationInDays": expiration.get("Days"),
        "ExpiredObjectDeleteMarker": expiration.get("ExpiredObjectDeleteMarker") or None,
        "NoncurrentVersionExpiration": rule.get("NoncurrentVersionExpiration"),
        "AbortIncompleteMultipartUpload": rule.get("AbortIncompleteMultipartUpload"),
    }


def _bucket_policy(client: Client, physical: str) -> Live | None:
    policy = client("s3").get_bucket_policy(Bucket=physical)["Policy"]
    return {"Bucket": physical, "PolicyDocument": json.loads(policy)}


def _database(client: Client, physical: str) -> Live | None:
    database = client("glue").get_database(Name=physical)["Database"]
    return {"CatalogId": database["CatalogId"], "DatabaseInput": _pick(database, "Name", "Description", "LocationUri")}


def _role(client: Client, physical: str) -> Live | None:
    iam = client("iam")
    role = iam.get_role(RoleName=physical)["Role"]
    names = iam.list_role_policies(RoleName=physical)["PolicyNames"]
    policies = [iam.get_role_policy(RoleName=physical, PolicyName=name) for name in names]
    attached = iam.list_attached_role_policies(RoleName=physical)["AttachedPolicies"]
    return {
        "RoleName": role["RoleName"],
        "Description": role.get("Description"),
        "AssumeRolePolicyDocument": role["AssumeRolePolicyDocument"],
        "ManagedPolicyArns": [policy["PolicyArn"] for policy in attached],
        "Policies": [_pick(policy, "PolicyName", "PolicyDocument") for policy in policies],
        "Tags": iam.list_role_tags(RoleName=physical)["Tags"],
    }


def _instance_profile(client: Client, physical: str) -> Live | None:
    profile = client("iam").get_instance_profile(InstanceProfileName=physical)["InstanceProfile"]
    return {"InstanceProfileName": physical, "Roles": [role["RoleName"] for role in profile["Roles"]]}


def _security_configuration(client: Client, physical: str) -> Live | None:
    configuration = client("emr").describe_security_configuration(Name=physical)["SecurityConfiguration"]
    return {"Name": physical, "SecurityConfiguration": json.loads(configuration)}


def _budget(client: Client, physical: str) -> Live | None:
    budgets = client("budgets")
    name = {"AccountId": client("sts").get_caller_identity()["Account"], "BudgetName": physical}
    budget = budgets.describe_budget(**name)["Budget"]
    limit = budget["BudgetLimit"]
    alarms = []
    for alarm in budgets.describe_notifications_for_budget(**name)["Notifications"]:
        notification = _pick(alarm, "NotificationType", "ComparisonOperator", "Threshold", "ThresholdType")
        subscribers = budgets.describe_subscribers_for_notification(**name, Notification=notification)
        alarms.append({"Notification": notification, **_pick(subscribers, "Subscribers")})
    return {
        "Budget": _pick(budget, "BudgetName", "BudgetType", "TimeUnit", "CostFilters")
        | {"BudgetLimit": {"Amount": float(limit["Amount"]), "Unit": limit["Unit"]}},
        "NotificationsWithSubscribers": alarms,
    }


def _vpc(client: Client, physical: str) -> Live | None:
    ec2 = client("ec2")
    [vpc] = ec2.describe_vpcs(VpcIds=[physical])["Vpcs"]

    def attribute(name: str) -> bool:
        reply = ec2.describe_vpc_attribute(VpcId=physical, Attribute=name[0].lower() + name[1:])
        return bool(reply[name]["Value"])

    switches = {name: attribute(name) for name in ("EnableDnsSupport", "EnableDnsHostnames")}
    return {"CidrBlock": vpc["CidrBlock"], **_tags(vpc), **switches}


def _subnet(client: Client, physical: str) -> Live | None:
    [subnet] = client("ec2").describe_subnets(SubnetIds=[physical])["Subnets"]
    return _pick(subnet, "VpcId", "CidrBlock", "AvailabilityZone", "MapPublicIpOnLaunch") | _tags(subnet)


def _route_table(client: Client, physical: str) -> Live | None:
    [table] = client("ec2").describe_route_tables(RouteTableIds=[physical])["RouteTables"]
    return {"VpcId": table["VpcId"], **_tags(table)}


def _route_association(client: Client, physical: str) -> Live | None:
    filters = [{"Name": "association.route-table-association-id", "Values": [physical]}]
    tables = client("ec2").describe_route_tables(Filters=filters)["RouteTables"]
    for association in (association for table in tables for association in table["Associations"]):
        if association["RouteTableAssociationId"] == physical:
            return _pick(association, "SubnetId", "RouteTableId")
    return None


def _internet_gateway(client: Client, physical: str) -> Live | None:
    [gateway] = client("ec2").describe_internet_gateways(InternetGatewayIds=[physical])["InternetGateways"]
    return _tags(gateway)


def _gateway_attachment(client: Client, physical: str) -> Live | None:
    vpc_id = physical.partition("|")[2]  # IGW|vpc-…
    attached = [{"Name": "attachment.vpc-id", "Values": [vpc_id]}]
    gateways = client("ec2").describe_internet_gateways(Filters=attached)["InternetGateways"]
    return {"VpcId": vpc_id, "InternetGatewayId": gateways[0]["InternetGatewayId"]} if gateways else None


def _route(client: Client, physical: str) -> Live | None:
    table_id, _, destination = physical.partition("|")  # rtb-…|0.0.0.0/0
    [table] = client("ec2").describe_route_tables(RouteTableIds=[table_id])["RouteTables"]
    for route in table["Routes"]:
        if route.get("DestinationCidrBlock") == destination:
            return {"RouteTableId": table_id} | _pick(route, "DestinationCidrBlock", "GatewayId")
    return None


def _security_group(client: Client, physical: str) -> Live | None:
    [group] = client("ec2").describe_security_groups(GroupIds=[physical])["SecurityGroups"]
    return {
        "GroupDescription": group["Description"],
        "VpcId": group["VpcId"],
        "SecurityGroupIngress": _rules(group["IpPermissions"]),
        "SecurityGroupEgress": _rules(group["IpPermissionsEgress"]),
        **_tags(group),
    }


def _rules(permissions: list[Live]) -> list[Live]:
    """Return the rules without those between groups that EMR adds: ICMP, all TCP, all UDP, its manager's port."""
    rules = []
    for permission in permissions:
        sources = permission["IpRanges"] + permission.get("Ipv6Ranges", []) + permission.get("PrefixListIds", [])
        if permission.get("FromPort") not in (-1, 0, 8443):
            pairs = permission.get("UserIdGroupPairs", [])
            sources += [{"SourceSecurityGroupId": pair["GroupId"]} | _pick(pair, "Description") for pair in pairs]
        rules += [_pick(permission, "IpProtocol", "FromPort", "ToPort") | source for source in sources]
    return rules


def _endpoint(client: Client, physical: str) -> Live | None:
    [endpoint] = client("ec2").describe_vpc_endpoints(VpcEndpointIds=[physical])["VpcEndpoints"]
    names = ("VpcId", "VpcEndpointType", "ServiceName", "PrivateDnsEnabled", "RouteTableIds", "SubnetIds")
    return _pick(endpoint, *names) | {
        "PolicyDocument": json.loads(endpoint["PolicyDocument"]),
        "SecurityGroupIds": [group["GroupId"] for group in endpoint.get("Groups", [])],
    }


def _tags(resource: Live) -> Live:
    return {"Tags": resource.get("Tags", [])}


READERS: dict[str, Callable[[Client, str], Live | None]] = {
    "AWS::KMS::Key": _key,
    "AWS::KMS::Alias": _alias,
    "AWS::S3::Bucket": _bucket,
    "AWS::S3::BucketPolicy": _bucket_policy,
    "AWS::Glue::Database": _database,
    "AWS::IAM::Role": _role,
    "AWS::IAM::InstanceProfile": _instance_profile,
    "AWS::EMR::SecurityConfiguration": _security_configuration,
    "AWS::Budgets::Budget": _budget,
    "AWS::EC2::VPC": _vpc,
    "AWS::EC2::Subnet": _subnet,
    "AWS::EC2::RouteTable": _route_table,
    "AWS::EC2::SubnetRouteTableAssociation": _route_association,
    "AWS::EC2::InternetGateway": _internet_gateway,
    "AWS::EC2::VPCGatewayAttachment": _gateway_attachment,
    "AWS::EC2::Route": _route,
    "AWS::EC2::SecurityGroup": _security_group,
    "AWS::EC2::VPCEndpoint": _endpoint,
}


def read_resource(kind: str, client: Client, physical: str) -> Live | None:
    """Return a live resource under the template's names, or None if it is missing."""
    live: Live | None = _none_if_gone(lambda: READERS[kind](client, physical))
    return live
