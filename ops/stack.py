"""Deploy include/stack.yaml: show a change set, ask, execute it, and verify the result."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from fruits_airflow.config.regions import require_eu_region

from ops.certificates import ensure_certificate
from ops.drift import compare_stack
from ops.template import TEMPLATE, read_template, template_body

WAIT_S = 1800.0
# EMR cleans up after a broken cluster, and EC2 provides spot nodes, with roles that an account has once.
SERVICE_LINKED = ("elasticmapreduce.amazonaws.com", "spot.amazonaws.com")

# Output of the stack → setting of the deployment.
SETTINGS = {
    "RawBucket": "FRUITS_RAW_BUCKET",
    "RawPrefix": "FRUITS_RAW_PREFIX",
    "LakeBucket": "FRUITS_LAKE_BUCKET",
    "ServiceRole": "FRUITS_SERVICE_ROLE",
    "InstanceProfile": "FRUITS_INSTANCE_PROFILE",
    "AirflowRole": "FRUITS_AIRFLOW_ROLE",
    "SecurityConfiguration": "FRUITS_SECURITY_CONFIGURATION",
    "SubnetId": "FRUITS_SUBNET_ID",
    "NightlyDatabase": "FRUITS_DATABASE",
    "DemoDatabase": "FRUITS_DEMO_DATABASE",
    "NotebookDatabase": "FRUITS_NOTEBOOK_DATABASE",
}

T = TypeVar("T")


class DeploymentFailed(Exception):
    """The stack could not be deployed or removed; the message says what to do."""


class Declined(Exception):
    """The user declined; nothing was changed."""


@dataclass(frozen=True)
class AwsAccount:
    """The account of the environment's credentials, in one region.

    Raises:
        ResidencyError: The region is outside the European Union.
    """

    region: str

    def __post_init__(self) -> None:
        require_eu_region(self.region)

    def client(self, service: str, attempts: int = 5) -> Any:
        """Return a boto3 client that sends a request at most `attempts` times."""
        config = Config(retries={"mode": "standard", "total_max_attempts": attempts})
        return boto3.client(service, region_name=self.region, config=config)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Deployment:
    """A deployment's stack."""

    account: Any  # clients by service
    deployment_id: str  # as in settings.yaml
    log: Callable[[str], None]  # print a line
    confirm: Callable[[str], bool]  # ask a question; true for yes
    poll_s: float = 3.0  # pause between two requests for a state

    @property
    def stack_name(self) -> str:
        """Name of the stack."""
        return f"fruits-{self.deployment_id}"

    def deploy(self, parameters: Mapping[str, str], template: Path = TEMPLATE) -> dict[str, str]:
        """Show the changes, create or update the stack if the user agrees, and verify its resources.

        The parameters are those that differ from the template's defaults; an update keeps the others.

        Returns:
            The stack's outputs.

        Raises:
            Declined: The answer was no.
            DeploymentFailed: AWS reports a failure, or a resource differs from the template.
        """
        exists = self._clear_failed_attempt()
        change_set = self._propose({"DeploymentId": self.deployment_id, **parameters}, template_body(template), exists)
        if change_set is None:
            self.log("The stack is as the template says already.")
        else:
            agreed = False
            try:
                agreed = self.confirm(f"Make these changes to {self.stack_name} in {self.account.region}?")
            finally:  # also when `confirm` raises
                if not agreed:
                    self._withdraw(change_set, exists)
            if not agreed:
                raise Declined
            self._execute(change_set, "UPDATE" if exists else "CREATE")
        self._create_service_linked_roles()
        count, differences = compare_stack(self.account, self.stack_name, read_template(template))
        if differences:
            raise DeploymentFailed(
                "deployed, but not as the template says; repeat, or find out who changes it manually:\n  "
                + "\n  ".join(differences)
            )
        self.log(f"{count} resources looked up: each is as the template says.")
        outputs = self.outputs()
        if ensure_certificate(self.account.client("s3"), outputs["LakeBucket"], self.account.region):
            self.log("A new certificate for traffic between the nodes is in the lake.")
        return outputs

    def outputs(self) -> dict[str, str]:
        """Return the stack's outputs.

        Raises:
            DeploymentFailed: There is no such stack.
        """
        stack = self.describe()
        if stack is None:
            raise DeploymentFailed(f"there is no stack {self.stack_name} in {self.account.region}; run make deploy")
        return outputs_of(stack)

    def settings(self) -> dict[str, str]:
        """Return the settings of the deployment that its stack knows, as environment variables."""
        settings = {"FRUITS_DEPLOYMENT_ID": self.deployment_id, "FRUITS_REGION": self.account.region}
        settings |= settings_of(self.outputs())
        endpoints = self.interface_endpoints()
        return settings | ({"FRUITS_INTERFACE_ENDPOINTS": str(endpoints)} if endpoints else {})

    def interface_endpoints(self) -> int:
        """Count the interface endpoints of a cluster in the stack's network: the stack's own, and one that EMR adds."""
        listed = self.account.client("cloudformation").describe_stack_resources(StackName=self.stack_name)
        kinds = {resource["PhysicalResourceId"]: resource["ResourceType"] for resource in listed["StackResources"]}
        ids = [physical_id for physical_id, kind in kinds.items() if kind == "AWS::EC2::VPCEndpoint"]
        if not ids:
            return 0
        endpoints = self.account.client("ec2").describe_vpc_endpoints(VpcEndpointIds=ids)["VpcEndpoints"]
        own = sum(endpoint["VpcEndpointType"] == "Interface" for endpoint in endpoints)
        return own + 1 if own else 0

    def describe(self) -> dict[str, Any] | None:
        """Return the stack as CloudFormation describes it, or None."""
        try:
            reply = self.account.client("cloudformation").describe_stacks(StackName=self.stack_name)
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise
        return dict(reply["Stacks"][0])

    def _clear_failed_attempt(self) -> bool:
        """Tell whether the stack exists; remove it first if its creation failed or was declined."""
        stack = self.describe()
        if stack is None:
            return False
        if stack["StackStatus"] in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "REVIEW_IN_PROGRESS", "CREATE_FAILED"):
            self.log(f"An earlier attempt is in the way ({stack['StackStatus']}): removing it.")
            self.account.client("cloudformation").delete_stack(StackName=self.stack_name)
            self.wait_deleted()
            return False
        if stack["StackStatus"].endswith("_IN_PROGRESS"):
            raise DeploymentFailed(
                f"{self.stack_name} is {stack['StackStatus']}: another deployment is running; wait, then repeat"
            )
        return True

    def _propose(self, parameters: Mapping[str, str], template: str, exists: bool) -> str | None:
        """Create and print a change set; return its id, or None when nothing changes."""
        formation = self.account.client("cloudformation")
        try:
            change_set = formation.create_change_set(
                StackName=self.stack_name,
                ChangeSetName=f"deploy-{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}",
                ChangeSetType="UPDATE" if exists else "CREATE",
                TemplateBody=template,
                Parameters=self._with_previous(parameters) if exists else _parameters(parameters),
                Capabilities=["CAPABILITY_NAMED_IAM"],
            )["Id"]
        except ClientError as error:
            if "No updates are to be performed" in str(error):
                return None
            raise DeploymentFailed(f"the change set was refused: {error}") from error
        described = self._wait_for_change_set(change_set, "Status", ("CREATE_COMPLETE", "FAILED"))
        if described["Status"] == "FAILED":
            formation.delete_change_set(ChangeSetName=change_set, StackName=self.stack_name)
            reason = described.get("StatusReason", "")
            if "didn't contain changes" in reason or "No updates" in reason:
                return None
            raise DeploymentFailed(f"the change set failed: {reason}")
        for change in (change["ResourceChange"] for change in described["Changes"]):
            replaced = " (replaced: what it holds is kept)" if change.get("Replacement") == "True" else ""
            self.log(f"  {change['Action']:7} {change['LogicalResourceId']:22} {change['ResourceType']}{replaced}")
        return str(change_set)

    def _wait_for_change_set(self, change_set: str, member: str, ends: tuple[str, ...]) -> dict[str, Any]:
        formation = self.account.client("cloudformation")
        return self.wait_until(
            lambda: dict(formation.describe_change_set(ChangeSetName=change_set, StackName=self.stack_name)),
            lambda description: description[member] in ends,
        )

    def _with_previous(self, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return the parameters of an update, which keeps those of the stack that are not in `parameters`."""
        known = read_template()["Parameters"].keys() - parameters.keys()
        stack = self.describe() or {}
        previous = {parameter["ParameterKey"] for parameter in stack.get("Parameters", [])}
        kept = [{"ParameterKey": key, "UsePreviousValue": True} for key in sorted(previous & known)]
        return _parameters(parameters) + kept

    def _withdraw(self, change_set: str, exists: bool) -> None:
        formation = self.account.client("cloudformation")
        formation.delete_change_set(ChangeSetName=change_set, StackName=self.stack_name)
        if not exists:  # a stack in review, which holds nothing
            formation.delete_stack(StackName=self.stack_name)

    def _execute(self, change_set: str, verb: str) -> None:
        formation = self.account.client("cloudformation")
        formation.execute_change_set(ChangeSetName=change_set, StackName=self.stack_name)
        # DescribeStacks may still show the state before; the change set says when its execution ends.
        ends = ("EXECUTE_COMPLETE", "EXECUTE_FAILED")
        executed = self._wait_for_change_set(change_set, "ExecutionStatus", ends)
        stack = self.wait_until(
            lambda: self.describe() or {"StackStatus": f"{verb}_IN_PROGRESS"},
            lambda stack: not stack["StackStatus"].endswith("_IN_PROGRESS"),
        )
        if executed["ExecutionStatus"] == "EXECUTE_COMPLETE" and stack["StackStatus"] == f"{verb}_COMPLETE":
            self.log(f"{self.stack_name}: {stack['StackStatus']}")
            return
        reply = formation.describe_stack_events(StackName=stack.get("StackId", self.stack_name))
        reasons = [
            f"{event.get('LogicalResourceId')}: {event.get('ResourceStatusReason')}"
            for event in reply["StackEvents"]
            if event.get("ResourceStatus", "").endswith("FAILED")
        ]
        raise DeploymentFailed(
            f"{self.stack_name} is {stack['StackStatus']}:\n  "
            + "\n  ".join(reasons or [str(stack.get("StackStatusReason"))])
        )

    def _create_service_linked_roles(self) -> None:
        iam = self.account.client("iam")
        for service in SERVICE_LINKED:
            try:
                iam.create_service_linked_role(AWSServiceName=service)
            except ClientError as error:
                if not any(word in str(error) for word in ("has been taken", "already exists")):
                    raise

    def wait_deleted(self) -> None:
        """Wait until the stack is deleted.

        Raises:
            DeploymentFailed: It cannot be deleted.
        """
        stack = self.wait_until(
            lambda: self.describe() or {"StackStatus": "DELETE_COMPLETE"},
            # any other state dates from before DeleteStack
            lambda stack: stack["StackStatus"] in ("DELETE_COMPLETE", "DELETE_FAILED"),
        )
        if stack["StackStatus"] != "DELETE_COMPLETE":
            raise DeploymentFailed(f"{self.stack_name} is {stack['StackStatus']}: {stack.get('StackStatusReason')}")

    def wait_until(self, read: Callable[[], T], is_done: Callable[[T], bool]) -> T:
        """Read a state until it is done, and return it.

        Raises:
            DeploymentFailed: It is not done after WAIT_S.
        """
        deadline = time.monotonic() + WAIT_S
        while not is_done(state := read()):
            if time.monotonic() > deadline:
                raise DeploymentFailed(
                    f"{self.stack_name}: nothing new for {WAIT_S:.0f} s; see the CloudFormation console"
                )
            time.sleep(self.poll_s)
        return state


def outputs_of(stack: Mapping[str, Any]) -> dict[str, str]:
    """Return the outputs of a stack as CloudFormation describes it; empty until its creation is complete."""
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def settings_of(outputs: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of a deployment that follow from its stack's outputs, as environment variables."""
    return {setting: outputs[output] for output, setting in SETTINGS.items() if output in outputs}


def print_settings(settings: Mapping[str, str]) -> None:
    """Print the settings of a deployment as the lines of .env."""
    print("\nThe settings of this deployment (.env, or the environment of Airflow):")
    for name, value in settings.items():
        print(f"{name}={value}")


def _parameters(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]
