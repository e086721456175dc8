"""Resource types that moto skips or makes only in part, made whole through the services' own APIs.

Each class has the shape that moto's CloudFormation looks for; being defined later than moto's, it replaces moto's of
the same type. A property that is not handled is an error, never left out.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any, ClassVar

from moto.cloudformation.exceptions import UnformattedGetAttTemplateException, ValidationError
from moto.core.common_models import CloudFormationModel
from moto.iam.models import iam_backends
from moto.kms.models import kms_backends
from moto.s3.models import s3_backends
from moto.utilities.utils import get_partition

from local_aws.clients import Clients
from local_aws.cloudformation.lifecycle import api_rules

Properties = dict[str, Any]


class Whole:
    """What the types of this package have in common.

    Attributes:
        clients: clients of this server, set by `local_aws.assembly`.
        kind: the resource type.
        known: the properties that are handled.
    """

    clients: ClassVar[Clients]
    kind: ClassVar[str]
    known: ClassVar[frozenset[str]]

    def __init__(self, physical_resource_id: str) -> None:
        self.physical_resource_id = physical_resource_id

    @classmethod
    def cloudformation_type(cls) -> str:
        """The resource type."""
        return cls.kind

    @staticmethod
    def cloudformation_name_type() -> str:
        """The property that names the resource; none."""
        return ""

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:  # noqa: ARG003  moto's signature
        """Whether `Fn::GetAtt` knows the attribute."""
        return False

    def get_cfn_attribute(self, attribute_name: str) -> str:  # noqa: ARG002  moto's signature
        """The value of `Fn::GetAtt`."""
        raise UnformattedGetAttTemplateException

    def is_created(self) -> bool:
        """Whether it is there; it is as soon as it is made."""
        return True

    @classmethod
    def create_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: Properties,
        account_id: str,
        region_name: str,
        **_kwargs: Any,
    ) -> Any:
        """Makes the resource.

        Raises:
            ValidationError: a property is not handled.
        """
        properties = cls._properties(cloudformation_json)
        return cls.make(resource_name, properties, account_id, region_name)

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: Any,
        new_resource_name: str,  # noqa: ARG003  moto's signature
        cloudformation_json: Properties,
        account_id: str,  # noqa: ARG003  moto's signature
        region_name: str,
    ) -> Any:
        """Changes the resource to what the template says now.

        Raises:
            ValidationError: a property is not handled.
        """
        cls.apply(original_resource.physical_resource_id, cls._properties(cloudformation_json), region_name)
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: Properties,  # noqa: ARG003  moto passes it with its functions unresolved
        account_id: str,  # noqa: ARG003  moto's signature
        region_name: str,
    ) -> None:
        """Removes the resource."""
        cls.remove(resource_name, region_name)

    @classmethod
    def _properties(cls, template: Properties) -> Properties:
        properties: Properties = template["Properties"]
        if unknown := sorted(properties.keys() - cls.known):
            raise ValidationError(message=f"local_aws does not implement {', '.join(unknown)} of {cls.kind}.")
        return properties

    @classmethod
    def make(cls, name: str, properties: Properties, account_id: str, region: str) -> Any:  # noqa: ARG003
        """Makes the resource and gives what moto will keep of it."""
        cls.apply(name, properties, region)
        return cls(name)

    @classmethod
    def apply(cls, name: str, properties: Properties, region: str) -> None:
        """Makes the resource what its properties say."""
        raise NotImplementedError

    @classmethod
    def remove(cls, name: str, region: str) -> None:
        """Removes the resource."""
        raise NotImplementedError

    @classmethod
    def add_system_tags(cls, name: str, tags: dict[str, str], account_id: str, region: str) -> None:
        """Add the tags `aws:cloudformation:*` where the type's schema says `cloudFormationSystemTags`."""


