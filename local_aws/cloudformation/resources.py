"""Resource types that moto skips or creates only in part, created in full through the services' own APIs.

Each class has the methods that moto's CloudFormation calls. It is defined after moto's class of the same type and so
replaces it. A property that is not implemented is an error; none is ignored.
"""

import contextlib
import json
from dataclasses import dataclass
from typing import Any, ClassVar

from moto.cloudformation.exceptions import UnformattedGetAttTemplateException, ValidationError
from moto.core.common_models import CloudFormationModel
from moto.iam.models import iam_backends
from moto.kms.models import kms_backends
from moto.s3.models import s3_backends
from moto.utilities.utils import get_partition

from local_aws.clients import Clients
from local_aws.cloudformation.lifecycle import api_rule

Properties = dict[str, Any]


@dataclass(frozen=True)
class Scope:
    """The account and region of a stack, and clients of this server for them."""

    account_id: str
    region: str
    clients: Clients

    def client(self, service: str) -> Any:
        """Return the client of a service in the region."""
        return self.clients.get(service, self.region)

    def backend(self, backends: Any) -> Any:
        """Return moto's backend, of the account and partition, of a service that is not regional."""
        return backends[self.account_id][get_partition(self.region)]


class CompleteResource:
    """A resource type."""

    clients: ClassVar[Clients]  # clients of this server, set by `local_aws.assembly`
    kind: ClassVar[str]  # the resource type
    known: ClassVar[tuple[str, ...]]  # the properties that are implemented
    name_property: ClassVar[str] = ""  # the property that names the resource; empty for types without a name
    # The attributes that `Fn::GetAtt` knows. Where moto keeps an object of this class, each is the id.
    attributes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, physical_resource_id: str) -> None:
        self.physical_resource_id = physical_resource_id

    # what a type overrides

    @classmethod
    def create(cls, name: str, properties: Properties, scope: Scope) -> Any:
        """Create the resource and return the object that moto keeps."""
        resource = cls(name)
        resource.update(properties, scope)
        return resource

    def update(self, properties: Properties, scope: Scope) -> None:
        """Change the resource to what its properties say."""
        raise NotImplementedError

    def delete(self, scope: Scope) -> None:
        """Delete the resource."""
        raise NotImplementedError

    def add_system_tags(self, tags: dict[str, str], scope: Scope) -> None:
        """Add the tags `aws:cloudformation:*` where the type's schema says `cloudFormationSystemTags`."""

    # what moto calls

    @classmethod
    def cloudformation_type(cls) -> str:
        return cls.kind

    @classmethod
    def cloudformation_name_type(cls) -> str:
        return cls.name_property

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr in cls.attributes

    def get_cfn_attribute(self, attribute_name: str) -> str:
        if attribute_name not in self.attributes:
            raise UnformattedGetAttTemplateException
        return self.physical_resource_id

    def is_created(self) -> bool:
        return True

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Properties, account_id: str, region_name: str, **_kwargs: Any
    ) -> Any:
        scope = Scope(account_id, region_name, cls.clients)
        return cls.create(resource_name, cls._properties(cloudformation_json), scope)

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: Any,
        new_resource_name: str,
        cloudformation_json: Properties,
        account_id: str,
        region_name: str,
    ) -> Any:
        scope = Scope(account_id, region_name, cls.clients)
        cls(original_resource.physical_resource_id).update(cls._properties(cloudformation_json), scope)
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: Properties,  # with its functions unresolved
        account_id: str,
        region_name: str,
    ) -> None:
        cls(resource_name).delete(Scope(account_id, region_name, cls.clients))

    @classmethod
    def _properties(cls, template: Properties) -> Properties:
        properties: Properties = template["Properties"]
        if unknown := sorted(properties.keys() - set(cls.known)):
            raise ValidationError(message=f"local_aws does not implement {', '.join(unknown)} of {cls.kind}.")
        return properties


