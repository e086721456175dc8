"""Resource types of a network that moto creates only in part or fails on.

moto ignores DNS host names, tags of route tables, descriptions and outward rules of security groups, and a subnet's
setting of public addresses.
"""

import json
from typing import Any, ClassVar

from moto.cloudformation.exceptions import ValidationError
from moto.core.common_models import CloudFormationModel
from moto.ec2.exceptions import DependencyViolationError
from moto.ec2.models import ec2_backends
from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend, Zone
from moto.ec2.models.security_groups import SecurityGroupBackend

from local_aws.cloudformation.resources import CompleteResource, Properties, Scope, is_true

# A region younger than moto's list; a subnet needs a zone.
RegionsAndZonesBackend.zones.setdefault(
    "eusc-de-east-1",
    [
        Zone(region_name="eusc-de-east-1", name=f"eusc-de-east-1{letter}", zone_id=f"eusc-dee1-az{number}")
        for number, letter in enumerate("ab", start=1)
    ],
)


class _Ec2(CompleteResource):
    """A resource type of EC2. Its properties are the parameters of the operation that creates it."""

    tagged_as: ClassVar[str] = ""  # the type's name in TagSpecifications; empty for a type without tags
    creation: ClassVar[tuple[str, ...]]  # the operation that creates it, and the path to the id in the response
    deletion: ClassVar[tuple[str, str]]  # the operation that deletes it, and its parameter for the id
    switches: ClassVar[tuple[str, ...]] = ()  # properties that `modification` sets afterwards, one at a time
    modification: ClassVar[str]

    @classmethod
    def create(cls, name: str, properties: Properties, scope: Scope) -> Any:
        request = {key: value for key, value in properties.items() if key not in ("Tags", *cls.switches)}
        if tags := properties.get("Tags"):
            request["TagSpecifications"] = [{"ResourceType": cls.tagged_as, "Tags": tags}]
        operation, *path = cls.creation
        response = getattr(scope.client("ec2"), operation)(**request)
        for member in path:
            response = response[member]
        for switch in filter(properties.__contains__, cls.switches):
            changes = {cls.deletion[1]: response, switch: {"Value": is_true(properties[switch])}}
            getattr(scope.client("ec2"), cls.modification)(**changes)
        return cls(response)

    def update(self, properties: Properties, scope: Scope) -> None:
        # AWS replaces these resources
        name = f"{self.kind} {self.physical_resource_id}"
        raise ValidationError(message=f"local_aws cannot update {name}: delete and create the stack.")

    def delete(self, scope: Scope) -> None:
        operation, parameter = self.deletion
        getattr(scope.client("ec2"), operation)(**{parameter: self.physical_resource_id})

    def add_system_tags(self, tags: dict[str, str], scope: Scope) -> None:
        if self.tagged_as:  # the API refuses tags that begin with `aws:`
            ec2_backends[scope.account_id][scope.region].create_tags([self.physical_resource_id], tags)


class Vpc(_Ec2, CloudFormationModel):
    """A VPC. As on AWS it must be empty when it is deleted; moto would delete endpoints and security groups with it."""

    kind = "AWS::EC2::VPC"
    tagged_as = "vpc"
    known = ("CidrBlock", "EnableDnsSupport", "EnableDnsHostnames", "Tags")
    creation = ("create_vpc", "Vpc", "VpcId")
    deletion = ("delete_vpc", "VpcId")
    switches = ("EnableDnsSupport", "EnableDnsHostnames")
    modification = "modify_vpc_attribute"

    def delete(self, scope: Scope) -> None:
        ec2, filters = scope.client("ec2"), [{"Name": "vpc-id", "Values": [self.physical_resource_id]}]
        endpoints = ec2.describe_vpc_endpoints(Filters=filters)["VpcEndpoints"]
        groups = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
        left = [endpoint["VpcEndpointId"] for endpoint in endpoints if endpoint["State"] != "deleted"]
        left += [group["GroupId"] for group in groups if group["GroupName"] != "default"]
        if left:
            raise ValidationError(message=f"The vpc '{self.physical_resource_id}' has dependencies: {', '.join(left)}.")
        super().delete(scope)


