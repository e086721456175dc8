"""Compare the live resources of a stack with its template.

CREATE_COMPLETE says what was requested, not what is there. A reader for each type (`ops.live_resources`) asks the
resource's own service and returns its properties under the template's names. A type or a property without a reader is
a difference, so that nothing is skipped silently.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ops.live_resources import READERS, read_resource
from ops.template import Resolver, read_template

Properties = Mapping[str, Any]


class Clients(Protocol):
    """Boto3 clients of an account in a region."""

    def client(self, service: str) -> Any:
        """Return a boto3 client."""


def compare_stack(
    clients: Clients, stack_name: str, template: Mapping[str, Any] | None = None
) -> tuple[int, list[str]]:
    """Compare a stack with its template, as `read_template` returns it; by default include/stack.yaml.

    Returns:
        The number of resources compared, and each difference in words.
    """
    template = template or read_template()
    formation = clients.client("cloudformation")
    resources = formation.describe_stack_resources(StackName=stack_name)["StackResources"]
    physical_ids = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}
    expected = _resolver(clients, stack_name, template, physical_ids).resources()
    differences = [
        f"{name}: in the stack, not in the template" for name in sorted(physical_ids.keys() - expected.keys())
    ]
    for name, resource in expected.items():
        if name in physical_ids:
            differences += _compare(name, resource, physical_ids[name], clients.client)
        else:
            differences.append(f"{name} ({resource['Type']}): not in the stack")
    return len(expected), differences


def _resolver(
    clients: Clients, stack_name: str, template: Mapping[str, Any], physical_ids: Mapping[str, str]
) -> Resolver:
    """Return a resolver of the template with the values of its stack."""
    [stack] = clients.client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"]
    _, partition, _, region, account, _ = stack["StackId"].split(":", 5)
    arns = {
        "AWS::S3::Bucket": f"arn:{partition}:s3:::",
        "AWS::IAM::Role": f"arn:{partition}:iam::{account}:role/",
        "AWS::KMS::Key": f"arn:{partition}:kms:{region}:{account}:key/",
    }

    def attribute(name: str, attribute_name: str) -> Any:
        kind = template["Resources"][name]["Type"]
        if attribute_name != "Arn" or kind not in arns:
            raise NotImplementedError(f"{name}.{attribute_name} of {kind}: teach ops/drift.py")
        return f"{arns[kind]}{physical_ids[name]}"

    def zones() -> list[str]:
        names = clients.client("ec2").describe_availability_zones()["AvailabilityZones"]
        return sorted(zone["ZoneName"] for zone in names)

    return Resolver(
        template=template,
        parameters={
            parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in stack.get("Parameters", [])
        },
        pseudo={
            "AWS::Partition": partition,
            "AWS::Region": region,
            "AWS::AccountId": account,
            "AWS::StackName": stack_name,
        },
        reference=physical_ids.__getitem__,
        attribute=attribute,
        zones=zones,
    )


def _compare(name: str, resource: Properties, physical: str, client: Callable[[str], Any]) -> list[str]:
    kind = resource["Type"]
    if kind not in READERS:
        return [f"{name}: {kind} has no reader in ops/live_resources.py; nobody would notice that it is missing"]
    live = read_resource(kind, client, physical)
    if live is None:
        return [f"{name} ({kind}): {physical} does not exist"]
    differences = []
    for key, value in resource["Properties"].items():
        if key not in live:
            differences.append(f"{name}.{key}: not read back")
        elif (expected := normal(value)) != (actual := normal(live[key])):
            differences.append(f"{name}.{key}: the template says {json.dumps(expected)}, there is {json.dumps(actual)}")
    return differences


def normal(value: Any) -> Any:
    """Return a value in a form that is equal however AWS and YAML write it.

    Numbers and booleans become strings, a list is sorted, a list of a single element becomes that element, and tags
    become a mapping without those that services add (`aws:`), which a template cannot set.
    """
    if isinstance(value, Mapping):
        return {key: normal(part) for key, part in value.items() if part is not None}
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(part, Mapping) and part.keys() == {"Key", "Value"} for part in value):
            return {tag["Key"]: str(tag["Value"]) for tag in value if not tag["Key"].startswith("aws:")}
        parts = sorted(map(normal, value), key=lambda part: json.dumps(part, sort_keys=True))
        return parts[0] if len(parts) == 1 else parts
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
