"""Resource types of a network that moto makes only in part, or stumbles over; as those in resources.py.

What it leaves out without a word: DNS host names, tags of route tables, descriptions and outward rules of security
groups, a subnet's word on public addresses.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from moto.cloudformation.exceptions import ValidationError
from moto.core.common_models import CloudFormationModel
from moto.ec2.exceptions import DependencyViolationError
from moto.ec2.models import ec2_backends
from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend, Zone
from moto.ec2.models.security_groups import SecurityGroupBackend

from local_aws.cloudformation.resources import Properties, Whole, truth

# A region younger than moto's list; a subnet needs a zone.
RegionsAndZonesBackend.zones.setdefault(
    "eusc-de-east-1",
    [
        Zone(region_name="eusc-de-east-1", name=f"eusc-de-east-1{letter}", zone_id=f"eusc-dee1-az{number}")
        for number, letter in enumerate("ab", start=1)
    ],
)


class _Ec2(Whole):
    """What the types of EC2 have in common.

    Attributes:
        tagged_as: the type's name in TagSpecifications; empty for a type without tags.
    """

    tagged_as: ClassVar[str] = ""

    @classmethod
    def ec2(cls, region: str) -> Any:
        """The EC2 client of a region."""
        return cls.clients.get("ec2", region)

    @classmethod
    def tags(cls, properties: Properties) -> dict[str, Any]:
        """The request's TagSpecifications, if there are tags."""
        tags = properties.get("Tags")
        return {"TagSpecifications": [{"ResourceType": cls.tagged_as, "Tags": tags}]} if tags else {}

    @classmethod
    def add_system_tags(cls, name: str, tags: dict[str, str], account_id: str, region: str) -> None:
        """Add them; the API refuses tags that begin with `aws:`."""
        if cls.tagged_as:
            ec2_backends[account_id][region].create_tags([name], tags)

    @classmethod
    def apply(cls, name: str, properties: Properties, region: str) -> None:  # noqa: ARG003
        """Refuses: these are replaced rather than changed, which local_aws cannot do.

        Raises:
            ValidationError: always.
        """
        raise ValidationError(
            message=f"local_aws cannot update {cls.kind} {name}: delete and create the stack."
        )


class Vpc(_Ec2, CloudFormationModel):
    """`AWS::EC2::VPC`."""

    kind = "AWS::EC2::VPC"
    tagged_as = "vpc"
    known = frozenset({"CidrBlock", "EnableDnsSupport", "EnableDnsHostnames", "Tags"})

    @classmethod
    def make(cls, name: str, properties: Properties, account_id: str, region: str) -> Any:  # noqa: ARG003
        """Makes the network."""
        ec2 = cls.ec2(region)
        made = ec2.create_vpc(CidrBlock=properties["CidrBlock"], **cls.tags(properties))["Vpc"]["VpcId"]
        for switch in ("EnableDnsSupport", "EnableDnsHostnames"):
            if switch in properties:
                ec2.modify_vpc_attribute(VpcId=made, **{switch: {"Value": truth(properties[switch])}})
        return cls(made)

    @classmethod
    def remove(cls, name: str, region: str) -> None:
        """Remove the network, which must be empty; moto takes endpoints and security groups with it.

        Raises:
            ValidationError: An endpoint or a security group is left in it.
        """
        ec2, filters = cls.ec2(region), [{"Name": "vpc-id", "Values": [name]}]
        endpoints = ec2.describe_vpc_endpoints(Filters=filters)["VpcEndpoints"]
        groups = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
        left = [endpoint["VpcEndpointId"] for endpoint in endpoints if endpoint["State"] != "deleted"]
        left += [group["GroupId"] for group in groups if group["GroupName"] != "default"]
        if left:
            raise ValidationError(message=f"The vpc '{name}' has dependencies: {', '.join(left)}.")
        ec2.delete_vpc(VpcId=name)


class Subnet(_Ec2, CloudFormationModel):
    """`AWS::EC2::Subnet`."""

    kind = "AWS::EC2::Subnet"
    tagged_as = "subnet"
    known = frozenset({"VpcId", "CidrBlock", "AvailabilityZone", "MapPublicIpOnLaunch", "Tags"})

    @classmethod
    def make(cls, name: str, properties: Properties, account_id: str, region: str) -> Any:  # noqa: ARG003
        """Makes the subnet."""
        ec2 = cls.ec2(region)
        request = {
            key: properties[key] for key in ("VpcId", "CidrBlock", "AvailabilityZone") if key in properties
        }
        made = ec2.create_subnet(**request, **cls.tags(properties))["Subnet"]["SubnetId"]
        public = {"Value": truth(properties.get("MapPublicIpOnLaunch", False))}
        ec2.modify_subnet_attribute(SubnetId=made, MapPublicIpOnLaunch=public)
        return cls(made)

    @classmethod
    def remove(cls, name: str, region: str) -> None:
        """Removes the subnet."""
        cls.ec2(region).delete_subnet(SubnetId=name)