class Subnet(_Ec2, CloudFormationModel):
    """A subnet."""

    kind = "AWS::EC2::Subnet"
    tagged_as = "subnet"
    known = ("VpcId", "CidrBlock", "AvailabilityZone", "MapPublicIpOnLaunch", "Tags")
    creation = ("create_subnet", "Subnet", "SubnetId")
    deletion = ("delete_subnet", "SubnetId")
    switches = ("MapPublicIpOnLaunch",)
    modification = "modify_subnet_attribute"


class RouteTable(_Ec2, CloudFormationModel):
    """A route table."""

    kind = "AWS::EC2::RouteTable"
    tagged_as = "route-table"
    known = ("VpcId", "Tags")
    creation = ("create_route_table", "RouteTable", "RouteTableId")
    deletion = ("delete_route_table", "RouteTableId")


class RouteTableAssociation(_Ec2, CloudFormationModel):
    """A subnet's association with a route table; it has an id of its own, where moto takes the table's."""

    kind = "AWS::EC2::SubnetRouteTableAssociation"
    known = ("SubnetId", "RouteTableId")
    creation = ("associate_route_table", "AssociationId")
    deletion = ("disassociate_route_table", "AssociationId")


class InternetGateway(_Ec2, CloudFormationModel):
    """An internet gateway."""

    kind = "AWS::EC2::InternetGateway"
    tagged_as = "internet-gateway"
    known = ("Tags",)
    creation = ("create_internet_gateway", "InternetGateway", "InternetGatewayId")
    deletion = ("delete_internet_gateway", "InternetGatewayId")


class GatewayAttachment(_Ec2, CloudFormationModel):
    """An internet gateway's attachment to a VPC; its id is `IGW|vpc-…`, as on AWS."""

    kind = "AWS::EC2::VPCGatewayAttachment"
    known = ("VpcId", "InternetGatewayId")

    @classmethod
    def create(cls, name: str, properties: Properties, scope: Scope) -> Any:
        scope.client("ec2").attach_internet_gateway(**properties)
        return cls(f"IGW|{properties['VpcId']}")

    def delete(self, scope: Scope) -> None:
        ec2, vpc_id = scope.client("ec2"), self.physical_resource_id.partition("|")[2]
        attached = [{"Name": "attachment.vpc-id", "Values": [vpc_id]}]
        for gateway in ec2.describe_internet_gateways(Filters=attached)["InternetGateways"]:
            ec2.detach_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"], VpcId=vpc_id)


class Route(_Ec2, CloudFormationModel):
    """A route to a gateway; its id is `rtb-…|0.0.0.0/0`, as on AWS."""

    kind = "AWS::EC2::Route"
    known = ("RouteTableId", "DestinationCidrBlock", "GatewayId")

    @classmethod
    def create(cls, name: str, properties: Properties, scope: Scope) -> Any:
        scope.client("ec2").create_route(**properties)
        return cls(f"{properties['RouteTableId']}|{properties['DestinationCidrBlock']}")

    def delete(self, scope: Scope) -> None:
        table_id, _, destination = self.physical_resource_id.partition("|")
        scope.client("ec2").delete_route(RouteTableId=table_id, DestinationCidrBlock=destination)


