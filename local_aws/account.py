"""What moto lacks where somebody asks what an account may do: its root identity, its quotas, a policy simulation."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

from moto.core.responses import ActionResult

_VCPU_QUOTAS = {
    "L-1216C47A": "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
    "L-34B43A08": "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
}


def install_quotas(vcpus: float) -> None:
    """Add EC2's quotas of vCPUs, each of `vcpus`, to moto's Service Quotas."""
    from moto.servicequotas.models import ServiceQuotasBackend

    get: Any = ServiceQuotasBackend.get_service_quota

    def get_service_quota(self: ServiceQuotasBackend, service_code: str, quota_code: str) -> dict[str, Any]:
        if service_code == "ec2" and quota_code in _VCPU_QUOTAS:
            name = _VCPU_QUOTAS[quota_code]
            return {"ServiceCode": "ec2", "QuotaCode": quota_code, "QuotaName": name, "Value": vcpus, "Unit": "None"}
        return dict(get(self, service_code, quota_code))

    setattr(ServiceQuotasBackend, "get_service_quota", get_service_quota)  # noqa: B010


def install_identity() -> None:
    """Let GetCallerIdentity name the owner of the server's key, which is the account's root user."""
    from moto.sts.models import STSBackend

    def get_caller_identity(self: STSBackend, access_key_id: str, _region: str) -> tuple[str, str, str]:
        if role := self.get_assumed_role_from_access_key(access_key_id):
            return role.user_id, role.arn, role.account_id
        return self.account_id, f"arn:{self.partition}:iam::{self.account_id}:root", self.account_id

    setattr(STSBackend, "get_caller_identity", get_caller_identity)  # noqa: B010


def install_iam() -> None:
    """Add SimulatePrincipalPolicy of roles, and name the service-linked roles as AWS does."""
    from moto.iam import models
    from moto.iam.exceptions import NotFoundException, ValidationError
    from moto.iam.responses import IamResponse

    models.SERVICE_NAME_CONVERSION.update(spot="EC2Spot", elasticmapreduce="EMRCleanup")

    def simulate_principal_policy(self: IamResponse) -> ActionResult:
        arn = self._get_param("PolicySourceArn")
        if ":role/" not in arn:
            raise ValidationError(f"Invalid Entity Arn: {arn} does not clearly define entity type and name.")
        role = next((role for role in self.backend.roles.values() if role.arn == arn), None)
        if role is None:
            raise NotFoundException(f"Entity {arn} does not exist.")
        documents = [*role.policies.values(), *(policy.document for policy in role.managed_policies.values())]
        statements = [item for document in documents for item in _listed(json.loads(document)["Statement"])]
        results = [
            {"EvalActionName": action, "EvalResourceName": "*", "EvalDecision": _decide(statements, action)}
            for action in self._get_param("ActionNames")
        ]
        return ActionResult({"EvaluationResults": results, "IsTruncated": False})

    setattr(IamResponse, "simulate_principal_policy", simulate_principal_policy)  # noqa: B010


def _decide(statements: list[dict[str, Any]], action: str) -> str:
    """Decide about an action on the resource `*`, without context: no condition is met."""
    effects = {item["Effect"] for item in statements if not item.get("Condition") and _covers(item, action)}
    return "explicitDeny" if "Deny" in effects else "allowed" if effects else "implicitDeny"


def _covers(statement: dict[str, Any], action: str) -> bool:
    if "*" not in _listed(statement.get("Resource", [])):
        return False
    patterns = _listed(statement.get("Action", statement.get("NotAction")))
    is_named = any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)
    return is_named == ("Action" in statement)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
