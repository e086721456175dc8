"""Where the life of clusters and steps can be bent from outside; by default nothing is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local_aws.emr.cluster import Cluster
    from local_aws.emr.steps import Step


class Hooks:
    """Told what happens, and asked before it does. This one changes nothing; `local_aws.faults` has another."""

    def entered(self, cluster: Cluster) -> None:
        """The cluster has entered its present state."""

    def stays(self, cluster: Cluster) -> bool:  # noqa: ARG002
        """Whether the cluster is kept in its present state."""
        return False

    def bootstrap_problem(self, cluster: Cluster) -> str | None:  # noqa: ARG002
        """Why a bootstrap action fails, or None; `{primary}` stands for the primary node's instance id."""
        return None

    def step_command(self, cluster: Cluster, step: Step, argv: list[str]) -> list[str]:  # noqa: ARG002
        """The command that runs for a step."""
        return argv

    def step_entered(self, cluster: Cluster, step: Step) -> None:
        """The step has entered its present state."""

    def log_seconds(self, cluster: Cluster, step: Step) -> float:  # noqa: ARG002
        """How much later than its end a step's logs come."""
        return 0.0