class SecurityGroup(_Ec2, CloudFormationModel):
    """A security group with rules by address range or group. Outward rules replace the rule that allows everything."""

    kind = "AWS::EC2::SecurityGroup"
    tagged_as = "security-group"
    known = ("GroupName", "GroupDescription", "VpcId", "SecurityGroupIngress", "SecurityGroupEgress", "Tags")
    attributes = ("GroupId",)
    creation = ("create_security_group", "GroupId")
    deletion = ("delete_security_group", "GroupId")

    @classmethod
    def create(cls, name: str, properties: Properties, scope: Scope) -> Any:
        request = {
            "GroupName": properties.get("GroupName", name),
            "Description": properties["GroupDescription"],
            "VpcId": properties["VpcId"],
            "Tags": properties.get("Tags"),
        }
        group = super().create(name, request, scope)
        ec2, group_id = scope.client("ec2"), {"GroupId": group.physical_resource_id}
        if inward := properties.get("SecurityGroupIngress"):
            ec2.authorize_security_group_ingress(**group_id, IpPermissions=_permissions(inward))
        if outward := properties.get("SecurityGroupEgress"):
            everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
            ec2.revoke_security_group_egress(**group_id, IpPermissions=[everything])
            ec2.authorize_security_group_egress(**group_id, IpPermissions=_permissions(outward))
        return group


def _permissions(rules: list[Properties]) -> list[dict[str, Any]]:
    known = {"IpProtocol", "FromPort", "ToPort", "CidrIp", "SourceSecurityGroupId", "Description"}
    permissions = []
    for rule in rules:
        if unknown := sorted(rule.keys() - known):
            raise ValidationError(
                message=f"local_aws does not implement {', '.join(unknown)} of a security group's rule."
            )
        source: Properties = {key: rule[key] for key in ("CidrIp", "Description") if key in rule}
        if "SourceSecurityGroupId" in rule:
            source["GroupId"] = rule["SourceSecurityGroupId"]
        ports: dict[str, Any] = {key: int(rule[key]) for key in ("FromPort", "ToPort") if key in rule}
        sources = "UserIdGroupPairs" if "GroupId" in source else "IpRanges"
        permissions.append({"IpProtocol": rule["IpProtocol"], **ports, sources: [source]})
    return permissions


class VpcEndpoint(_Ec2, CloudFormationModel):
    """A VPC endpoint: moto fails without route tables and does not store the policy as a document.

    As on AWS, an update changes the policy only.
    """

    kind = "AWS::EC2::VPCEndpoint"
    tagged_as = "vpc-endpoint"
    known = (
        *("VpcId", "ServiceName", "VpcEndpointType", "PolicyDocument", "PrivateDnsEnabled"),
        *("RouteTableIds", "SubnetIds", "SecurityGroupIds", "Tags"),
    )
    attributes = ("Id",)
    creation = ("create_vpc_endpoint", "VpcEndpoint", "VpcEndpointId")

    @classmethod
    def create(cls, name: str, properties: Properties, scope: Scope) -> Any:
        request = dict(properties)
        if "PolicyDocument" in request:
            request["PolicyDocument"] = json.dumps(request["PolicyDocument"], default=str)
        if "PrivateDnsEnabled" in request:
            request["PrivateDnsEnabled"] = is_true(request["PrivateDnsEnabled"])
        return super().create(name, request, scope)

    def update(self, properties: Properties, scope: Scope) -> None:
        policy = json.dumps(properties["PolicyDocument"], default=str)
        scope.client("ec2").modify_vpc_endpoint(VpcEndpointId=self.physical_resource_id, PolicyDocument=policy)

    def delete(self, scope: Scope) -> None:
        scope.client("ec2").delete_vpc_endpoints(VpcEndpointIds=[self.physical_resource_id])


def _delete_security_group(
    self: SecurityGroupBackend,
    vpc_id: str | None,
    group_id: str,
    delete: Any = SecurityGroupBackend._delete_security_group,
) -> None:
    """Refuse to delete a group that a rule of another group refers to; moto deletes it."""
    others = [group for groups in self.groups.values() for group in groups.values() if group.id != group_id]
    rules = [rule for group in others for rule in (*group.ingress_rules, *group.egress_rules)]
    if any(rule.source_group.get("GroupId") == group_id for rule in rules):
        raise DependencyViolationError(f"resource {group_id} has a dependent object")
    delete(self, vpc_id, group_id)


setattr(SecurityGroupBackend, "_delete_security_group", _delete_security_group)  # noqa: B010
