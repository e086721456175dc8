"""EMR's operations: from a parsed request to the document that answers it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult, BaseResponse, EmptyResult

from local_aws.emr import describe, releases, validation
from local_aws.emr.cluster import Cluster
from local_aws.emr.errors import InvalidRequestException, ValidationException
from local_aws.emr.models import EmrBackend, emr_backends

PAGE_SIZE = 50


class EmrResponse(BaseResponse):
    """One method per operation, by the operation's name in snake case; parameters have the API's own names."""

    def __init__(self) -> None:
        super().__init__(service_name="emr")
        self.automated_parameter_parsing = True

    @property
    def backend(self) -> EmrBackend:
        """The EMR of the account and region that the request is signed for."""
        return emr_backends[self.current_account][self.region]

    def _cluster(self) -> Cluster:
        return self.backend.cluster(self._get_param("ClusterId"))

    def _page(self, result_key: str, rows: Sequence[dict[str, Any]]) -> ActionResult:
        """One page of a list, by its Marker."""
        start = _offset(self._get_param("Marker"))
        result: dict[str, Any] = {result_key: list(rows[start : start + PAGE_SIZE])}
        if start + PAGE_SIZE < len(rows):
            result["Marker"] = base64.b64encode(str(start + PAGE_SIZE).encode()).decode()
        return ActionResult(result)

    # clusters

    def run_job_flow(self) -> ActionResult:
        """RunJobFlow."""
        cluster = self.backend.run_job_flow(dict(self._get_params()))
        return ActionResult({"JobFlowId": cluster.id, "ClusterArn": cluster.arn})

    def describe_cluster(self) -> ActionResult:
        """DescribeCluster."""
        return ActionResult({"Cluster": describe.describe(self._cluster())})

    def list_clusters(self) -> ActionResult:
        """ListClusters."""
        found = self.backend.list_clusters(
            self._get_param("ClusterStates", []),
            _aware(self._get_param("CreatedAfter")),
            _aware(self._get_param("CreatedBefore")),
        )
        return self._page("Clusters", [describe.summary(one) for one in found])

    def terminate_job_flows(self) -> ActionResult:
        """TerminateJobFlows."""
        self.backend.terminate_job_flows(self._get_param("JobFlowIds", []))
        return EmptyResult()

    def modify_cluster(self) -> ActionResult:
        """ModifyCluster."""
        cluster = self._cluster()
        level = validation.check_concurrency(self._get_param("StepConcurrencyLevel"))
        with cluster.changed:
            cluster.step_concurrency_level = level
            cluster.changed.notify_all()
        return ActionResult({"StepConcurrencyLevel": level})

    def set_termination_protection(self) -> ActionResult:
        """SetTerminationProtection."""
        for cluster in [self.backend.job_flow(one) for one in self._get_param("JobFlowIds", [])]:
            cluster.termination_protected = bool(self._get_param("TerminationProtected"))
        return EmptyResult()

    def set_visible_to_all_users(self) -> ActionResult:
        """SetVisibleToAllUsers."""
        for cluster in [self.backend.job_flow(one) for one in self._get_param("JobFlowIds", [])]:
            cluster.visible_to_all_users = bool(self._get_param("VisibleToAllUsers"))
        return EmptyResult()

    def set_keep_job_flow_alive_when_no_steps(self) -> ActionResult:
        """SetKeepJobFlowAliveWhenNoSteps."""
        for cluster in [self.backend.job_flow(one) for one in self._get_param("JobFlowIds", [])]:
            with cluster.changed:
                cluster.keep_alive = bool(self._get_param("KeepJobFlowAliveWhenNoSteps"))
                cluster.changed.notify_all()
        return EmptyResult()

    def add_tags(self) -> ActionResult:
        """AddTags."""
        cluster, tags = self.backend.cluster(self._get_param("ResourceId")), self._get_param("Tags", [])
        validation.check_tags(tags)
        cluster.tags |= {one["Key"]: one.get("Value", "") for one in tags}
        return EmptyResult()

    def remove_tags(self) -> ActionResult:
        """RemoveTags."""
        cluster = self.backend.cluster(self._get_param("ResourceId"))
        for key in self._get_param("TagKeys", []):
            cluster.tags.pop(key, None)
        return EmptyResult()

    # steps

    def add_job_flow_steps(self) -> ActionResult:
        """AddJobFlowSteps."""
        steps = self.backend.add_job_flow_steps(self._get_param("JobFlowId"), self._get_param("Steps", []))
        return ActionResult({"StepIds": [one.id for one in steps]})

    def describe_step(self) -> ActionResult:
        """DescribeStep."""
        cluster = self._cluster()
        with cluster.changed:
            return ActionResult({"Step": self.backend.step(cluster.id, self._get_param("StepId")).describe()})

    def list_steps(self) -> ActionResult:
        """ListSteps."""
        cluster, ids = self._cluster(), self._get_param("StepIds")
        with cluster.changed:
            steps = self.backend.list_steps(cluster.id, ids, self._get_param("StepStates"))
            return self._page("Steps", [step.describe() for step in steps])

    def cancel_steps(self) -> ActionResult:
        """CancelSteps."""
        cluster, ids = self._cluster(), self._get_param("StepIds", [])
        at_once = self._get_param("StepCancellationOption") == "TERMINATE_PROCESS"
        steps = [self.backend.step(cluster.id, one) for one in ids]
        return ActionResult(
            {"CancelStepsInfoList": [cluster.cancel_step(one, at_once=at_once) for one in steps]}
        )

    # machines

    def list_instance_groups(self) -> ActionResult:
        """ListInstanceGroups."""
        cluster = self._cluster()
        if cluster.machines[0].is_fleet:
            raise InvalidRequestException(
                "Instance fleets and instance groups are mutually exclusive: this cluster has fleets."
            )
        with cluster.changed:
            return self._page("InstanceGroups", [group.describe() for group in cluster.machines])

    def list_instance_fleets(self) -> ActionResult:
        """ListInstanceFleets."""
        cluster = self._cluster()
        if not cluster.machines[0].is_fleet:
            raise InvalidRequestException(
                "Instance fleets and instance groups are mutually exclusive: this cluster has groups."
            )
        with cluster.changed:
            return self._page("InstanceFleets", [fleet.describe() for fleet in cluster.machines])

    def list_instances(self) -> ActionResult:
        """ListInstances."""
        roles = self._get_param("InstanceGroupTypes") or [
            one for one in [self._get_param("InstanceFleetType")] if one
        ]
        of = self._get_param("InstanceGroupId") or self._get_param("InstanceFleetId")
        states = self._get_param("InstanceStates")
        cluster = self._cluster()
        with cluster.changed:
            instances = [
                instance.describe()
                for group in cluster.machines
                if (not roles or group.role in roles) and (not of or group.id == of)
                for instance in group.instances
                if not states or instance.state in states
            ]
        return self._page("Instances", instances)

    def list_bootstrap_actions(self) -> ActionResult:
        """ListBootstrapActions."""
        actions = self._cluster().request.get("BootstrapActions") or []
        return self._page(
            "BootstrapActions",
            [
                {
                    "Name": one.get("Name"),
                    "ScriptPath": one["ScriptBootstrapAction"]["Path"],
                    "Args": one["ScriptBootstrapAction"].get("Args") or [],
                }
                for one in actions
            ],
        )

    # policies

    def put_auto_termination_policy(self) -> ActionResult:
        """PutAutoTerminationPolicy."""
        cluster, policy = self._cluster(), self._get_param("AutoTerminationPolicy")
        validation.check_auto_termination(policy)
        return self._set(cluster, "auto_termination_policy", policy)

    def get_auto_termination_policy(self) -> ActionResult:
        """GetAutoTerminationPolicy."""
        return _unless_none("AutoTerminationPolicy", self._cluster().auto_termination_policy)

    def remove_auto_termination_policy(self) -> ActionResult:
        """RemoveAutoTerminationPolicy."""
        return self._set(self._cluster(), "auto_termination_policy", None)

    def put_managed_scaling_policy(self) -> ActionResult:
        """PutManagedScalingPolicy."""
        return self._set(self._cluster(), "managed_scaling_policy", self._get_param("ManagedScalingPolicy"))

    def get_managed_scaling_policy(self) -> ActionResult:
        """GetManagedScalingPolicy."""
        return _unless_none("ManagedScalingPolicy", self._cluster().managed_scaling_policy)

    def remove_managed_scaling_policy(self) -> ActionResult:
        """RemoveManagedScalingPolicy."""
        return self._set(self._cluster(), "managed_scaling_policy", None)

    def _set(self, cluster: Cluster, name: str, policy: dict[str, Any] | None) -> ActionResult:
        with cluster.changed:
            setattr(cluster, name, policy)
            cluster.changed.notify_all()
        return EmptyResult()

    # security configurations

    def create_security_configuration(self) -> ActionResult:
        """CreateSecurityConfiguration."""
        made = self.backend.create_security_configuration(
            self._get_param("Name"), self._get_param("SecurityConfiguration")
        )
        return ActionResult({"Name": made.name, "CreationDateTime": made.created})

    def describe_security_configuration(self) -> ActionResult:
        """DescribeSecurityConfiguration."""
        found = self.backend.get_security_configuration(self._get_param("Name"))
        return ActionResult(
            {
                "Name": found.name,
                "SecurityConfiguration": found.document,
                "CreationDateTime": found.created,
            }
        )

    def list_security_configurations(self) -> ActionResult:
        """ListSecurityConfigurations."""
        rows = [
            {"Name": one.name, "CreationDateTime": one.created}
            for one in self.backend.security_configurations.values()
        ]
        return self._page("SecurityConfigurations", rows)

    def delete_security_configuration(self) -> ActionResult:
        """DeleteSecurityConfiguration."""
        self.backend.delete_security_configuration(self._get_param("Name"))
        return EmptyResult()

    # releases

    def list_release_labels(self) -> ActionResult:
        """ListReleaseLabels."""
        labels = releases.release_labels(self.region)
        prefix = (self._get_param("Filters") or {}).get("Prefix", "")
        return ActionResult({"ReleaseLabels": [one for one in labels if one.startswith(prefix)]})

    def list_supported_instance_types(self) -> ActionResult:
        """ListSupportedInstanceTypes."""
        label = self._get_param("ReleaseLabel")
        if label not in releases.release_labels(self.region):
            raise ValidationException(f"The supplied release label is invalid: {label}.")
        return self._page("SupportedInstanceTypes", list(releases.instance_types(label).values()))


def _unless_none(name: str, value: dict[str, Any] | None) -> ActionResult:
    return EmptyResult() if value is None else ActionResult({name: value})


def _aware(moment: datetime | None) -> datetime | None:
    """Times are parsed without a zone at times; they are UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _offset(marker: str | None) -> int:
    try:
        return int(base64.b64decode(marker or "MA==", validate=True))
    except (binascii.Error, ValueError):
        raise InvalidRequestException(f"Marker '{marker}' is not valid.") from None
