"""The cluster of the run that a task belongs to: its clients, its identity and the request that creates it.

Every task of a stage asks here for the cluster rather than trusting an XCom: after "clear failed" the cluster that
the XCom names is gone, and the first task that runs creates the next one.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from airflow.providers.amazon.aws.links.emr import EmrClusterLink
from airflow.sdk import Context
from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.aws.clients import SINGLE_ATTEMPT, emr_client, s3_client
from fruits_airflow.aws.endpoints import CALLED, is_simulated
from fruits_airflow.config.aws_types import EMRClient
from fruits_airflow.config.errors import ConfigError, FruitsError
from fruits_airflow.config.run_parameters import region_of
from fruits_airflow.config.settings import Settings
from fruits_airflow.cost.estimate import PARTS, deadline, disks, estimate_parts, fleets_eur_per_hour
from fruits_airflow.cost.prices import load_prices
from fruits_airflow.emr.cluster_body import cluster_body, load_profile, require_sound_cluster
from fruits_airflow.emr.clusters import (
    ALL_STATES,
    CLUSTER_NOTE,
    ENDED_STATES,
    Cluster,
    ClusterLifecycle,
    RunKey,
    find_clusters,
    find_noted,
    instances_of,
)
from fruits_airflow.emr.stage_steps import step_for
from fruits_airflow.emr.steps import StepSubmitter
from fruits_airflow.locking.airflow_runs import AirflowRuns
from fruits_airflow.locking.database_lock import DatabaseLock, take_all
from fruits_airflow.locking.lock_owners import lock_deadline, open_lock
from fruits_airflow.runs.attempts import clear_failure
from fruits_airflow.runs.plan import ErasurePlan, RunPlan, read_plan
from fruits_airflow.runs.publication import read_state, require_not_overtaken
from fruits_airflow.storage.lake import Lake
from fruits_airflow.storage.run_notes import Journal, folder_of

log = logging.getLogger(__name__)

PLAN_TASK = "plan"
UPLOAD_TASK = "upload_code"
EDITED = f"the result of {PLAN_TASK} is not what the lake keeps: has a person edited it? Clear it, or trigger a new run"

_CLOCK_SKEW = timedelta(minutes=5)


def open_lake(settings: Settings) -> Lake:
    """Open the lake, through Airflow's connection if one is named."""
    return Lake(s3_client(settings), settings.lake_bucket)


