"""Find or add the step of a stage on the run's cluster."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fruits_airflow.config.aws_types import EMRClient
from fruits_airflow.emr.announced_requests import CREATED_ID, AnnouncedRequests, send_announced

log = logging.getLogger(__name__)

_USABLE_STATES = ("COMPLETED", "RUNNING", "PENDING")  # in order of preference
FAILED_STATES = ("FAILED", "CANCELLED", "INTERRUPTED")
TERMINAL_STATES = ("COMPLETED", *FAILED_STATES)


@dataclass(frozen=True)
class Step:
    """A step as ListSteps or DescribeStep shows it."""

    step_id: str
    name: str
    state: str
    reason: str
    created_at: datetime | None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def stage(self) -> str:
        """The stage that its name begins with."""
        return self.name.partition("/")[0]

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Step:
        """Parse EMR's description."""
        status = description["Status"]
        failure, change = status.get("FailureDetails", {}), status.get("StateChangeReason", {})
        timeline = status.get("Timeline", {})
        parts = (failure.get("Reason"), failure.get("Message"), change.get("Message"))
        return cls(
            step_id=description["Id"],
            name=description["Name"],
            state=status["State"],
            reason="; ".join(filter(None, parts)),
            created_at=timeline.get("CreationDateTime"),
            started_at=timeline.get("StartDateTime"),
            ended_at=timeline.get("EndDateTime"),
        )


def describe_step(client: EMRClient, job_flow_id: str, step_id: str) -> Step:
    """Read a step."""
    return Step.of(client.describe_step(ClusterId=job_flow_id, StepId=step_id)["Step"])


def list_steps(client: EMRClient, job_flow_id: str) -> list[Step]:
    """List the steps of a cluster, the latest first."""
    pages = client.get_paginator("list_steps").paginate(ClusterId=job_flow_id)
    return [Step.of(summary) for page in pages for summary in page["Steps"]]


@dataclass(frozen=True)
class StepSubmitter(AnnouncedRequests):
    """Adds steps to a cluster."""

    job_flow_id: str

    def find(self, step: Mapping[str, Any]) -> Step | None:
        """Find the step of that name which is completed, running or pending, in this order of preference."""
        return self.find_announced(
            self._announcement(step),
            list_all=lambda: self._named(step["Name"]),
            describe=lambda note: [describe_step(self.client, self.job_flow_id, note[CREATED_ID])],
            choose=_usable,
        )

    def find_or_add(self, step: Mapping[str, Any]) -> Step:
        """Find the step of that name, or add it if none exists or all have failed.

        Raises:
            ClientError: AWS refused the request, for example because the cluster has ended.
            BotoCoreError: AWS did not answer, and the listing showed no new step within its window.
        """
        if existing := self.find(step):
            log.info("Using the step %s (%s), which is %s", existing.step_id, existing.name, existing.state)
            return existing
        known = {s.step_id for s in self._named(step["Name"])}
        step_id = send_announced(
            self.journal,
            self._announcement(step),
            request=lambda: self.single_attempt_client.add_job_flow_steps(
                JobFlowId=self.job_flow_id,
                Steps=[step],  # type: ignore[list-item]
            )["StepIds"][0],
            find=lambda: self._await_new(step["Name"], known),
            known=len(known),
        )
        log.info("%s of %s is %s", step["Name"], self.job_flow_id, step_id)
        return describe_step(self.client, self.job_flow_id, step_id)

    def _announcement(self, step: Mapping[str, Any]) -> str:
        return f"add-{step['Name'].replace('/', '-')}-{self.job_flow_id}"

    def _await_new(self, name: str, known: set[str]) -> str | None:
        """Wait until the listing shows a new step, in any state."""
        give_up = time.monotonic() + self.consistency_s
        while True:
            new = [s.step_id for s in self._named(name) if s.step_id not in known]
            if new or time.monotonic() >= give_up:
                return next(iter(new), None)
            time.sleep(self.poll_s)

    def _named(self, name: str) -> list[Step]:
        return [step for step in list_steps(self.client, self.job_flow_id) if step.name == name]


def _usable(steps: Sequence[Step]) -> Step | None:
    usable = [step for step in steps if step.state in _USABLE_STATES]
    return min(usable, key=lambda step: _USABLE_STATES.index(step.state), default=None)
