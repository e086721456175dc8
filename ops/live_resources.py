"""One reader for each resource type of include/stack.yaml: the live resource, under the template's names.

Each takes a function that gives boto3 clients and the physical id, and gives None for what is not there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

Client = Callable[[str], Any]
Live = dict[str, Any]

_GONE = {
    *(
        "NoSuchBucket",
        "NoSuchBucketPolicy",
        "NoSuchEntity",
        "NotFoundException",
        "EntityNotFoundException",
        "404",
    ),
    *(
        "InvalidRequestException",
        "InvalidVpcID.NotFound",
        "InvalidSubnetID.NotFound",
        "InvalidGroup.NotFound",
    ),
    *("InvalidRouteTableID.NotFound", "InvalidVpcEndpointId.NotFound", "NoSuchLifecycleConfiguration"),
    "InvalidInternetGatewayID.NotFound",
    *("ServerSideEncryptionConfigurationNotFoundError", "OwnershipControlsNotFoundError", "NoSuchTagSet"),
    *("NoSuchPublicAccessBlockConfiguration",),
}


def _key(client: Client, physical: str) -> Live | None:
    kms = client("kms")
    described = kms.describe_key(KeyId=physical)["KeyMetadata"]
    if described["KeyState"] != "Enabled":
        return None
    tags = kms.list_resource_tags(KeyId=physical)["Tags"]
    return {
        "Description": described["Description"],
        "EnableKeyRotation": kms.get_key_rotation_status(KeyId=physical)["KeyRotationEnabled"],
        # no call tells it: it is what the deletion that CloudFormation would ask for takes
        "PendingWindowInDays": 7,
        "KeyPolicy": json.loads(kms.get_key_policy(KeyId=physical, PolicyName="default")["Policy"]),
        "Tags": [{"Key": tag["TagKey"], "Value": tag["TagValue"]} for tag in tags],
    }


def _alias(client: Client, physical: str) -> Live | None:
    pages = client("kms").get_paginator("list_aliases").paginate()
    found = [one for page in pages for one in page["Aliases"] if one["AliasName"] == physical]
    return {"AliasName": physical, "TargetKeyId": found[0].get("TargetKeyId")} if found else None


def _bucket(client: Client, physical: str) -> Live | None:
    s3 = client("s3")
    s3.head_bucket(Bucket=physical)
    rules = _or_none(s3.get_bucket_encryption, "ServerSideEncryptionConfiguration", physical) or {"Rules": []}
    lifecycle = _or_none(s3.get_bucket_lifecycle_configuration, "Rules", physical) or []
    logging = s3.get_bucket_logging(Bucket=physical).get("LoggingEnabled", {})
    return {
        "BucketName": physical,
        "VersioningConfiguration": {"Status": s3.get_bucket_versioning(Bucket=physical).get("Status")},
        "OwnershipControls": _or_none(s3.get_bucket_ownership_controls, "OwnershipControls", physical),
        "PublicAccessBlockConfiguration": _or_none(
            s3.get_public_access_block, "PublicAccessBlockConfiguration", physical
        ),
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
        "Tags": _or_none(s3.get_bucket_tagging, "TagSet", physical) or [],
    }


def _lifecycle_rule(rule: Live) -> Live:
    """A rule of the S3 API in CloudFormation's words."""
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
    found = client("glue").get_database(Name=physical)["Database"]
    known = ("Name", "Description", "LocationUri")
    return {
        "CatalogId": found["CatalogId"],
        "DatabaseInput": {key: found[key] for key in known if key in found},
    }


def _role(client: Client, physical: str) -> Live | None:
    iam = client("iam")
    role = iam.get_role(RoleName=physical)["Role"]
    names = iam.list_role_policies(RoleName=physical)["PolicyNames"]
    documents = {
        name: iam.get_role_policy(RoleName=physical, PolicyName=name)["PolicyDocument"] for name in names
    }
    attached = iam.list_attached_role_policies(RoleName=physical)["AttachedPolicies"]
    return {
        "RoleName": role["RoleName"],
        "Description": role.get("Description"),
        "AssumeRolePolicyDocument": role["AssumeRolePolicyDocument"],
        "ManagedPolicyArns": [one["PolicyArn"] for one in attached],
        "Policies": [{"PolicyName": name, "PolicyDocument": one} for name, one in documents.items()],
        "Tags": iam.list_role_tags(RoleName=physical)["Tags"],
    }


def _instance_profile(client: Client, physical: str) -> Live | None:
    found = client("iam").get_instance_profile(InstanceProfileName=physical)["InstanceProfile"]
    return {"InstanceProfileName": physical, "Roles": [role["RoleName"] for role in found["Roles"]]}


def _security_configuration(client: Client, physical: str) -> Live | None:
    found = client("emr").describe_security_configuration(Name=physical)
    return {"Name": physical, "SecurityConfiguration": json.loads(found["SecurityConfiguration"])}