@dataclass(frozen=True)
class RunContext:
    """The clients, lock, cost and cluster of one run."""

    settings: Settings
    region: str
    identity: RunKey
    plan: RunPlan | ErasurePlan | None  # None when the task `plan` returned nothing
    code_digest: str  # empty when the task `upload_code` returned nothing
    runs: AirflowRuns  # what this Airflow knows of other runs

    @classmethod
    def of(cls, context: Context, settings: Settings) -> RunContext:
        """Build the context of the run that a task belongs to.

        Pulls the XComs of two tasks that every run has, so that the graph shows the order of work and not who
        reads whose result.
        """
        plan = read_plan(context["ti"].xcom_pull(task_ids=PLAN_TASK))
        code_digest = context["ti"].xcom_pull(task_ids=UPLOAD_TASK) or ""
        region = plan.region if plan else region_of(settings, context["params"])
        identity = RunKey(settings.deployment_id, context["dag"].dag_id, context["run_id"])
        run = cls(settings, region, identity, plan, code_digest, AirflowRuns(context["ti"]))
        CALLED.keep(run.lake, run.folder)
        return run

    @property
    def run_plan(self) -> RunPlan | None:
        """The plan; None when there is none, or when it is an erasure's."""
        return self.plan if isinstance(self.plan, RunPlan) else None

    @cached_property
    def client(self) -> EMRClient:
        """EMR client for calls that may be repeated."""
        return emr_client(self.settings, self.region)

    @cached_property
    def lake(self) -> Lake:
        """The lake bucket."""
        return open_lake(self.settings)

    @property
    def folder(self) -> str:
        """Key of where the run keeps its notes."""
        return folder_of(self.identity.dag_id, self.identity.run_id)

    @cached_property
    def journal(self) -> Journal:
        """The run's notes."""
        return Journal(self.lake, self.folder)

    @cached_property
    def lifecycle(self) -> ClusterLifecycle:
        """Creates and ends this run's cluster."""
        return ClusterLifecycle(
            client=self.client,
            single_attempt_client=emr_client(self.settings, self.region, SINGLE_ATTEMPT),
            journal=self.journal,
            identity=self.identity,
            consistency_s=self.settings.list_consistency_s,
            poll_s=self.settings.poll_s,
        )

    def step_submitter(self, job_flow_id: str) -> StepSubmitter:
        """Return what adds this run's steps to a cluster."""
        return StepSubmitter(
            client=self.client,
            single_attempt_client=self.lifecycle.single_attempt_client,
            journal=self.journal,
            job_flow_id=job_flow_id,
            consistency_s=self.settings.list_consistency_s,
            poll_s=self.settings.poll_s,
        )

    @property
    def is_edited(self) -> bool:
        """Whether the plan is another than the task has kept: a person may edit the results of tasks."""
        return self.plan is not None and self.plan != read_plan((self.journal.read(PLAN_TASK) or {}).get("plan"))

    def keep(self, plan: RunPlan | ErasurePlan) -> dict[str, Any]:
        """Keep a plan where nobody edits it; return it as the result of the task."""
        self.journal.note(PLAN_TASK, plan=plan.to_xcom())
        return plan.to_xcom()

    def step(self, stage: str) -> dict[str, Any]:
        """Return the step of `stage` as AddJobFlowSteps takes it."""
        return step_for(stage, self.require_plan().to_xcom(), self.code_digest)

    def find_or_create(self) -> Cluster:
        """Return the run's live cluster; create it if there is none.

        Raises:
            ConfigError: There is no plan.
            CostCeilingExceeded: What is left of `max_cost_eur` does not pay for another cluster.
            LockHeld: After "clear failed", another run works on the database.
            RunOvertaken: After "clear failed", another run has worked on it.
        """
        return self.lifecycle.find_or_create(self._claimed_body)

    def end_clusters(self) -> int:
        """End every cluster of the run; return how many were alive.

        Raises:
            TimeoutError: A cluster may be alive.
        """
        try:
            ended = len(self.lifecycle.end_all(self.settings.terminate_timeout_minutes * 60))
        except (TimeoutError, BotoCoreError, ClientError) as error:
            raise TimeoutError(f"a cluster may be alive: {error}") from error
        if ended:
            log.warning("%d clusters were alive after terminate_cluster, and are ended", ended)
        return ended

    def lock(self, database: str) -> DatabaseLock:
        """Return the lock of a database, as this run sees it."""
        return open_lock(self.settings, self.lake, self.identity, database, self.region, self.runs)

    def _claimed_body(self) -> dict[str, Any]:
        """Build the body once this run has the lock: `verdict` has released it when a cleared run goes on."""
        plan = self.require_plan()
        databases = plan.locked_databases or (plan.database,)
        take_all(map(self.lock, databases), lock_deadline(self.settings))
        for database in databases:
            require_not_overtaken(read_state(self.lake, database), self.identity.run_id)
        clear_failure(self.lake, self.folder)
        return self.body()

    def body(self) -> dict[str, Any]:
        """Build the body of RunJobFlow for a cluster created now."""
        settings, plan = self.settings, self.require_plan()
        profile = load_profile(plan.profile)
        ends_at = deadline(
            now=datetime.now(UTC),
            max_cost_eur=min(plan.max_cost_eur, settings.max_cost_eur),
            spent_eur=self.spent_eur(),
            eur_per_hour=fleets_eur_per_hour(
                profile.instance_fleets, load_prices(self.region), settings.interface_endpoints
            ),
            max_minutes=profile.longest_minutes(settings.max_cluster_minutes),
        )
        body = cluster_body(
            settings,
            self.identity,
            profile,
            code_digest=self.code_digest,
            lake_region=plan.lake_region,
            ends_at=ends_at,
        )
        require_sound_cluster(body, settings, self.region, datetime.now(UTC), self.client)
        return body

    def link_cluster(self, context: Context, operator: Any, job_flow_id: str) -> None:
        """Save what the task's link to the cluster in the AWS console needs; an emulator has no console."""
        if is_simulated(self.client):
            return
        EmrClusterLink.persist(
            context=context,
            operator=operator,
            region_name=self.region,
            aws_partition=self.client.meta.partition,
            job_flow_id=job_flow_id,
        )

    def history(self) -> list[Cluster]:
        """List the clusters of this run since its plan, oldest first; the last one even if EMR does not list it."""
        if not self.plan:
            return []
        since = self.plan.start - _CLOCK_SKEW
        listed = find_clusters(self.client, self.identity, ALL_STATES, since)
        ids = {cluster.job_flow_id for cluster in listed}
        noted = find_noted(self.client, self.identity, self.journal.read(CLUSTER_NOTE), ALL_STATES)
        return [*listed, *(c for c in noted if c.job_flow_id not in ids and c.created_at >= since)]

    def ended_history(self) -> list[Cluster]:
        """List as `history` does where all clusters were seen ended; read again for a while what lags behind."""
        give_up = time.monotonic() + self.settings.list_consistency_s
        while True:
            clusters = self.history()
            if all(c.state in ENDED_STATES for c in clusters) or time.monotonic() >= give_up:
                return clusters
            time.sleep(min(self.settings.poll_s, self.settings.list_consistency_s / 6))

    def spent_eur(self) -> float:
        """Compute the most that this run's clusters can have cost so far: spot nodes count as on demand."""
        return sum(self.estimated_parts(spot_discount=False).values())

    def cost_so_far(self) -> float | None:
        """Estimate the cost for a notice; None when it is not known."""
        try:
            return sum(self.estimated_parts().values()) if self.plan else None
        except (FruitsError, BotoCoreError, ClientError) as error:
            log.warning("What the run has cost is not known: %s", error)
            return None

    def estimated_parts(self, spot_discount: bool = True) -> dict[str, float]:
        """Estimate the euros that this run's clusters have cost so far, by part, from the timelines of their nodes."""
        prices, now = load_prices(self.region), datetime.now(UTC)
        disk_gib = disks(load_profile(self.plan.profile).instance_fleets) if self.plan else {}
        endpoints = self.settings.interface_endpoints
        total = dict.fromkeys(PARTS, 0.0)
        for cluster in self.history():
            nodes = instances_of(self.client, cluster.job_flow_id)
            for part, eur in estimate_parts(nodes, prices, now, disk_gib, spot_discount, endpoints).items():
                total[part] += eur
        return total

    def require_plan(self) -> RunPlan | ErasurePlan:
        """Return the plan as its task has made it.

        Raises:
            ConfigError: There is none, or a person has edited it.
        """
        if self.plan is None:
            raise ConfigError(f"{PLAN_TASK} has returned no plan that can be used; clear it, or trigger a new run")
        if self.is_edited:
            raise ConfigError(EDITED)
        if self.code_digest and self.code_digest != (self.journal.read(UPLOAD_TASK) or {}).get("digest"):
            raise ConfigError(f"{UPLOAD_TASK} has not uploaded {self.code_digest!r}, which it has returned; clear it")
        return self.plan
