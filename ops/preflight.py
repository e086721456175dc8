"""Check whether a first night could begin in an account; each check only reads, so that it costs nothing."""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError
from fruits_airflow.config.regions import EU_REGIONS
from fruits_airflow.cost.prices import vcpus
from fruits_airflow.emr.cluster_body import load_profile
from fruits_airflow.emr.cluster_lint import POLICY_TAG

from ops.drift import compare_stack
from ops.environment import PYTHON
from ops.removal import bucket_names
from ops.stack import Deployment, outputs_of

State = Literal["ok", "later", "mend", "unknown"]
"""`later`: needed after the first night begins; `mend`: no night before that; `unknown`: AWS refused the request."""

# Quotas of EC2 in vCPUs, for the families A, C, D, H, I, M, R, T and Z; an account may begin with 5 of each.
ON_DEMAND_QUOTA, SPOT_QUOTA = "L-1216C47A", "L-34B43A08"
VPC_QUOTA = "L-F678F1CE"  # VPCs per Region: 5 by default
MAKE_LINKED_ROLES = "iam:CreateServiceLinkedRole"
DEPLOY = (
    *("cloudformation:CreateChangeSet", "cloudformation:ExecuteChangeSet", "ec2:CreateVpc"),
    *("elasticmapreduce:CreateSecurityConfiguration", "glue:CreateDatabase", "iam:CreateRole", "iam:PutRolePolicy"),
    *("kms:CreateKey", "s3:CreateBucket", "s3:PutBucketPolicy", "s3:PutObject", "sts:AssumeRole"),
)
LINKED_ROLES = ("AWSServiceRoleForEC2Spot", "AWSServiceRoleForEMRCleanup")


@dataclass(frozen=True)
class Finding:
    """The result of a check: what was looked at, what is there, and what to do unless it is ok."""

    subject: str
    state: State
    detail: str
    remedy: str = ""


def judge(subject: str, is_ok: bool, detail: str, remedy: str, otherwise: State = "mend") -> Finding:
    """Return a finding that is `ok`, or `otherwise` with its remedy."""
    return Finding(subject, "ok", detail) if is_ok else Finding(subject, otherwise, detail, remedy)