class Bucket(Whole, CloudFormationModel):
    """`AWS::S3::Bucket`: moto makes it with encryption and tags only."""

    kind = "AWS::S3::Bucket"
    known = frozenset(
        {
            *("BucketName", "BucketEncryption", "VersioningConfiguration", "PublicAccessBlockConfiguration"),
            *("LifecycleConfiguration", "LoggingConfiguration", "OwnershipControls", "Tags"),
        }
    )

    @staticmethod
    def cloudformation_name_type() -> str:
        """The property that names the resource."""
        return "BucketName"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        """Whether `Fn::GetAtt` knows the attribute."""
        return attr in ("Arn", "DomainName", "DualStackDomainName", "RegionalDomainName", "WebsiteURL")

    @classmethod
    def make(cls, name: str, properties: Properties, account_id: str, region: str) -> Any:
        """Makes the bucket; moto keeps its own object, which knows the attributes."""
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        cls.clients.get("s3", region).create_bucket(Bucket=name, **where)
        cls.apply(name, properties, region)
        return s3_backends[account_id][get_partition(region)].get_bucket(name)

    @classmethod
    def apply(cls, name: str, properties: Properties, region: str) -> None:
        """Sets the bucket's configurations."""
        s3 = cls.clients.get("s3", region)
        if rules := (properties.get("BucketEncryption") or {}).get("ServerSideEncryptionConfiguration"):
            wanted = [
                {
                    "ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"],
                    "BucketKeyEnabled": truth(rule.get("BucketKeyEnabled", False)),
                }
                for rule in rules
            ]
            s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": wanted})
        if versioning := properties.get("VersioningConfiguration"):
            s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=versioning)
        if block := properties.get("PublicAccessBlockConfiguration"):
            block = {key: truth(value) for key, value in block.items()}
            s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=block)
        if ownership := properties.get("OwnershipControls"):
            s3.put_bucket_ownership_controls(Bucket=name, OwnershipControls=ownership)
        if lifecycle := properties.get("LifecycleConfiguration"):
            s3.put_bucket_lifecycle_configuration(
                Bucket=name, LifecycleConfiguration={"Rules": api_rules(lifecycle["Rules"])}
            )
        if logging := properties.get("LoggingConfiguration"):
            enabled = {
                "TargetBucket": logging["DestinationBucketName"],
                "TargetPrefix": logging.get("LogFilePrefix", ""),
            }
            s3.put_bucket_logging(Bucket=name, BucketLoggingStatus={"LoggingEnabled": enabled})
        if tags := properties.get("Tags"):
            s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})

    @classmethod
    def remove(cls, name: str, region: str) -> None:
        """Removes the bucket, which must be empty."""
        cls.clients.get("s3", region).delete_bucket(Bucket=name)

    @classmethod
    def add_system_tags(cls, name: str, tags: dict[str, str], account_id: str, region: str) -> None:
        """Add them beside the bucket's own; the API refuses tags that begin with `aws:`."""
        backend = s3_backends[account_id][get_partition(region)]
        own = {tag["Key"]: tag["Value"] for tag in backend.get_bucket_tagging(name)["Tags"]}
        backend.put_bucket_tagging(name, own | tags)


class Key(Whole, CloudFormationModel):
    """`AWS::KMS::Key`: moto stumbles over its tags."""

    kind = "AWS::KMS::Key"
    known = frozenset(
        {"Description", "Enabled", "EnableKeyRotation", "KeyPolicy", "PendingWindowInDays", "Tags"}
    )

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        """Whether `Fn::GetAtt` knows the attribute."""
        return attr in ("Arn", "KeyId")

    @classmethod
    def make(cls, name: str, properties: Properties, account_id: str, region: str) -> Any:  # noqa: ARG003
        """Makes the key; moto keeps its own object, which knows the attributes."""
        tags = [{"TagKey": one["Key"], "TagValue": one["Value"]} for one in properties.get("Tags") or []]
        made = cls.clients.get("kms", region).create_key(
            Policy=json.dumps(properties["KeyPolicy"], default=str),
            Description=properties.get("Description", ""),
            Tags=tags,
        )
        key_id = made["KeyMetadata"]["KeyId"]
        cls.apply(key_id, properties, region)
        return kms_backends[account_id][region].keys[key_id]

    @classmethod
    def apply(cls, name: str, properties: Properties, region: str) -> None:
        """Sets the key's policy and rotation."""
        kms = cls.clients.get("kms", region)
        kms.put_key_policy(
            KeyId=name, PolicyName="default", Policy=json.dumps(properties["KeyPolicy"], default=str)
        )
        (
            kms.enable_key_rotation
            if truth(properties.get("EnableKeyRotation", False))
            else kms.disable_key_rotation
        )(KeyId=name)
        (kms.enable_key if truth(properties.get("Enabled", True)) else kms.disable_key)(KeyId=name)

    @classmethod
    def remove(cls, name: str, region: str) -> None:
        """Schedules the key's deletion, as AWS does."""
        cls.clients.get("kms", region).schedule_key_deletion(KeyId=name)


class BucketPolicy(Whole, CloudFormationModel):
    """`AWS::S3::BucketPolicy`, which moto skips."""

    kind = "AWS::S3::BucketPolicy"
    known = frozenset({"Bucket", "PolicyDocument"})

    @classmethod
    def make(cls, name: str, properties: Properties, account_id: str, region: str) -> Any:  # noqa: ARG003
        """Sets the policy; its bucket's name is its id."""
        cls.apply(properties["Bucket"], properties, region)
        return cls(properties["Bucket"])

    @classmethod
    def apply(cls, name: str, properties: Properties, region: str) -> None:
        """Sets the policy."""
        policy = json.dumps(properties["PolicyDocument"], default=str)
        cls.clients.get("s3", region).put_bucket_policy(Bucket=name, Policy=policy)

    @classmethod
    def remove(cls, name: str, region: str) -> None:
        """Removes the policy; a bucket that is gone took it along."""
        s3 = cls.clients.get("s3", region)
        with contextlib.suppress(s3.exceptions.NoSuchBucket):
            s3.delete_bucket_policy(Bucket=name)