class Bucket(CompleteResource, CloudFormationModel):
    """A bucket: moto sets encryption and tags only. moto keeps its own object."""

    kind = "AWS::S3::Bucket"
    known = (
        *("BucketName", "BucketEncryption", "VersioningConfiguration", "PublicAccessBlockConfiguration"),
        *("LifecycleConfiguration", "LoggingConfiguration", "OwnershipControls", "Tags"),
    )
    name_property = "BucketName"
    attributes = ("Arn", "DomainName", "DualStackDomainName", "RegionalDomainName", "WebsiteURL")

    @classmethod
    def create(cls, name: str, properties: Properties, scope: Scope) -> Any:
        constraint = {"CreateBucketConfiguration": {"LocationConstraint": scope.region}}
        scope.client("s3").create_bucket(Bucket=name, **({} if scope.region == "us-east-1" else constraint))
        cls(name).update(properties, scope)
        return scope.backend(s3_backends).get_bucket(name)

    def update(self, properties: Properties, scope: Scope) -> None:
        s3, bucket = scope.client("s3"), {"Bucket": self.physical_resource_id}
        if encryption := (properties.get("BucketEncryption") or {}).get("ServerSideEncryptionConfiguration"):
            rules = [
                {
                    "ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"],
                    "BucketKeyEnabled": is_true(rule.get("BucketKeyEnabled", False)),
                }
                for rule in encryption
            ]
            s3.put_bucket_encryption(**bucket, ServerSideEncryptionConfiguration={"Rules": rules})
        if versioning := properties.get("VersioningConfiguration"):
            s3.put_bucket_versioning(**bucket, VersioningConfiguration=versioning)
        if block := properties.get("PublicAccessBlockConfiguration"):
            block = {key: is_true(value) for key, value in block.items()}
            s3.put_public_access_block(**bucket, PublicAccessBlockConfiguration=block)
        if ownership := properties.get("OwnershipControls"):
            s3.put_bucket_ownership_controls(**bucket, OwnershipControls=ownership)
        if lifecycle := properties.get("LifecycleConfiguration"):
            rules = [api_rule(rule) for rule in lifecycle["Rules"]]
            s3.put_bucket_lifecycle_configuration(**bucket, LifecycleConfiguration={"Rules": rules})
        if logging := properties.get("LoggingConfiguration"):
            target = {
                "TargetBucket": logging["DestinationBucketName"],
                "TargetPrefix": logging.get("LogFilePrefix", ""),
            }
            s3.put_bucket_logging(**bucket, BucketLoggingStatus={"LoggingEnabled": target})
        if tags := properties.get("Tags"):
            s3.put_bucket_tagging(**bucket, Tagging={"TagSet": tags})

    def delete(self, scope: Scope) -> None:
        scope.client("s3").delete_bucket(Bucket=self.physical_resource_id)

    def add_system_tags(self, tags: dict[str, str], scope: Scope) -> None:
        backend = scope.backend(s3_backends)  # the API refuses tags that begin with `aws:`
        own = {tag["Key"]: tag["Value"] for tag in backend.get_bucket_tagging(self.physical_resource_id)["Tags"]}
        backend.put_bucket_tagging(self.physical_resource_id, own | tags)