class RouteTable(_Ec2, CloudFormationModel):
    """`AWS::EC2::RouteTable`."""

    kind = "AWS::EC2::RouteTable"
    tagged_as = "route-table"
    known = frozenset({"VpcId", "Tags"})

    @classmethod
    def make(cls, name: str, properties: Properties, account_id: str, region: str) -> Any:  # noqa: ARG003
        """Makes the table."""
        made = cls.ec2(region).create_route_table(VpcId=properties["VpcId"], **cls.tags(properties))
        return cls(made["RouteTable"]["RouteTableId"])

    @classmethod
    def remove(cls, name: str, region: str) -> None:
        """Removes the table."""
        cls.ec2(region).delete_route_table(RouteTableId=name)


class RouteTableAssociation(_Ec2, CloudFormationModel):
    """`AWS::EC2::SubnetRouteTableAssociation`; its own id, where moto gives the table's."""

    kind = "AWS::EC2::SubnetRouteTableAssociation"
    known = frozenset({"SubnetId", "RouteTableId"})

    @classmethod
    def make(cls, name: str, properties: Properties, account_id: str, region: str) -> Any:  # noqa: ARG003
        """Makes the association."""
        return cls(cls.ec2(region).associate_route_table(**properties)["AssociationId"])

    @classmethod
    def remove(cls, name: str, region: str) -> None:
        """Removes the association."""
        cls.ec2(region).disassociate_route_table(AssociationId=name)


class InternetGateway(_Ec2, CloudFormationModel):
    """`AWS::EC2::InternetGateway`."""

    kind = "AWS::EC2::InternetGateway"
    tagged_as = "internet-gateway"
    known = frozenset({"Tags"})

    @classmethod
    def make(cls, name: str, properties: Properties, account_id: str, region: str) -> Any:  # noqa: ARG003
        """Create the gateway."""
        created = cls.ec2(region).create_internet_gateway(**cls.tags(properties))
        return cls(created["InternetGateway"]["InternetGatewayId"])

    @classmethod
    def remove(cls, name: str, region: str) -> None:
        """Delete the gateway, which must be detached."""
        cls.ec2(region).delete_internet_gateway(InternetGatewayId=name)


class GatewayAttachment(_Ec2, CloudFormationModel):
    """`AWS::EC2::VPCGatewayAttachment` of an internet gateway; its id is `IGW|vpc-…`, as on AWS."""

    kind = "AWS::EC2::VPCGatewayAttachment"
    known = frozenset({"VpcId", "InternetGatewayId"})

    @classmethod
    def make(cls, name: str, properties: Properties, account_id: str, region: str) -> Any:  # noqa: ARG003
        """Attach the gateway to its VPC."""
        cls.ec2(region).attach_internet_gateway(**properties)
        return cls(f"IGW|{properties['VpcId']}")

    @classmethod
    def remove(cls, name: str, region: str) -> None:
        """Detach the gateway."""
        ec2, vpc_id = cls.ec2(region), name.partition("|")[2]
        attached = [{"Name": "attachment.vpc-id", "Values": [vpc_id]}]
        for gateway in ec2.describe_internet_gateways(Filters=attached)["InternetGateways"]:
            ec2.detach_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"], VpcId=vpc_id)


class Route(_Ec2, CloudFormationModel):
    """`AWS::EC2::Route` to a gateway; its id is `rtb-…|0.0.0.0/0`, as on AWS."""

    kind = "AWS::EC2::Route"
    known = frozenset({"RouteTableId", "DestinationCidrBlock", "GatewayId"})

    @classmethod
    def make(cls, name: str, properties: Properties, account_id: str, region: str) -> Any:  # noqa: ARG003
        """Create the route."""
        cls.ec2(region).create_route(**properties)
        return cls(f"{properties['RouteTableId']}|{properties['DestinationCidrBlock']}")

    @classmethod
    def remove(cls, name: str, region: str) -> None:
        """Delete the route."""
        table, _, destination = name.partition("|")
        cls.ec2(region).delete_route(RouteTableId=table, DestinationCidrBlock=destination)


