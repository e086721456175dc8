"""The steps of a cluster as data."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from local_aws.emr.ids import new_id


@dataclass
class Step:
    """One step of a cluster, in the words of EMR's API."""

    config: dict[str, Any]  # `StepConfig` of the request
    created: datetime
    id: str = field(default_factory=lambda: new_id("s"))
    state: str = "PENDING"  # PENDING, RUNNING, CANCEL_PENDING, COMPLETED, FAILED or CANCELLED
    message: str = ""  # `StateChangeReason.Message`
    failure: dict[str, str] | None = None  # `FailureDetails` of a FAILED step
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def action_on_failure(self) -> str:
        """What EMR does with the cluster when the step fails."""
        return str(self.config.get("ActionOnFailure") or "TERMINATE_CLUSTER")

    def end(self, state: str, ended: datetime, message: str = "") -> None:
        """Set a final state."""
        self.state, self.message, self.ended = state, message, ended

    def describe(self) -> dict[str, Any]:
        """Return `Step` of DescribeStep and ListSteps."""
        jar: dict[str, Any] = self.config["HadoopJarStep"]
        status: dict[str, Any] = {
            "State": self.state,
            "StateChangeReason": {"Message": self.message} if self.message else {},
            "Timeline": {"CreationDateTime": self.created, "StartDateTime": self.started, "EndDateTime": self.ended},
        }
        if self.failure:
            status["FailureDetails"] = self.failure
        return {
            "Id": self.id,
            "Name": self.config["Name"],
            "Config": {
                "Jar": jar.get("Jar"),
                "Properties": {pair["Key"]: pair["Value"] for pair in jar.get("Properties") or []},
                "MainClass": jar.get("MainClass"),
                "Args": list(jar.get("Args") or []),
            },
            "ActionOnFailure": self.action_on_failure,
            "Status": status,
        }