class Role(Whole, CloudFormationModel):
    """`AWS::IAM::Role`: moto leaves the managed policies out."""

    kind = "AWS::IAM::Role"
    known = frozenset(
        {
            *(
                "RoleName",
                "Path",
                "Description",
                "AssumeRolePolicyDocument",
                "MaxSessionDuration",
                "Policies",
            ),
            *("ManagedPolicyArns", "PermissionsBoundary", "Tags"),
        }
    )

    @staticmethod
    def cloudformation_name_type() -> str:
        """The property that names the resource."""
        return "RoleName"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        """Whether `Fn::GetAtt` knows the attribute."""
        return attr in ("Arn", "RoleId")

    @classmethod
    def make(cls, name: str, properties: Properties, account_id: str, region: str) -> Any:
        """Makes the role; moto keeps its own object, which knows the attributes."""
        optional = ("Path", "Description", "MaxSessionDuration", "PermissionsBoundary", "Tags")
        cls.clients.get("iam", region).create_role(
            RoleName=name,
            AssumeRolePolicyDocument=json.dumps(properties["AssumeRolePolicyDocument"], default=str),
            **{key: properties[key] for key in optional if key in properties},
        )
        cls.apply(name, properties, region)
        return iam_backends[account_id][get_partition(region)].get_role(name)

    @classmethod
    def apply(cls, name: str, properties: Properties, region: str) -> None:
        """Attaches the role's policies."""
        iam = cls.clients.get("iam", region)
        for one in properties.get("Policies") or []:
            document = json.dumps(one["PolicyDocument"], default=str)
            iam.put_role_policy(RoleName=name, PolicyName=one["PolicyName"], PolicyDocument=document)
        for arn in properties.get("ManagedPolicyArns") or []:
            iam.attach_role_policy(RoleName=name, PolicyArn=arn)

    @classmethod
    def remove(cls, name: str, region: str) -> None:
        """Detaches the role's policies and removes it."""
        iam = cls.clients.get("iam", region)
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            iam.delete_role_policy(RoleName=name, PolicyName=policy)
        for one in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            iam.detach_role_policy(RoleName=name, PolicyArn=one["PolicyArn"])
        iam.delete_role(RoleName=name)


class Database(Whole, CloudFormationModel):
    """`AWS::Glue::Database`, which moto skips."""

    kind = "AWS::Glue::Database"
    known = frozenset({"CatalogId", "DatabaseInput"})

    @classmethod
    def make(cls, name: str, properties: Properties, account_id: str, region: str) -> Any:
        """Makes the database; its name is its id."""
        described = {"Name": name, **properties["DatabaseInput"]}
        cls.clients.get("glue", region).create_database(
            CatalogId=properties.get("CatalogId", account_id), DatabaseInput=described
        )
        return cls(described["Name"])

    @classmethod
    def apply(cls, name: str, properties: Properties, region: str) -> None:
        """Changes the database."""
        cls.clients.get("glue", region).update_database(
            Name=name, DatabaseInput={"Name": name, **properties["DatabaseInput"]}
        )

    @classmethod
    def remove(cls, name: str, region: str) -> None:
        """Removes the database and, as on AWS, its tables."""
        cls.clients.get("glue", region).delete_database(Name=name)


class SecurityConfiguration(Whole, CloudFormationModel):
    """`AWS::EMR::SecurityConfiguration`: moto cannot remove one whose name is computed."""

    kind = "AWS::EMR::SecurityConfiguration"
    known = frozenset({"Name", "SecurityConfiguration"})

    @staticmethod
    def cloudformation_name_type() -> str:
        """The property that names the resource."""
        return "Name"

    @classmethod
    def apply(cls, name: str, properties: Properties, region: str) -> None:
        """Makes the configuration."""
        configuration = properties["SecurityConfiguration"]
        text = configuration if isinstance(configuration, str) else json.dumps(configuration, default=str)
        cls.clients.get("emr", region).create_security_configuration(Name=name, SecurityConfiguration=text)

    @classmethod
    def remove(cls, name: str, region: str) -> None:
        """Removes the configuration."""
        cls.clients.get("emr", region).delete_security_configuration(Name=name)


def install(clients: Clients) -> None:
    """Says how these types reach the services."""
    Whole.clients = clients


def truth(value: object) -> bool:
    """A template's truth: YAML gives booleans, JSON and parameters give strings."""
    return value is True or str(value).lower() == "true"
