"""The EMR of one account and region: its clusters and its security configurations."""

import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moto.core.base_backend import BackendDict, BaseBackend
from moto.iam.models import iam_backends

from local_aws.emr import errors, validation
from local_aws.emr.cluster import END_GRACE_SECONDS, Cluster
from local_aws.emr.execution.runtime import Runtime
from local_aws.emr.states import ACTIVE, LIVE
from local_aws.emr.steps import Step


@dataclass(frozen=True)
class SecurityConfiguration:
    """A JSON document for EMR's nodes, of which there are none."""

    name: str
    document: str
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


class EmrBackend(BaseBackend):
    """What moto calls a backend. `local_aws.assembly` sets `runtime` before the first backend exists.

    Methods raise ValidationException for a request that breaks a rule, and InvalidRequestException for one that refers
    to something that does not exist.
    """

    runtime: Runtime

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self._clusters: dict[str, Cluster] = {}
        self._lock = threading.Lock()
        self.security_configurations: dict[str, SecurityConfiguration] = {}

    def close(self) -> None:
        """End every cluster, with all processes of its steps, and wait for that."""
        clusters = list(self._clusters.values())
        for cluster in clusters:
            cluster.close()
        for cluster in clusters:
            cluster.join(self.runtime.settings.kill_seconds + END_GRACE_SECONDS)

    # clusters

    def run_job_flow(self, request: dict[str, Any]) -> Cluster:
        """Check the request, then register and start a cluster."""
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
            roles={role.name: frozenset(role.managed_policies) for role in iam.roles.values()},
            instance_profiles=frozenset(profile.name for profile in iam.instance_profiles.values()),
            security_configurations=frozenset(self.security_configurations),
            network_tags=self._network_tags,
        )

    def _network_tags(self, subnet_id: str) -> validation.NetworkTags | None:
        # moto's EC2 takes seconds to import, and few requests name a subnet
        from moto.ec2.models import ec2_backends

        ec2 = ec2_backends[self.account_id][self.region_name]

        def tags(resource_id: str) -> validation.Tags:
            return {tag["key"]: tag["value"] for tag in ec2.describe_tags({"resource-id": [resource_id]})}

        for by_id in ec2.subnets.values():
            if subnet_id in by_id:
                vpc_id = by_id[subnet_id].vpc_id
                return tags(subnet_id), tags(vpc_id), {group: tags(group) for group in ec2.groups[vpc_id]}
        return None

    def cluster(self, cluster_id: str) -> Cluster:
        """Return a cluster."""
        if cluster_id not in self._clusters:
            raise errors.InvalidRequestException(f"Cluster id '{cluster_id}' is not valid.")
        return self._clusters[cluster_id]

    def job_flow(self, job_flow_id: str) -> Cluster:
        """Return a cluster for the older calls, which have another error."""
        if job_flow_id not in self._clusters:
            raise errors.ValidationException("Specified job flow ID does not exist.")
        return self._clusters[job_flow_id]

    def list_clusters(
        self, states: list[str] | None = None, after: datetime | None = None, before: datetime | None = None
    ) -> list[Cluster]:
        """Return clusters by state and time of creation, newest first."""
        clusters = [
            cluster
            for cluster in self._clusters.values()
            if (not states or cluster.state in states)
            and (after is None or cluster.timeline.created > after)
            and (before is None or cluster.timeline.created < before)
        ]
        return sorted(clusters, key=lambda cluster: cluster.timeline.created, reverse=True)

    def terminate_job_flows(self, job_flow_ids: list[str]) -> None:
        """End clusters; none ends where an id is unknown or a cluster is protected."""
        clusters = [self.job_flow(job_flow_id) for job_flow_id in job_flow_ids]
        if any(cluster.termination_protected and cluster.state in LIVE for cluster in clusters):
            raise errors.ValidationException(
                "Could not shut down one or more job flows since they are termination protected."
            )
        for cluster in clusters:
            cluster.terminate()

    # steps

    def add_job_flow_steps(self, job_flow_id: str, configs: list[dict[str, Any]]) -> list[Step]:
        """Add steps to a live cluster."""
        cluster = self.job_flow(job_flow_id)
        with cluster.changed:
            if cluster.is_ending:
                raise errors.ValidationException(
                    "A job flow that is shutting down, terminated, or finished may not be modified."
                )
            active = sum(step.state in ACTIVE for step in cluster.steps)
            validation.check_steps(configs, active=active, concurrency=cluster.step_concurrency_level)
            return cluster.add_steps(configs)

    def step(self, cluster_id: str, step_id: str) -> Step:
        """Return a step of a cluster."""
        for step in self.cluster(cluster_id).steps:
            if step.id == step_id:
                return step
        raise errors.InvalidRequestException(f"Step id '{step_id}' is not valid.")

    # security configurations

    def create_security_configuration(self, name: str, document: str) -> SecurityConfiguration:
        """Register a security configuration, a JSON document under a new name."""
        try:
            json.loads(document)
        except ValueError as error:
            raise errors.InvalidRequestException(f"Security configuration is not valid JSON: {error}.") from None
        with self._lock:
            if name in self.security_configurations:
                raise errors.InvalidRequestException(f"SecurityConfiguration with name '{name}' already exists.")
            configuration = SecurityConfiguration(name, document)
            self.security_configurations[name] = configuration
            return configuration

    def get_security_configuration(self, name: str) -> SecurityConfiguration:
        """Return a security configuration."""
        if name not in self.security_configurations:
            raise errors.InvalidRequestException(f"Security configuration with name '{name}' does not exist.")
        return self.security_configurations[name]

    def delete_security_configuration(self, name: str) -> None:
        """Delete a security configuration."""
        self.get_security_configuration(name)
        del self.security_configurations[name]


emr_backends = BackendDict(EmrBackend, "emr")