@dataclass(frozen=True)
class Preflight:
    """The checks of a deployment, which may exist; `parameters` are those of the stack that are no defaults."""

    deployment: Deployment
    parameters: Mapping[str, str] = field(default_factory=dict)

    def run(self) -> list[Finding]:
        """Run every check; a request that AWS refuses makes its check `unknown`."""
        findings: list[Finding] = []
        for check in (self._caller, self._machine, self._quotas, self._roles, self._network, self._names, self._stack):
            try:
                findings.extend(check())
            except (BotoCoreError, ClientError) as error:
                remedy = "allow the caller this request, or look at the credentials (AWS_PROFILE)"
                findings.append(Finding(check.__name__.strip("_"), "unknown", str(error), remedy))
        return findings

    def _client(self, service: str) -> Any:
        return self.deployment.account.client(service)

    @cached_property
    def _arn(self) -> str:
        return str(self._client("sts").get_caller_identity()["Arn"])

    @cached_property
    def _described(self) -> dict[str, Any]:
        """The stack as CloudFormation describes it; empty without one."""
        return self.deployment.describe() or {}

    @cached_property
    def _outputs(self) -> dict[str, str]:
        """The stack's outputs; empty until its creation is complete."""
        return outputs_of(self._described)

    @cached_property
    def _denied(self) -> set[str]:
        """The actions of a deployment that the caller's policies do not allow on every resource."""
        iam, arn = self._client("iam"), self._arn
        if ":assumed-role/" in arn:  # unlike the session's, the role's ARN has a path
            arn = iam.get_role(RoleName=arn.split("/")[1])["Role"]["Arn"]
        pages = iam.get_paginator("simulate_principal_policy").paginate(
            PolicySourceArn=arn, ActionNames=[*DEPLOY, MAKE_LINKED_ROLES]
        )
        results = [result for page in pages for result in page["EvaluationResults"]]
        return {result["EvalActionName"] for result in results if result["EvalDecision"] != "allowed"}

    def _caller(self) -> Iterator[Finding]:
        deployment = self.deployment
        airflow = f":assumed-role/fruits-{deployment.deployment_id}-airflow-{deployment.account.region}/"
        if self._arn.endswith(":root"):
            yield Finding("caller", "mend", self._arn, "call as a user or role: root cannot assume Airflow's role")
        elif airflow in self._arn:
            yield Finding("caller", "ok", f"{self._arn}, Airflow's role: runs nights, deploys nothing")
        else:
            missing = ", ".join(sorted(self._denied & {*DEPLOY}))
            detail = f"{self._arn} may " + (f"not {missing}" if missing else "deploy")
            yield judge("caller", not missing, detail, "call as who may deploy, or attach such a policy")

    def _machine(self) -> Iterator[Finding]:
        region, running = self.deployment.account.region, ".".join(map(str, sys.version_info[:2]))
        yield Finding("region", "ok", f"{region}, {EU_REGIONS[region]}")
        yield judge("Python here", running == PYTHON, running, f"install Python {PYTHON}, then make setup")

    def _quotas(self) -> Iterator[Finding]:
        quotas = self._client("service-quotas")
        profiles: tuple[tuple[str, State], ...] = (("demo", "mend"), ("nightly", "later"))
        for profile, otherwise in profiles:
            for code, needed in vcpus_needed(load_profile(profile).instance_fleets).items():
                quota = quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]
                detail = f"{quota['Value']:.0f} vCPUs, a cluster needs {needed} ({quota['QuotaName']})"
                remedy = f"ask for {needed} or more in {self.deployment.account.region} (console, Service Quotas)"
                subject = f"quota {code}, profile {profile}"
                yield judge(subject, quota["Value"] >= needed, detail, remedy, otherwise)

    def _roles(self) -> Iterator[Finding]:
        iam = self._client("iam")
        for name in LINKED_ROLES:
            try:
                iam.get_role(RoleName=name)
                yield Finding(name, "ok", "exists")
            except iam.exceptions.NoSuchEntityException:
                remedy = f"let who may {MAKE_LINKED_ROLES} deploy"
                yield judge(name, MAKE_LINKED_ROLES not in self._denied, "made by make deploy", remedy)

    def _network(self) -> Iterator[Finding]:
        ec2 = self._client("ec2")
        if subnet_id := self._outputs.get("SubnetId") or self.parameters.get("SubnetId"):
            [subnet] = ec2.describe_subnets(SubnetIds=[subnet_id])["Subnets"]
            [vpc] = ec2.describe_vpcs(VpcIds=[subnet["VpcId"]])["Vpcs"]
            for resource_id, resource in ((subnet_id, subnet), (vpc["VpcId"], vpc)):
                is_tagged = {"Key": POLICY_TAG, "Value": "true"} in resource.get("Tags", [])
                remedy = f'make deploy PARAMETERS="CreateVpc=false SubnetId={subnet_id}" asks to tag it'
                yield judge(resource_id, is_tagged, f"tag {POLICY_TAG}=true", remedy)
            return
        quota = self._client("service-quotas").get_service_quota(ServiceCode="vpc", QuotaCode=VPC_QUOTA)["Quota"]
        count = sum(len(page["Vpcs"]) for page in ec2.get_paginator("describe_vpcs").paginate())
        detail = f"{quota['Value']:.0f} VPCs, {count} exist, the stack creates one ({quota['QuotaName']})"
        remedy = 'ask for more, or name a subnet of your own: PARAMETERS="CreateVpc=false SubnetId=subnet-…"'
        yield judge(f"quota {VPC_QUOTA}", count < quota["Value"], detail, remedy)

    def _names(self) -> Iterator[Finding]:
        if self._described:
            return
        s3, existing = self._client("s3"), []
        for bucket in bucket_names(self.deployment):
            try:
                s3.head_bucket(Bucket=bucket)
                existing.append(f"s3://{bucket}")
            except ClientError as error:
                if error.response["Error"]["Code"] != "404":
                    raise
        detail = f"taken: {', '.join(existing)}" if existing else "free"
        yield judge("bucket names", not existing, detail, "make destroy, or choose another DEPLOYMENT_ID")

    def _stack(self) -> Iterator[Finding]:
        name = self.deployment.stack_name
        if not self._outputs:
            yield Finding(name, "ok", self._described.get("StackStatus", "not deployed yet"))
            return
        # The key's policy is part of it: it lets EC2's spot role encrypt the disks of spot nodes.
        count, differences = compare_stack(self.deployment.account, name)
        detail = "; ".join(differences) or f"{count} resources, each as include/stack.yaml says"
        yield judge(name, not differences, detail, "make deploy")
        lake = self._outputs["LakeBucket"]
        for prefix, remedy in (("models/", "make model, and copy it there"), ("env/", "make environment UPLOAD=1")):
            count = self._client("s3").list_objects_v2(Bucket=lake, Prefix=prefix, MaxKeys=1)["KeyCount"]
            yield judge(f"s3://{lake}/{prefix}", count > 0, "uploaded" if count else "empty", remedy, "later")


def vcpus_needed(fleets: list[dict[str, Any]]) -> dict[str, int]:
    """Return the most vCPUs that a cluster needs, by quota; a fleet on spot may fall back to on-demand nodes."""
    spot = sum(_most_vcpus(fleet, fleet.get("TargetSpotCapacity", 0)) for fleet in fleets)
    on_demand = sum(_most_vcpus(fleet, fleet.get("TargetOnDemandCapacity", 0)) for fleet in fleets)
    return {ON_DEMAND_QUOTA: on_demand + spot} | ({SPOT_QUOTA: spot} if spot else {})


def _most_vcpus(fleet: Mapping[str, Any], units: int) -> int:
    return max(
        math.ceil(units / int(config.get("WeightedCapacity", 1))) * vcpus(config["InstanceType"])
        for config in fleet["InstanceTypeConfigs"]
    )


def exit_status(findings: list[Finding]) -> int:
    """Return 0 when a first night could begin, 1 when something must be mended, 2 when AWS refused to say."""
    states = {finding.state for finding in findings}
    return 1 if "mend" in states else 2 if "unknown" in states else 0


def print_findings(findings: list[Finding]) -> None:
    """Print a line for each finding, and its remedy below it."""
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"  {finding.state:8} {finding.subject:{width}}  {finding.detail}")
        if finding.remedy:
            print(f"  {'':8} {'':{width}}  → {finding.remedy}")
