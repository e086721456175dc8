"""What moto lacks for questions about an account: EC2's quotas of vCPUs, and a simulation of a role's policies."""

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


def install_iam() -> None:
    """Add SimulatePrincipalPolicy of roles, on the resource `*`, and name service-linked roles as AWS does."""
    from moto.iam import models
    from moto.iam.access_control import IAMPolicy, PermissionResult
    from moto.iam.exceptions import NotFoundException
    from moto.iam.responses import IamResponse

    models.SERVICE_NAME_CONVERSION.update(spot="EC2Spot", elasticmapreduce="EMRCleanup")

    def simulate_principal_policy(self: IamResponse) -> ActionResult:
        arn = self._get_param("PolicySourceArn")
        role = next((role for role in self.backend.roles.values() if role.arn == arn), None)
        if role is None:
            raise NotFoundException(f"Entity {arn} does not exist.")
        policies = [IAMPolicy(policy) for policy in (*role.policies.values(), *role.managed_policies.values())]

        def decide(action: str) -> str:
            results = {policy.is_action_permitted(action) for policy in policies}
            if PermissionResult.DENIED in results:
                return "explicitDeny"
            return "allowed" if PermissionResult.PERMITTED in results else "implicitDeny"

        results = [
            {"EvalActionName": action, "EvalResourceName": "*", "EvalDecision": decide(action)}
            for action in self._get_param("ActionNames")
        ]
        return ActionResult({"EvaluationResults": results, "IsTruncated": False})

    setattr(IamResponse, "simulate_principal_policy", simulate_principal_policy)  # noqa: B010
