"""Deploying include/stack.yaml: a change set that is shown first, asked for, executed and looked over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from fruits_airflow.config.regions import require_eu_region

from ops.certificates import keep_certificate
from ops.drift import compare_stack
from ops.template import TEMPLATE, read_template, template_body

POLL_S = 3.0
WAIT_S = 1800.0
# EMR ends what a broken cluster left, and EC2 gives spot nodes, in the name of roles that an account has once.
SERVICE_LINKED = ("elasticmapreduce.amazonaws.com", "spot.amazonaws.com")

Say = Callable[[str], None]
Ask = Callable[[str], bool]


class DeploymentFailed(Exception):
    """The stack could not be deployed, or removed; the message says what to do."""


class Declined(Exception):
    """The change set was not agreed to; nothing was changed."""


@dataclass(frozen=True)
class AwsAccount:
    """The account of the environment's credentials, in one region.

    Attributes:
        region: AWS region, in an EU member state.
    """

    region: str

    def __post_init__(self) -> None:
        """Refuses a region outside the European Union.

        Raises:
            ResidencyError: it is.
        """
        require_eu_region(self.region)

    def client(self, service: str, attempts: int = 5) -> Any:
        """A boto3 client that sends a request so often at most; endpoint and credentials as boto3 finds them."""
        config = Config(retries={"mode": "standard", "total_max_attempts": attempts})
        return boto3.client(service, region_name=self.region, config=config)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Deployment:
    """A deployment's stack.

    Attributes:
        account: clients by service.
        deployment_id: as in settings.yaml.
        say: tells a line.
        ask: asks a question; true for yes.
        poll_s: pause between two looks.
    """

    account: Any
    deployment_id: str
    say: Say
    ask: Ask
    poll_s: float = POLL_S

    @property
    def stack_name(self) -> str:
        """Name of the stack."""
        return f"fruits-{self.deployment_id}"

    def deploy(self, parameters: Mapping[str, str], template: Path = TEMPLATE) -> dict[str, str]:
        """Creates or updates the stack after showing what that changes, and looks over what is there then.

        Args:
            parameters: those that differ from the template's defaults; an update keeps the others as they are.
            template: the template.

        Returns:
            The stack's outputs.

        Raises:
            Declined: the answer was no.
            DeploymentFailed: AWS could not, or what is there is not what the template says.
        """
        exists = self._clear_failed_attempt()
        given = {"DeploymentId": self.deployment_id, **parameters}
        change_set = self._propose(given, template_body(template), exists)
        if change_set is None:
            self.say("The stack is as the template says already.")
        else:
            agreed = False
            try:
                agreed = self.ask(f"Make these changes to {self.stack_name} in {self.account.region}?")
            finally:  # also when nobody could be asked
                if not agreed:
                    self._withdraw(change_set, exists)
            if not agreed:
                raise Declined
            self._execute(change_set, "UPDATE" if exists else "CREATE")
        self._make_service_linked_roles()
        looked_up, differences = compare_stack(self.account, self.stack_name, read_template(template))
        if differences:
            raise DeploymentFailed(
                "deployed, but not as the template says; repeat, or find out who changes it by hand:\n  "
                + "\n  ".join(differences)
            )
        self.say(f"{looked_up} resources looked up: each is as the template says.")
        outputs = self.outputs()
        if keep_certificate(self.account.client("s3"), outputs["LakeBucket"], self.account.region):
            self.say("A certificate for traffic between the nodes was made.")
        return outputs

    def outputs(self) -> dict[str, str]:
        """The stack's outputs.

        Raises:
            DeploymentFailed: there is no such stack.
        """
        stack = self.describe()
        if stack is None:
            raise DeploymentFailed(
                f"there is no stack {self.stack_name} in {self.account.region}; run make deploy"
            )
        return {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", [])}

    def interface_endpoints(self) -> int:
        """Count the interface endpoints of a cluster in the stack's network: the stack's own, and one that EMR adds."""
        listed = self.account.client("cloudformation").describe_stack_resources(StackName=self.stack_name)
        ids = [
            resource["PhysicalResourceId"]
            for resource in listed["StackResources"]
            if resource["ResourceType"] == "AWS::EC2::VPCEndpoint"
        ]
        if not ids:
            return 0
        endpoints = self.account.client("ec2").describe_vpc_endpoints(VpcEndpointIds=ids)["VpcEndpoints"]
        own = sum(endpoint["VpcEndpointType"] == "Interface" for endpoint in endpoints)
        return own + 1 if own else 0

    def describe(self) -> dict[str, Any] | None:
        """The stack as CloudFormation describes it, or None."""
        try:
            [found] = self.account.client("cloudformation").describe_stacks(StackName=self.stack_name)[
                "Stacks"
            ]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise
        return dict(found)

    def _clear_failed_attempt(self) -> bool:
        """Whether the stack is there to be updated; one whose creation failed, or was declined, is removed first."""
        stack = self.describe()
        if stack is None:
            return False
        if stack["StackStatus"] in (
            "ROLLBACK_COMPLETE",
            "ROLLBACK_FAILED",
            "REVIEW_IN_PROGRESS",
            "CREATE_FAILED",
        ):
            self.say(f"An earlier attempt is in the way ({stack['StackStatus']}): removing it.")
            self.account.client("cloudformation").delete_stack(StackName=self.stack_name)
            self.wait_gone()
            return False
        if stack["StackStatus"].endswith("_IN_PROGRESS"):
            raise DeploymentFailed(
                f"{self.stack_name} is {stack['StackStatus']}: somebody else is at it; wait, then repeat"
            )
        return True

    def _propose(self, given: Mapping[str, str], template: str, exists: bool) -> str | None:
        formation = self.account.client("cloudformation")
        known = read_template()["Parameters"]
        previous = (
            {one["ParameterKey"] for one in (self.describe() or {}).get("Parameters", [])}
            if exists
            else set()
        )
        parameters: list[dict[str, Any]] = [
            {"ParameterKey": key, "ParameterValue": value} for key, value in given.items()
        ]
        kept = sorted((previous & known.keys()) - given.keys())
        parameters += [{"ParameterKey": key, "UsePreviousValue": True} for key in kept]
        try:
            made = formation.create_change_set(
                StackName=self.stack_name,
                ChangeSetName=f"deploy-{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}",
                ChangeSetType="UPDATE" if exists else "CREATE",
                TemplateBody=template,
                Parameters=parameters,
                Capabilities=["CAPABILITY_NAMED_IAM"],
            )["Id"]
        except ClientError as error:
            if "No updates are to be performed" in str(error):
                return None
            raise DeploymentFailed(f"the change set was refused: {error}") from error
        shown = self.until(
            lambda: formation.describe_change_set(ChangeSetName=made, StackName=self.stack_name),
            lambda seen: seen["Status"] in ("CREATE_COMPLETE", "FAILED"),
        )
        if shown["Status"] == "FAILED":
            formation.delete_change_set(ChangeSetName=made, StackName=self.stack_name)
            reason = shown.get("StatusReason", "")
            if "didn't contain changes" in reason or "No updates" in reason:
                return None
            raise DeploymentFailed(f"the change set failed: {reason}")
        for change in (one["ResourceChange"] for one in shown["Changes"]):
            replaced = " (made anew: what it holds is kept)" if change.get("Replacement") == "True" else ""
            self.say(
                f"  {change['Action']:7} {change['LogicalResourceId']:22} {change['ResourceType']}{replaced}"
            )
        return str(made)

    def _withdraw(self, change_set: str, exists: bool) -> None:
        formation = self.account.client("cloudformation")
        formation.delete_change_set(ChangeSetName=change_set, StackName=self.stack_name)
        if not exists:  # a stack in review, which holds nothing
            formation.delete_stack(StackName=self.stack_name)

    def _execute(self, change_set: str, verb: str) -> None:
        formation = self.account.client("cloudformation")
        formation.execute_change_set(ChangeSetName=change_set, StackName=self.stack_name)
        # DescribeStacks may still show the state before; the change set says when its execution ends.
        executed = self.until(
            lambda: formation.describe_change_set(ChangeSetName=change_set, StackName=self.stack_name),
            lambda seen: seen["ExecutionStatus"] in ("EXECUTE_COMPLETE", "EXECUTE_FAILED"),
        )
        stack = self.until(
            lambda: self.describe() or {"StackStatus": f"{verb}_IN_PROGRESS"},
            lambda seen: not seen["StackStatus"].endswith("_IN_PROGRESS"),
        )
        if executed["ExecutionStatus"] == "EXECUTE_COMPLETE" and stack["StackStatus"] == f"{verb}_COMPLETE":
            self.say(f"{self.stack_name}: {stack['StackStatus']}")
            return
        events = formation.describe_stack_events(StackName=stack.get("StackId", self.stack_name))[
            "StackEvents"
        ]
        failed = [one for one in events if one.get("ResourceStatus", "").endswith("FAILED")]
        reasons = [f"{one.get('LogicalResourceId')}: {one.get('ResourceStatusReason')}" for one in failed]
        raise DeploymentFailed(
            f"{self.stack_name} is {stack['StackStatus']}:\n  "
            + "\n  ".join(reasons or [str(stack.get("StackStatusReason"))])
        )

    def _make_service_linked_roles(self) -> None:
        iam = self.account.client("iam")
        for service in SERVICE_LINKED:
            try:
                iam.create_service_linked_role(AWSServiceName=service)
            except ClientError as error:
                if not any(word in str(error) for word in ("has been taken", "already exists")):
                    raise

    def wait_gone(self) -> None:
        """Waits until the stack is gone.

        Raises:
            DeploymentFailed: it cannot be removed.
        """
        seen = self.until(
            lambda: self.describe() or {"StackStatus": "DELETE_COMPLETE"},
            # any other state is that of before DeleteStack
            lambda seen: seen["StackStatus"] in ("DELETE_COMPLETE", "DELETE_FAILED"),
        )
        if seen["StackStatus"] != "DELETE_COMPLETE":
            raise DeploymentFailed(
                f"{self.stack_name} is {seen['StackStatus']}: {seen.get('StackStatusReason')}"
            )

    def until(
        self, look: Callable[[], dict[str, Any]], enough: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """Looks again and again until it is enough; gives what was seen then.

        Raises:
            DeploymentFailed: it never was.
        """
        give_up = time.monotonic() + WAIT_S
        while not enough(seen := look()):
            if time.monotonic() > give_up:
                raise DeploymentFailed(
                    f"{self.stack_name}: nothing new for {WAIT_S:.0f} s; see the CloudFormation console"
                )
            time.sleep(self.poll_s)
        return seen
