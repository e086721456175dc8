"""The EMR of one account and region: its clusters and its security configurations."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moto.core.base_backend import BackendDict, BaseBackend
from moto.iam.models import iam_backends

from local_aws.emr import errors, validation
from local_aws.emr.cluster import LIVE, Cluster
from local_aws.emr.execution.runtime import Runtime
from local_aws.emr.steps import ACTIVE, Step


@dataclass(frozen=True)
class SecurityConfiguration:
    """A named document; what is in it is for EMR's nodes, and there are none."""

    name: str
    document: str
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


class EmrBackend(BaseBackend):
    """What moto calls a backend; `runtime` is set before the first one is made (`local_aws.assembly`)."""

    runtime: Runtime

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self._clusters: dict[str, Cluster] = {}
        self._lock = threading.Lock()
        self.security_configurations: dict[str, SecurityConfiguration] = {}

    def reset(self) -> None:
        """Ends every cluster and forgets it (moto's `POST /moto-api/reset`)."""
        self.close()
        super().reset()

    def close(self) -> None:
        """Ends every cluster, with all processes of its steps, and waits for that."""
        clusters = list(self._clusters.values())
        for cluster in clusters:
            cluster.close()
        for cluster in clusters:
            cluster.join(self.runtime.settings.kill_seconds + 30)

    # clusters

    def run_job_flow(self, request: dict[str, Any]) -> Cluster:
        """Checks the request, then registers and starts a cluster.

        Raises:
            ValidationException: the request breaks a rule.
            InvalidRequestException: it names something that is not there.
        """
        account = self._account()
        validation.check_run_job_flow(request, self.region_name, account)
        cluster = Cluster(
            request,
            self.runtime,
            self.region_name,
            f"arn:{self.partition}:elasticmapreduce:{self.region_name}:{self.account_id}",
            validation.provisioning_problem(request, account),
        )
        with self._lock:
            self._clusters[cluster.id] = cluster
        cluster.start()
        return cluster

    def _account(self) -> validation.Account:
        iam = iam_backends[self.account_id][self.partition]
        return validation.Account(
            roles={one.name: frozenset(one.managed_policies) for one in iam.roles.values()},
            instance_profiles=frozenset(one.name for one in iam.instance_profiles.values()),
            security_configurations=frozenset(self.security_configurations),
            network_tags=self._network_tags,
        )

    def _network_tags(self, subnet_id: str) -> tuple[dict[str, str], dict[str, str]] | None:
        # moto's EC2 takes seconds to import, and few requests name a subnet
        from moto.ec2.models import ec2_backends

        ec2 = ec2_backends[self.account_id][self.region_name]
        for by_id in ec2.subnets.values():
            if subnet_id in by_id:
                of_subnet, of_vpc = (
                    {tag["key"]: tag["value"] for tag in ec2.describe_tags({"resource-id": [resource_id]})}
                    for resource_id in (subnet_id, by_id[subnet_id].vpc_id)
                )
                return of_subnet, of_vpc
        return None

    def cluster(self, cluster_id: str) -> Cluster:
        """The cluster of an id.

        Raises:
            InvalidRequestException: there is none.
        """
        if cluster_id not in self._clusters:
            raise errors.no_such_cluster(cluster_id)
        return self._clusters[cluster_id]

    def job_flow(self, job_flow_id: str) -> Cluster:
        """The cluster of an id, for the older calls.

        Raises:
            ValidationException: there is none.
        """
        if job_flow_id not in self._clusters:
            raise errors.no_such_job_flow()
        return self._clusters[job_flow_id]

    def list_clusters(
        self, states: list[str] | None = None, after: datetime | None = None, before: datetime | None = None
    ) -> list[Cluster]:
        """Clusters by state and time of creation, newest first."""
        found = [
            one
            for one in self._clusters.values()
            if (not states or one.state in states)
            and (after is None or one.timeline.created > after)
            and (before is None or one.timeline.created < before)
        ]
        return sorted(found, key=lambda one: one.timeline.created, reverse=True)

    def terminate_job_flows(self, job_flow_ids: list[str]) -> None:
        """Asks clusters to end.

        Raises:
            ValidationException: one does not exist or is protected; then none is ended.
        """
        clusters = [self.job_flow(one) for one in job_flow_ids]
        if any(one.termination_protected and one.state in LIVE for one in clusters):
            raise errors.ValidationException(
                "Could not shut down one or more job flows since they are termination protected."
            )
        for cluster in clusters:
            cluster.terminate()

    # steps

    def add_job_flow_steps(self, job_flow_id: str, configs: list[dict[str, Any]]) -> list[Step]:
        """Adds steps to a live cluster.

        Raises:
            ValidationException: the cluster is not live, or a step is not allowed.
        """
        cluster = self.job_flow(job_flow_id)
        with cluster.changed:
            if cluster.ending:
                raise errors.ValidationException(
                    "A job flow that is shutting down, terminated, or finished may not be modified."
                )
            active = sum(one.state in ACTIVE for one in cluster.steps)
            validation.check_steps(configs, active=active, concurrency=cluster.step_concurrency_level)
            return cluster.add_steps(configs)

    def step(self, cluster_id: str, step_id: str) -> Step:
        """A step of a cluster.

        Raises:
            InvalidRequestException: there is no such cluster or step.
        """
        for one in self.cluster(cluster_id).steps:
            if one.id == step_id:
                return one
        raise errors.no_such_step(step_id)

    def list_steps(
        self, cluster_id: str, step_ids: list[str] | None = None, states: list[str] | None = None
    ) -> list[Step]:
        """Steps of a cluster, the one added last first.

        Raises:
            InvalidRequestException: there is no such cluster, or one of `step_ids` is not its.
        """
        for one in step_ids or []:
            self.step(cluster_id, one)
        return [
            one
            for one in reversed(self.cluster(cluster_id).steps)
            if (not step_ids or one.id in step_ids) and (not states or one.state in states)
        ]

    # security configurations

    def create_security_configuration(self, name: str, security_configuration: str) -> SecurityConfiguration:
        """Registers a security configuration.

        Args:
            name: its name.
            security_configuration: JSON.

        Raises:
            InvalidRequestException: the name is taken, or the configuration is not JSON.
        """
        try:
            json.loads(security_configuration)
        except ValueError as error:
            raise errors.InvalidRequestException(
                f"Security configuration is not valid JSON: {error}."
            ) from None
        with self._lock:
            if name in self.security_configurations:
                raise errors.InvalidRequestException(
                    f"SecurityConfiguration with name '{name}' already exists."
                )
            made = SecurityConfiguration(name, security_configuration)
            self.security_configurations[name] = made
            return made

    def get_security_configuration(self, name: str) -> SecurityConfiguration:
        """A security configuration.

        Raises:
            InvalidRequestException: there is none of that name.
        """
        if name not in self.security_configurations:
            raise errors.InvalidRequestException(f"Security configuration with name '{name}' does not exist.")
        return self.security_configurations[name]

    def delete_security_configuration(self, name: str) -> None:
        """Removes a security configuration.

        Raises:
            InvalidRequestException: there is none of that name.
        """
        self.get_security_configuration(name)
        del self.security_configurations[name]


emr_backends = BackendDict(EmrBackend, "emr")
