"""The checks of a request, in the words of AWS, before anything is registered.

`local_aws/shapes.py` has checked its shape: required members, types, enumerations and lengths.

Where the wording of AWS is unknown, the message says the same in plain words. The exception's type is that of AWS.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from local_aws.emr import releases
from local_aws.emr.errors import InvalidRequestException, ValidationException

MAX_ACTIVE_STEPS = 256
IDLE_TIMEOUT = (60, 604_800)
MANAGED_GROUPS = ("EmrManagedMasterSecurityGroup", "EmrManagedSlaveSecurityGroup", "ServiceAccessSecurityGroup")
Tags = Mapping[str, str]
NetworkTags = tuple[Tags, Tags, Mapping[str, Tags]]


@dataclass(frozen=True)
class Account:
    """What exists in the account that a request may refer to."""

    roles: Mapping[str, frozenset[str]]  # names of IAM roles, with the ARNs of their managed policies
    instance_profiles: frozenset[str]  # names of instance profiles
    security_configurations: frozenset[str]  # names of EMR security configurations in the region
    # Returns the tags of a subnet, its VPC and the VPC's security groups; None without that subnet.
    network_tags: Callable[[str], NetworkTags | None]


def check_run_job_flow(request: Mapping[str, Any], region: str, account: Account) -> None:
    """Check a RunJobFlow request.

    Raises:
        ValidationException: The request breaks a rule.
        InvalidRequestException: The request refers to a security configuration or subnet that does not exist.
    """
    label = _check_release(request, region)
    _check_roles(request, account)
    _check_instances(request["Instances"], label, account)
    for application in request.get("Applications") or []:
        name = application.get("Name", "")
        if name.lower() not in releases.APPLICATIONS:
            raise ValidationException(f"Specified application: {name} is not supported by {label}.")
    security = request.get("SecurityConfiguration")
    if security and security not in account.security_configurations:
        raise InvalidRequestException(f"Security configuration with name '{security}' does not exist.")
    if request.get("LogUri") and not re.fullmatch(r"s3[an]?://[^/]+(/.*)?", request["LogUri"]):
        raise ValidationException(f"The log URI {request['LogUri']} is not valid: it must be an Amazon S3 location.")
    if len(request.get("BootstrapActions") or []) > 16:
        raise ValidationException("A maximum of 16 bootstrap actions can be specified.")
    check_tags(request.get("Tags") or [])
    _check_auto_termination(request.get("AutoTerminationPolicy"))
    concurrency = request.get("StepConcurrencyLevel")
    if concurrency is not None and not 1 <= concurrency <= 256:
        raise ValidationException("The step concurrency level must be between 1 and 256.")
    check_steps(request.get("Steps") or [], active=0, concurrency=concurrency or 1)


def provisioning_problem(request: Mapping[str, Any], account: Account) -> str | None:
    """Return what AWS finds only while it provisions: the cluster then ends with VALIDATION_ERROR."""
    role = request["ServiceRole"].rsplit("/", 1)[-1]
    if not any(arn.endswith("/AmazonEMRServicePolicy_v2") for arn in account.roles.get(role, ())):
        return None
    groups = [group for member in MANAGED_GROUPS if (group := request["Instances"].get(member))]
    tags_by_resource: dict[str, Tags] = {
        "cluster": {tag["Key"]: tag.get("Value", "") for tag in request.get("Tags") or []}
    }
    # without a subnet EMR takes the default VPC, which has no tags
    for subnet in subnets_of(request["Instances"]) or ["default"]:
        of_subnet, of_vpc, of_groups = account.network_tags(subnet) or ({}, {}, {})
        tags_by_resource |= {f"subnet {subnet}": of_subnet, f"VPC of the subnet {subnet}": of_vpc}
        tags_by_resource |= {f"security group {group} of this VPC": of_groups.get(group, {}) for group in groups}
    for resource, tags in tags_by_resource.items():
        if tags.get("for-use-with-amazon-emr-managed-policies", "").lower() != "true":
            return (
                f"Service role {role} has insufficient EC2 permissions: AmazonEMRServicePolicy_v2 asks for the tag "
                f"for-use-with-amazon-emr-managed-policies=true on the {resource}."
            )
    return None


def subnets_of(instances: Mapping[str, Any]) -> list[str]:
    """Return the ids of the subnets that a request's `Instances` names."""
    return list(instances.get("Ec2SubnetIds") or filter(None, [instances.get("Ec2SubnetId")]))


