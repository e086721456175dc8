"""Operators that may be run again at any moment: each looks for what an earlier attempt did before it acts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.links.emr import EmrClusterLink
from airflow.providers.amazon.aws.operators.emr import (
    EmrAddStepsOperator,
    EmrCreateJobFlowOperator,
    EmrTerminateJobFlowOperator,
)
from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.code_bundle import verify_code
from fruits_airflow.runs.failures import record_failure
from fruits_airflow.runs.notices import Notice, is_last_attempt, notify
from fruits_airflow.runs.run_context import RunContext

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class CreateClusterOperator(EmrCreateJobFlowOperator):
    """Makes the run's cluster, or adopts the one that it has; waits for nothing.

    The provider's operator makes a second cluster on a retry, and its `on_kill` fails before RunJobFlow has answered.

    Args:
        settings: of the deployment.
        **kwargs: of the task.
    """

    operator_extra_links = (EmrClusterLink(),)  # type: ignore[assignment]

    def __init__(self, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(aws_conn_id=settings.aws_conn_id, emr_conn_id=None, deferrable=False, **kwargs)
        self.settings = settings

    def execute(self, context: Context) -> str:
        """Returns the cluster's id."""
        with record_failure(self.settings, context, self.task_id):
            run = RunContext.of(context, self.settings)
            cluster = run.adopt_or_create()
        run.link_cluster(context, self, cluster.job_flow_id)
        return cluster.job_flow_id

    def on_kill(self) -> None:
        """Does nothing: terminate_cluster ends whatever was made, by its name."""


class AddStepOperator(EmrAddStepsOperator):
    """Adds the step of a stage to the run's cluster, or adopts the one that is there.

    Args:
        settings: of the deployment.
        stage: one of STAGES.
        **kwargs: of the task.
    """

    operator_extra_links = ()  # type: ignore[assignment] # the cluster's are on create_cluster, the step's on wait

    def __init__(self, *, settings: Settings, stage: str, **kwargs: Any) -> None:
        super().__init__(aws_conn_id=settings.aws_conn_id, job_flow_id="", **kwargs)
        self.settings = settings
        self.stage = stage

    def execute(self, context: Context) -> dict[str, str]:  # type: ignore[override]
        """Returns `job_flow_id` and `step_id`."""
        with record_failure(self.settings, context, self.stage):
            run = RunContext.of(context, self.settings)
            verify_code(run.lake, run.code_digest)
            cluster = run.adopt_or_create()
            step = run.step_submitter(cluster.job_flow_id).adopt_or_add(run.step(self.stage))
        return {"job_flow_id": cluster.job_flow_id, "step_id": step.step_id}


class TerminateClusterOperator(EmrTerminateJobFlowOperator):
    """Ends every cluster of the run and watches until each is seen ended.

    Finds them by name and tags: the task that made one may have died before it could tell. The provider's operator
    needs an id, does not wait unless it defers, and then calls TERMINATED_WITH_ERRORS a failure.

    Args:
        settings: of the deployment.
        **kwargs: of the task.
    """

    operator_extra_links = ()  # type: ignore[assignment]

    def __init__(self, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(aws_conn_id=settings.aws_conn_id, job_flow_id="", deferrable=False, **kwargs)
        self.settings = settings

    def execute(self, context: Context) -> None:
        """Ends the clusters; tells of one that does not end.

        Raises:
            TimeoutError: one was not seen ended; a retry goes on.
            ClientError, BotoCoreError: EMR or the lake refused, or did not answer; a retry goes on.
        """
        run = RunContext.of(context, self.settings)
        try:
            ended = run.desk.end_all(timeout_s=self.settings.terminate_timeout_minutes * 60)
        except (TimeoutError, BotoCoreError, ClientError) as error:
            # EMR has had its minutes before a TimeoutError; an error of a call is mostly gone at the next attempt.
            if isinstance(error, TimeoutError) or is_last_attempt(context):
                notice = Notice("cluster-will-not-die", run.identity, str(error), run.cost_so_far())
                notify(self.settings, notice)
            raise
        self.log.info("%d clusters ended, none is left", len(ended))
