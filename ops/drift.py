"""After deploying, each resource of the template is looked up with its own service and compared with the template.

A stack that says CREATE_COMPLETE has said what was asked for. Here is read what is there: by one reader for each type,
which gives the live resource's properties under the template's names. A type or a property without a reader is a
difference, so that nothing is skipped in silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ops.live_resources import READERS
from ops.template import Resolver, read_template

Properties = Mapping[str, Any]


class Clients(Protocol):
    """Something that gives boto3 clients of one account and region."""

    def client(self, service: str) -> Any:
        """Return a boto3 client."""


def compare_stack(
    clients: Clients, stack_name: str, template: Mapping[str, Any] | None = None
) -> tuple[int, list[str]]:
    """Looks up what a stack has made.

    Args:
        clients: of the account and region.
        stack_name: name of the stack.
        template: as `read_template` gives it; include/stack.yaml by default.

    Returns:
        How many resources were looked up, and each difference in words; none when all is as the template says.
    """
    template = template or read_template()
    resolver = resolver_of(clients, stack_name, template)
    found = {
        one["LogicalResourceId"]: one["PhysicalResourceId"]
        for one in clients.client("cloudformation").describe_stack_resources(StackName=stack_name)[
            "StackResources"
        ]
    }
    wanted = resolver.resources()
    differences = [
        f"{name}: in the stack, not in the template" for name in sorted(found.keys() - wanted.keys())
    ]
    for name, resource in wanted.items():
        if name not in found:
            differences.append(f"{name} ({resource['Type']}): not in the stack")
            continue
        differences += _compare(name, resource, found[name], clients.client)
    return len(wanted), differences


def resolver_of(clients: Clients, stack_name: str, template: Mapping[str, Any]) -> Resolver:
    """Resolves a template with what its stack has made."""
    formation = clients.client("cloudformation")
    [stack] = formation.describe_stacks(StackName=stack_name)["Stacks"]
    resources = formation.describe_stack_resources(StackName=stack_name)["StackResources"]
    physical = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in resources}
    _, partition, _, region, account, _ = stack["StackId"].split(":", 5)
    kinds = {name: one["Type"] for name, one in template["Resources"].items()}

    def attribute(name: str, wanted: str) -> Any:
        if wanted != "Arn":
            raise NotImplementedError(f"{name}.{wanted}: only Arn is known here")
        of = physical[name]
        if kinds[name] == "AWS::S3::Bucket":
            return f"arn:{partition}:s3:::{of}"
        if kinds[name] == "AWS::IAM::Role":
            return f"arn:{partition}:iam::{account}:role/{of}"
        if kinds[name] == "AWS::KMS::Key":
            return f"arn:{partition}:kms:{region}:{account}:key/{of}"
        raise NotImplementedError(f"{name}.Arn: {kinds[name]} is not known here")

    def zones() -> list[str]:
        listed = clients.client("ec2").describe_availability_zones()["AvailabilityZones"]
        return sorted(zone["ZoneName"] for zone in listed)

    return Resolver(
        template=template,
        parameters={one["ParameterKey"]: one["ParameterValue"] for one in stack.get("Parameters", [])},
        pseudo={
            "AWS::Partition": partition,
            "AWS::Region": region,
            "AWS::AccountId": account,
            "AWS::StackName": stack_name,
        },
        reference=physical.__getitem__,
        attribute=attribute,
        zones=zones,
    )


def _compare(name: str, resource: Properties, physical: str, client: Callable[[str], Any]) -> list[str]:
    kind = resource["Type"]
    if kind not in READERS:
        return [
            f"{name}: {kind} has no reader in ops/live_resources.py; nobody would notice that it is missing"
        ]
    live = READERS[kind](client, physical)
    if live is None:
        return [f"{name} ({kind}): {physical} does not exist"]
    differences = []
    for key, value in resource["Properties"].items():
        if key not in live:
            differences.append(f"{name}.{key}: not read back")
        elif (wanted := normal(value)) != (there := normal(live[key])):
            differences.append(
                f"{name}.{key}: the template says {json.dumps(wanted)}, there is {json.dumps(there)}"
            )
    return differences


def normal(value: Any) -> Any:
    """A value in one of the ways in which AWS and YAML may write it.

    Numbers and truths become words, lists sets (sorted), a list of one that one, tags a mapping without those that
    CloudFormation and other services add (`aws:`): a template cannot set these.
    """
    if isinstance(value, Mapping):
        return {key: normal(one) for key, one in value.items() if one is not None}
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(one, Mapping) and one.keys() == {"Key", "Value"} for one in value):
            return {tag["Key"]: str(tag["Value"]) for tag in value if not tag["Key"].startswith("aws:")}
        parts = sorted((normal(one) for one in value), key=lambda one: json.dumps(one, sort_keys=True))
        return parts[0] if len(parts) == 1 else parts
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
