"""Where a test changes the life of clusters and steps from outside (`tests.emulator.clusters`)."""

from typing import Protocol

from local_aws.emr.instances import Timeline
from local_aws.emr.states import Ending
from local_aws.emr.steps import Step


class ClusterView(Protocol):
    """What hooks see of a cluster, and their way to end it."""

    name: str
    state: str
    timeline: Timeline

    def terminate(self, ending: Ending = ...) -> None:
        """End the cluster."""


class Hooks:
    """The hooks of a cluster. These change nothing."""

    def entered(self, cluster: ClusterView) -> None:
        """Note that the cluster has entered its present state."""

    def stays(self, cluster: ClusterView) -> bool:  # noqa: ARG002
        """Whether the cluster is kept in its present state."""
        return False

    def bootstrap_problem(self, cluster: ClusterView) -> str | None:  # noqa: ARG002
        """Return why a bootstrap action fails, if it does; `{primary}` is the instance id of the primary node."""
        return None

    def step_entered(self, cluster: ClusterView, step: Step) -> None:
        """Note that the step has entered its present state."""

    def step_command(self, cluster_name: str, step: Step, argv: list[str]) -> list[str]:  # noqa: ARG002
        """Return the command that runs for a step."""
        return argv

    def log_seconds(self, cluster_name: str, step: Step) -> float:  # noqa: ARG002
        """Return how many seconds after its end the logs of a step come."""
        return 0.0