def _check_release(request: Mapping[str, Any], region: str) -> str:
    label = request.get("ReleaseLabel")
    if request.get("AmiVersion"):
        raise ValidationException(
            "Only one AMI version and release label may be specified. "
            f"Provided AMI: {request['AmiVersion']}, release label: {label}."
        )
    if not label:
        raise ValidationException("A release label must be specified.")
    if label not in releases.release_labels(region):
        raise ValidationException(f"The supplied release label is invalid: {label}.")
    return str(label)


def _check_roles(request: Mapping[str, Any], account: Account) -> None:
    if not request.get("ServiceRole"):
        raise ValidationException("ServiceRole is required for creating cluster.")
    if not request.get("JobFlowRole"):
        raise ValidationException("InstanceProfile is required for creating cluster.")
    if request["ServiceRole"].rsplit("/", 1)[-1] not in account.roles:
        raise ValidationException(f"Invalid ServiceRole: {request['ServiceRole']}.")
    if request["JobFlowRole"].rsplit("/", 1)[-1] not in account.instance_profiles:
        raise ValidationException(f"Invalid InstanceProfile: {request['JobFlowRole']}.")


def _check_instances(instances: Mapping[str, Any], label: str, account: Account) -> None:
    if instances.get("InstanceGroups"):
        raise NotImplementedError("instance groups: request instance fleets, as include/cluster.yaml does")
    fleets = instances.get("InstanceFleets") or []
    if not fleets:
        raise ValidationException("Instances must name instance groups or instance fleets.")
    roles = [fleet.get("InstanceFleetType") for fleet in fleets]
    if roles.count("MASTER") != 1:
        raise ValidationException("Exactly one master instance group or fleet must be specified.")
    if roles.count("CORE") > 1:
        raise ValidationException("At most one core instance group or fleet may be specified.")
    supported = releases.instance_types(label)
    for fleet in fleets:
        types = [config.get("InstanceType") for config in fleet.get("InstanceTypeConfigs") or []]
        if not types:
            raise ValidationException("An instance fleet must have at least one instance type configuration.")
        if fleet.get("TargetOnDemandCapacity", 0) + fleet.get("TargetSpotCapacity", 0) < 1:
            raise ValidationException("An instance fleet must have a target capacity of at least one unit.")
        for name in types:
            if name not in supported:
                raise ValidationException(f"Instance type '{name}' is not supported.")
    for subnet in subnets_of(instances):
        if account.network_tags(subnet) is None:
            raise InvalidRequestException(f"The subnet ID '{subnet}' does not exist.")


def check_tags(tags: Sequence[Mapping[str, Any]]) -> None:
    """Check tags by the rules of EC2, which EMR passes them to."""
    if len(tags) > 50:
        raise ValidationException("You may only specify up to 50 tags.")
    for tag in tags:
        key, value = tag.get("Key") or "", tag.get("Value") or ""
        if not key or key.lower().startswith("aws:"):
            raise ValidationException(f"Invalid tag key: {key!r}. Tag keys must not be empty or begin with 'aws:'.")
        if len(key) > 128 or len(value) > 256:
            raise ValidationException(f"Tag {key[:128]!r} is too long: 128 characters for a key, 256 for a value.")


def _check_auto_termination(policy: Mapping[str, Any] | None) -> None:
    low, high = IDLE_TIMEOUT
    if policy is not None and not low <= policy.get("IdleTimeout", 3600) <= high:
        raise ValidationException(f"IdleTimeout must be between {low} and {high} seconds.")


def check_steps(steps: Sequence[Mapping[str, Any]], *, active: int, concurrency: int) -> None:
    """Check the `StepConfig` of each step before it is added to a cluster, which has `active` steps already.

    Raises:
        ValidationException: A step, or the number of steps, is not allowed.
    """
    if active + len(steps) > MAX_ACTIVE_STEPS:
        raise ValidationException(
            "Maximum number of active steps(State = 'Running', 'Pending' or 'Cancel_Pending') for cluster exceeded."
        )
    if concurrency > 1 and any(step.get("ActionOnFailure") != "CONTINUE" for step in steps):
        raise ValidationException(
            "ActionOnFailure must be CONTINUE when the step concurrency level of the cluster is greater than 1."
        )
