"""Finding and adding the step of a stage on the run's cluster."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fruits_airflow.storage.idempotency import MADE, send_announced
from fruits_airflow.storage.run_notes import Journal, age_s

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient

log = logging.getLogger(__name__)

# COMPLETED first: work that is done is not done again.
_ADOPTED_STATES = ("COMPLETED", "RUNNING", "PENDING")
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

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Step:
        """Reads EMR's description."""
        status = found["Status"]
        failure, change = status.get("FailureDetails", {}), status.get("StateChangeReason", {})
        parts = (failure.get("Reason"), failure.get("Message"), change.get("Message"))
        return cls(
            step_id=found["Id"],
            name=found["Name"],
            state=status["State"],
            reason="; ".join(filter(None, parts)),
            created_at=status.get("Timeline", {}).get("CreationDateTime"),
        )


def describe_step(client: EMRClient, job_flow_id: str, step_id: str) -> Step:
    """Reads one step."""
    return Step.of(client.describe_step(ClusterId=job_flow_id, StepId=step_id)["Step"])


@dataclass(frozen=True)
class StepSubmitter:
    """Adds steps to one cluster; see ClusterLifecycle for the two clients and the window."""

    client: EMRClient
    single_attempt_client: EMRClient
    journal: Journal
    job_flow_id: str
    consistency_s: float
    poll_s: float

    def adopt(self, step: Mapping[str, Any]) -> Step | None:
        """The step of that name which is done, running or waiting, in this order; None after failed attempts only.

        Waits while a request announced moments ago may have added one that the listing does not show yet.
        """
        while True:
            steps = self._named(step["Name"])
            if found := _adoptable(steps):
                return found
            request = self.journal.read(self._announcement(step))
            if request is None:
                return None
            if MADE in request:
                return _adoptable([describe_step(self.client, self.job_flow_id, request[MADE])])
            if (age := age_s(request)) >= self.consistency_s:
                return None
            if len(steps) > request["known"]:
                return None  # what was announced is there, and has failed
            log.info("A request for %s was sent %.0f s ago; looking again", step["Name"], age)
            time.sleep(min(self.poll_s, self.consistency_s - age))

    def adopt_or_add(self, step: Mapping[str, Any]) -> Step:
        """The step of that name, added now if there is none or all attempts have failed.

        Raises:
            ClientError: AWS refused the request, for example because the cluster has ended.
            BotoCoreError: no answer came, and the listing showed no new step within its window.
        """
        if existing := self.adopt(step):
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
        give_up = time.monotonic() + self.consistency_s
        while True:
            fresh = [s.step_id for s in self._named(name) if s.step_id not in known]
            if fresh or time.monotonic() >= give_up:
                return next(iter(fresh), None)
            time.sleep(self.poll_s)

    def _named(self, name: str) -> list[Step]:
        pages = self.client.get_paginator("list_steps").paginate(ClusterId=self.job_flow_id)
        return [Step.of(found) for page in pages for found in page["Steps"] if found["Name"] == name]


def _adoptable(steps: Sequence[Step]) -> Step | None:
    for state in _ADOPTED_STATES:
        if found := next((step for step in steps if step.state == state), None):
            log.info("Adopting %s (%s), %s", found.step_id, found.name, found.state)
            return found
    return None