class Key(CompleteResource, CloudFormationModel):
    """A KMS key: moto fails on its tags. moto keeps its own object."""

    kind = "AWS::KMS::Key"
    known = ("Description", "Enabled", "EnableKeyRotation", "KeyPolicy", "PendingWindowInDays", "Tags")
    attributes = ("Arn", "KeyId")

    @classmethod
    def create(cls, name: str, properties: Properties, scope: Scope) -> Any:
        created = scope.client("kms").create_key(
            Policy=_json(properties["KeyPolicy"]),
            Description=properties.get("Description", ""),
            Tags=[{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in properties.get("Tags") or []],
        )
        key_id = created["KeyMetadata"]["KeyId"]
        cls(key_id).update(properties, scope)
        return kms_backends[scope.account_id][scope.region].keys[key_id]

    def update(self, properties: Properties, scope: Scope) -> None:
        kms, key = scope.client("kms"), {"KeyId": self.physical_resource_id}
        kms.put_key_policy(**key, PolicyName="default", Policy=_json(properties["KeyPolicy"]))
        rotates, enabled = is_true(properties.get("EnableKeyRotation", False)), is_true(properties.get("Enabled", True))
        (kms.enable_key_rotation if rotates else kms.disable_key_rotation)(**key)
        (kms.enable_key if enabled else kms.disable_key)(**key)

    def delete(self, scope: Scope) -> None:
        scope.client("kms").schedule_key_deletion(KeyId=self.physical_resource_id)


class BucketPolicy(CompleteResource, CloudFormationModel):
    """A bucket's policy, which moto skips. Its id is the bucket's name."""

    kind = "AWS::S3::BucketPolicy"
    known = ("Bucket", "PolicyDocument")

    @classmethod
    def create(cls, name: str, properties: Properties, scope: Scope) -> Any:
        return super().create(properties["Bucket"], properties, scope)

    def update(self, properties: Properties, scope: Scope) -> None:
        document = _json(properties["PolicyDocument"])
        scope.client("s3").put_bucket_policy(Bucket=self.physical_resource_id, Policy=document)

    def delete(self, scope: Scope) -> None:
        s3 = scope.client("s3")
        with contextlib.suppress(s3.exceptions.NoSuchBucket):  # deleted with its policy
            s3.delete_bucket_policy(Bucket=self.physical_resource_id)


class Role(CompleteResource, CloudFormationModel):
    """A role: moto leaves its managed policies out. moto keeps its own object."""

    kind = "AWS::IAM::Role"
    known = (
        *("RoleName", "Path", "Description", "AssumeRolePolicyDocument", "MaxSessionDuration", "Policies"),
        *("ManagedPolicyArns", "PermissionsBoundary", "Tags"),
    )
    name_property = "RoleName"
    attributes = ("Arn", "RoleId")

    @classmethod
    def create(cls, name: str, properties: Properties, scope: Scope) -> Any:
        optional = ("Path", "Description", "MaxSessionDuration", "PermissionsBoundary", "Tags")
        scope.client("iam").create_role(
            RoleName=name,
            AssumeRolePolicyDocument=_json(properties["AssumeRolePolicyDocument"]),
            **{key: properties[key] for key in optional if key in properties},
        )
        cls(name).update(properties, scope)
        return scope.backend(iam_backends).get_role(name)

    def update(self, properties: Properties, scope: Scope) -> None:
        iam, role = scope.client("iam"), {"RoleName": self.physical_resource_id}
        for policy in properties.get("Policies") or []:
            document = _json(policy["PolicyDocument"])
            iam.put_role_policy(**role, PolicyName=policy["PolicyName"], PolicyDocument=document)
        for arn in properties.get("ManagedPolicyArns") or []:
            iam.attach_role_policy(**role, PolicyArn=arn)

    def delete(self, scope: Scope) -> None:
        iam, role = scope.client("iam"), {"RoleName": self.physical_resource_id}
        for name in iam.list_role_policies(**role)["PolicyNames"]:
            iam.delete_role_policy(**role, PolicyName=name)
        for policy in iam.list_attached_role_policies(**role)["AttachedPolicies"]:
            iam.detach_role_policy(**role, PolicyArn=policy["PolicyArn"])
        iam.delete_role(**role)


class Database(CompleteResource, CloudFormationModel):
    """A Glue database, which moto skips. Its id is its name; its tables are deleted with it, as on AWS."""

    kind = "AWS::Glue::Database"
    known = ("CatalogId", "DatabaseInput")

    @classmethod
    def create(cls, name: str, properties: Properties, scope: Scope) -> Any:
        database = {"Name": name, **properties["DatabaseInput"]}
        catalog_id = properties.get("CatalogId", scope.account_id)
        scope.client("glue").create_database(CatalogId=catalog_id, DatabaseInput=database)
        return cls(database["Name"])

    def update(self, properties: Properties, scope: Scope) -> None:
        database = {"Name": self.physical_resource_id, **properties["DatabaseInput"]}
        scope.client("glue").update_database(Name=self.physical_resource_id, DatabaseInput=database)

    def delete(self, scope: Scope) -> None:
        scope.client("glue").delete_database(Name=self.physical_resource_id)


class SecurityConfiguration(CompleteResource, CloudFormationModel):
    """An EMR security configuration: moto cannot delete a configuration whose name is computed."""

    kind = "AWS::EMR::SecurityConfiguration"
    known = ("Name", "SecurityConfiguration")
    name_property = "Name"

    def update(self, properties: Properties, scope: Scope) -> None:
        document = properties["SecurityConfiguration"]
        text = document if isinstance(document, str) else _json(document)
        scope.client("emr").create_security_configuration(Name=self.physical_resource_id, SecurityConfiguration=text)

    def delete(self, scope: Scope) -> None:
        scope.client("emr").delete_security_configuration(Name=self.physical_resource_id)


def is_true(value: object) -> bool:
    """Whether a template's value is true: YAML has booleans, JSON and parameters have strings."""
    return value is True or str(value).lower() == "true"


def _json(document: object) -> str:
    return json.dumps(document, default=str)