class SecurityGroup(_Ec2, CloudFormationModel):
    """`AWS::EC2::SecurityGroup` with rules by address range."""

    kind = "AWS::EC2::SecurityGroup"
    tagged_as = "security-group"
    known = frozenset(
        {"GroupName", "GroupDescription", "VpcId", "SecurityGroupIngress", "SecurityGroupEgress", "Tags"}
    )

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        """Whether `Fn::GetAtt` knows the attribute."""
        return attr == "GroupId"

    def get_cfn_attribute(self, attribute_name: str) -> str:  # noqa: ARG002  there is one
        """The group's id."""
        return str(self.physical_resource_id)

    @classmethod
    def make(cls, name: str, properties: Properties, account_id: str, region: str) -> Any:  # noqa: ARG003
        """Makes the group; rules outward replace the one that allows all."""
        ec2 = cls.ec2(region)
        made = ec2.create_security_group(
            GroupName=properties.get("GroupName", name),
            Description=properties["GroupDescription"],
            VpcId=properties["VpcId"],
            **cls.tags(properties),
        )["GroupId"]
        if inward := properties.get("SecurityGroupIngress"):
            ec2.authorize_security_group_ingress(
                GroupId=made, IpPermissions=[_permission(one) for one in inward]
            )
        if outward := properties.get("SecurityGroupEgress"):
            all_ways = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
            ec2.revoke_security_group_egress(GroupId=made, IpPermissions=[all_ways])
            ec2.authorize_security_group_egress(
                GroupId=made, IpPermissions=[_permission(one) for one in outward]
            )
        return cls(made)

    @classmethod
    def remove(cls, name: str, region: str) -> None:
        """Removes the group."""
        cls.ec2(region).delete_security_group(GroupId=name)


def _permission(rule: Properties) -> dict[str, Any]:
    if unknown := sorted(rule.keys() - {"IpProtocol", "FromPort", "ToPort", "CidrIp", "Description"}):
        raise ValidationError(
            message=f"local_aws does not implement {', '.join(unknown)} of a security group's rule."
        )
    address = {key: rule[key] for key in ("CidrIp", "Description") if key in rule}
    ports: dict[str, Any] = {key: int(rule[key]) for key in ("FromPort", "ToPort") if key in rule}
    return {"IpProtocol": rule["IpProtocol"], **ports, "IpRanges": [address]}


class VpcEndpoint(_Ec2, CloudFormationModel):
    """`AWS::EC2::VPCEndpoint`: moto fails on one without route tables, and keeps no policy as a document."""

    kind = "AWS::EC2::VPCEndpoint"
    tagged_as = "vpc-endpoint"
    known = frozenset(
        {
            *("VpcId", "ServiceName", "VpcEndpointType", "PolicyDocument", "PrivateDnsEnabled"),
            *("RouteTableIds", "SubnetIds", "SecurityGroupIds", "Tags"),
        }
    )

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        """Whether `Fn::GetAtt` knows the attribute."""
        return attr == "Id"

    def get_cfn_attribute(self, attribute_name: str) -> str:  # noqa: ARG002  there is one
        """The endpoint's id."""
        return str(self.physical_resource_id)

    @classmethod
    def make(cls, name: str, properties: Properties, account_id: str, region: str) -> Any:  # noqa: ARG003
        """Makes the endpoint."""
        request = {key: value for key, value in properties.items() if key != "Tags"}
        if "PolicyDocument" in request:
            request["PolicyDocument"] = json.dumps(request["PolicyDocument"], default=str)
        if "PrivateDnsEnabled" in request:
            request["PrivateDnsEnabled"] = truth(request["PrivateDnsEnabled"])
        made = cls.ec2(region).create_vpc_endpoint(**request, **cls.tags(properties))
        return cls(made["VpcEndpoint"]["VpcEndpointId"])

    @classmethod
    def apply(cls, name: str, properties: Properties, region: str) -> None:
        """Changes the policy, which is all that AWS changes in place here."""
        policy = json.dumps(properties["PolicyDocument"], default=str)
        cls.ec2(region).modify_vpc_endpoint(VpcEndpointId=name, PolicyDocument=policy)

    @classmethod
    def remove(cls, name: str, region: str) -> None:
        """Removes the endpoint."""
        cls.ec2(region).delete_vpc_endpoints(VpcEndpointIds=[name])


def _delete_security_group(
    self: SecurityGroupBackend,
    vpc_id: str | None,
    group_id: str,
    delete: Any = SecurityGroupBackend._delete_security_group,
) -> None:
    """DeleteSecurityGroup, which moto grants also where another group's rule refers to the group."""
    others = [group for groups in self.groups.values() for group in groups.values() if group.id != group_id]
    rules = [rule for group in others for rule in (*group.ingress_rules, *group.egress_rules)]
    if any(rule.source_group.get("GroupId") == group_id for rule in rules):
        raise DependencyViolationError(f"resource {group_id} has a dependent object")
    delete(self, vpc_id, group_id)


setattr(SecurityGroupBackend, "_delete_security_group", _delete_security_group)  # noqa: B010