def _budget(client: Client, physical: str) -> Live | None:
    budgets, account = client("budgets"), client("sts").get_caller_identity()["Account"]
    found = budgets.describe_budget(AccountId=account, BudgetName=physical)["Budget"]
    known = ("BudgetName", "BudgetType", "TimeUnit", "CostFilters")
    limit = found["BudgetLimit"]
    amount = {"Amount": float(limit["Amount"]), "Unit": limit["Unit"]}
    listed = budgets.describe_notifications_for_budget(AccountId=account, BudgetName=physical)[
        "Notifications"
    ]
    alarms = []
    for one in listed:
        wanted = ("NotificationType", "ComparisonOperator", "Threshold", "ThresholdType")
        notification = {key: one[key] for key in wanted}
        told = budgets.describe_subscribers_for_notification(
            AccountId=account, BudgetName=physical, Notification=notification
        )["Subscribers"]
        alarms.append({"Notification": notification, "Subscribers": told})
    return {
        "Budget": {key: found[key] for key in known} | {"BudgetLimit": amount},
        "NotificationsWithSubscribers": alarms,
    }


def _vpc(client: Client, physical: str) -> Live | None:
    ec2 = client("ec2")
    [found] = ec2.describe_vpcs(VpcIds=[physical])["Vpcs"]

    def attribute(name: str) -> bool:
        shown = ec2.describe_vpc_attribute(VpcId=physical, Attribute=name[0].lower() + name[1:])
        return bool(shown[name]["Value"])

    switches = {name: attribute(name) for name in ("EnableDnsSupport", "EnableDnsHostnames")}
    return {"CidrBlock": found["CidrBlock"], "Tags": found.get("Tags", []), **switches}


def _subnet(client: Client, physical: str) -> Live | None:
    [found] = client("ec2").describe_subnets(SubnetIds=[physical])["Subnets"]
    known = ("VpcId", "CidrBlock", "AvailabilityZone", "MapPublicIpOnLaunch")
    return {key: found[key] for key in known} | {"Tags": found.get("Tags", [])}


def _route_table(client: Client, physical: str) -> Live | None:
    [found] = client("ec2").describe_route_tables(RouteTableIds=[physical])["RouteTables"]
    return {"VpcId": found["VpcId"], "Tags": found.get("Tags", [])}


def _route_association(client: Client, physical: str) -> Live | None:
    filters = [{"Name": "association.route-table-association-id", "Values": [physical]}]
    tables = client("ec2").describe_route_tables(Filters=filters)["RouteTables"]
    found = [
        one for table in tables for one in table["Associations"] if one["RouteTableAssociationId"] == physical
    ]
    return {"SubnetId": found[0]["SubnetId"], "RouteTableId": found[0]["RouteTableId"]} if found else None


def _internet_gateway(client: Client, physical: str) -> Live | None:
    [gateway] = client("ec2").describe_internet_gateways(InternetGatewayIds=[physical])["InternetGateways"]
    return {"Tags": gateway.get("Tags", [])}


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
            known = ("DestinationCidrBlock", "GatewayId")
            return {"RouteTableId": table_id} | {key: route[key] for key in known if key in route}
    return None


def _security_group(client: Client, physical: str) -> Live | None:
    [found] = client("ec2").describe_security_groups(GroupIds=[physical])["SecurityGroups"]
    return {
        "GroupDescription": found["Description"],
        "VpcId": found["VpcId"],
        "SecurityGroupIngress": _rules(found["IpPermissions"]),
        "SecurityGroupEgress": _rules(found["IpPermissionsEgress"]),
        "Tags": found.get("Tags", []),
    }


def _rules(permissions: list[Live]) -> list[Live]:
    ports = ("IpProtocol", "FromPort", "ToPort")
    return [
        {key: one.get(key) for key in ports} | {key: address[key] for key in address}
        for one in permissions
        for address in one["IpRanges"]
    ]


def _endpoint(client: Client, physical: str) -> Live | None:
    [found] = client("ec2").describe_vpc_endpoints(VpcEndpointIds=[physical])["VpcEndpoints"]
    return {
        "VpcId": found["VpcId"],
        "VpcEndpointType": found["VpcEndpointType"],
        "ServiceName": found["ServiceName"],
        "PrivateDnsEnabled": found.get("PrivateDnsEnabled"),
        "PolicyDocument": json.loads(found["PolicyDocument"]),
        "RouteTableIds": found.get("RouteTableIds", []),
        "SubnetIds": found.get("SubnetIds", []),
        "SecurityGroupIds": [group["GroupId"] for group in found.get("Groups", [])],
    }


def _or_none(call: Callable[..., Live], key: str, bucket: str) -> Any:
    try:
        return call(Bucket=bucket)[key]
    except ClientError as error:
        if error.response["Error"]["Code"] in _GONE:
            return None
        raise


def _none_when_gone(read: Callable[[Client, str], Live | None]) -> Callable[[Client, str], Live | None]:
    def reader(client: Client, physical: str) -> Live | None:
        try:
            return read(client, physical)
        except ClientError as error:
            if error.response["Error"]["Code"] in _GONE:
                return None
            raise

    return reader


READERS: dict[str, Callable[[Client, str], Live | None]] = {
    kind: _none_when_gone(read)
    for kind, read in {
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
    }.items()
}
