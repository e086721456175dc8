"""EMR's operations: from a parsed request to the document that answers it."""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult, BaseResponse, EmptyResult

from local_aws.emr import describe, validation
from local_aws.emr.cluster import Cluster
from local_aws.emr.errors import InvalidRequestException
from local_aws.emr.models import EmrBackend, emr_backends

PAGE_SIZE = 50


class EmrResponse(BaseResponse):
    """One method for each operation, with its name in snake case; parameters have the API's own names."""

    def __init__(self) -> None:
        super().__init__(service_name="emr")
        self.automated_parameter_parsing = True

    @property
    def backend(self) -> EmrBackend:
        """The EMR of the account and region that the request is signed for."""
        return emr_backends[self.current_account][self.region]

    def _cluster(self, parameter: str = "ClusterId") -> Cluster:
        return self.backend.cluster(self._get_param(parameter))

    def _page(self, result_key: str, rows: Sequence[dict[str, Any]]) -> ActionResult:
        """Return the page of a list that Marker names."""
        start = _offset(self._get_param("Marker"))
        result: dict[str, Any] = {result_key: list(rows[start : start + PAGE_SIZE])}
        if start + PAGE_SIZE < len(rows):
            result["Marker"] = base64.b64encode(str(start + PAGE_SIZE).encode()).decode()
        return ActionResult(result)

    def _cluster_without_filters(self) -> Cluster:
        if filters := sorted(self._get_params().keys() - {"ClusterId", "Marker"}):
            raise NotImplementedError(f"filters {', '.join(filters)}: leave them out, and filter the answer")
        return self._cluster()

    # clusters

    def run_job_flow(self) -> ActionResult:
        cluster = self.backend.run_job_flow(dict(self._get_params()))
        return ActionResult({"JobFlowId": cluster.id, "ClusterArn": cluster.arn})

    def describe_cluster(self) -> ActionResult:
        return ActionResult({"Cluster": describe.describe(self._cluster())})

    def list_clusters(self) -> ActionResult:
        clusters = self.backend.list_clusters(
            self._get_param("ClusterStates", []),
            _aware(self._get_param("CreatedAfter")),
            _aware(self._get_param("CreatedBefore")),
        )
        return self._page("Clusters", [describe.summary(cluster) for cluster in clusters])

    def terminate_job_flows(self) -> ActionResult:
        self.backend.terminate_job_flows(self._get_param("JobFlowIds", []))
        return EmptyResult()

    def set_termination_protection(self) -> ActionResult:
        clusters = [self.backend.job_flow(job_flow_id) for job_flow_id in self._get_param("JobFlowIds", [])]
        for cluster in clusters:
            with cluster.changed:
                cluster.termination_protected = bool(self._get_param("TerminationProtected"))
                cluster.changed.notify_all()
        return EmptyResult()

    def add_tags(self) -> ActionResult:
        cluster, tags = self._cluster("ResourceId"), self._get_param("Tags", [])
        validation.check_tags(tags)
        cluster.tags |= {tag["Key"]: tag.get("Value", "") for tag in tags}
        return EmptyResult()

    # steps

    def add_job_flow_steps(self) -> ActionResult:
        steps = self.backend.add_job_flow_steps(self._get_param("JobFlowId"), self._get_param("Steps", []))
        return ActionResult({"StepIds": [step.id for step in steps]})

    def describe_step(self) -> ActionResult:
        cluster = self._cluster()
        with cluster.changed:
            return ActionResult({"Step": self.backend.step(cluster.id, self._get_param("StepId")).describe()})

    def list_steps(self) -> ActionResult:
        cluster = self._cluster_without_filters()
        with cluster.changed:
            return self._page("Steps", [step.describe() for step in reversed(cluster.steps)])

    def cancel_steps(self) -> ActionResult:
        cluster, step_ids = self._cluster(), self._get_param("StepIds", [])
        at_once = self._get_param("StepCancellationOption") == "TERMINATE_PROCESS"
        steps = [self.backend.step(cluster.id, step_id) for step_id in step_ids]
        return ActionResult({"CancelStepsInfoList": [cluster.cancel_step(step, at_once=at_once) for step in steps]})

    # machines

    def list_instances(self) -> ActionResult:
        cluster = self._cluster_without_filters()
        with cluster.changed:
            instances = [instance.describe() for fleet in cluster.fleets for instance in fleet.instances]
        return self._page("Instances", instances)

    # security configurations

    def create_security_configuration(self) -> ActionResult:
        configuration = self.backend.create_security_configuration(
            self._get_param("Name"), self._get_param("SecurityConfiguration")
        )
        return ActionResult({"Name": configuration.name, "CreationDateTime": configuration.created})

    def describe_security_configuration(self) -> ActionResult:
        configuration = self.backend.get_security_configuration(self._get_param("Name"))
        return ActionResult(
            {
                "Name": configuration.name,
                "SecurityConfiguration": configuration.document,
                "CreationDateTime": configuration.created,
            }
        )

    def delete_security_configuration(self) -> ActionResult:
        self.backend.delete_security_configuration(self._get_param("Name"))
        return EmptyResult()


def _aware(moment: datetime | None) -> datetime | None:
    """Add the zone, UTC, to a time that moto parsed without one."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _offset(marker: str | None) -> int:
    try:
        return int(base64.b64decode(marker or "MA==", validate=True))
    except (binascii.Error, ValueError):
        raise InvalidRequestException(f"Marker '{marker}' is not valid.") from None
