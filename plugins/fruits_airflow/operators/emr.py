"""Operators that can be retried at any moment: each finds what an earlier attempt did before it acts."""

from typing import Any

from airflow.providers.amazon.aws.links.emr import EmrClusterLink
from airflow.providers.amazon.aws.operators.emr import (
    EmrAddStepsOperator,
    EmrCreateJobFlowOperator,
    EmrTerminateJobFlowOperator,
)
from airflow.sdk import Context
from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.code_bundle import verify_code
from fruits_airflow.runs.failures import record_failure
from fruits_airflow.runs.notices import Notice, is_last_attempt, notify
from fruits_airflow.runs.run_context import RunContext


class CreateClusterOperator(EmrCreateJobFlowOperator):
    """Finds or creates the run's cluster, without waiting until it is ready.

    The provider's operator creates a second cluster on a retry, and its `on_kill` fails before RunJobFlow has answered.
    """

    operator_extra_links = (EmrClusterLink(),)  # type: ignore[assignment]

    def __init__(self, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(aws_conn_id=settings.aws_conn_id, emr_conn_id=None, deferrable=False, **kwargs)
        self.settings = settings

    def execute(self, context: Context) -> str:
        """Return the cluster's id."""
        with record_failure(self.settings, context, self.task_id):
            run = RunContext.of(context, self.settings)
            cluster = run.find_or_create()
        run.link_cluster(context, self, cluster.job_flow_id)
        return cluster.job_flow_id

    def on_kill(self) -> None:
        """Do nothing: terminate_cluster ends the cluster by its name."""


class AddStepOperator(EmrAddStepsOperator):
    """Finds or adds the step of a stage on the run's cluster."""

    operator_extra_links = ()  # type: ignore[assignment] # the cluster's are on create_cluster, the step's on wait

    def __init__(self, *, settings: Settings, stage: str, **kwargs: Any) -> None:
        super().__init__(aws_conn_id=settings.aws_conn_id, job_flow_id="", **kwargs)
        self.settings = settings
        self.stage = stage

    def execute(self, context: Context) -> dict[str, str]:  # type: ignore[override]
        """Return `job_flow_id` and `step_id`."""
        with record_failure(self.settings, context, self.stage):
            run = RunContext.of(context, self.settings)
            verify_code(run.lake, run.code_digest)
            cluster = run.find_or_create()
            step = run.step_submitter(cluster.job_flow_id).find_or_add(run.step(self.stage))
        return {"job_flow_id": cluster.job_flow_id, "step_id": step.step_id}


class TerminateClusterOperator(EmrTerminateJobFlowOperator):
    """Ends every cluster of the run and waits until each has ended.

    Finds them by name and tags, since the task that created a cluster may have died before it returned the id. The
    provider's operator requires an id, waits only if it defers, and then fails on TERMINATED_WITH_ERRORS.
    """

    operator_extra_links = ()  # type: ignore[assignment]

    def __init__(self, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(aws_conn_id=settings.aws_conn_id, job_flow_id="", deferrable=False, **kwargs)
        self.settings = settings

    def execute(self, context: Context) -> None:
        """End the clusters; notify about a cluster that does not end.

        Raises:
            TimeoutError: A cluster has not ended in time; a retry continues.
            ClientError, BotoCoreError: EMR or S3 refused or did not answer; a retry continues.
        """
        run = RunContext.of(context, self.settings)
        try:
            ended = run.lifecycle.end_all(timeout_s=self.settings.terminate_timeout_minutes * 60)
        except (TimeoutError, BotoCoreError, ClientError) as error:
            # A TimeoutError comes after minutes of waiting; other errors mostly disappear with the next attempt.
            if isinstance(error, TimeoutError) or is_last_attempt(context):
                notice = Notice("cluster-will-not-die", run.identity, str(error), run.cost_so_far(), self.task_id)
                notify(self.settings, notice)
            raise
        self.log.info("%d clusters ended, none is left", len(ended))
