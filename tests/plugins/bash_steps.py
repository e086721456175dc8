"""Steps that run a line of bash, and the wait for their end."""

from __future__ import annotations

import time
from typing import Any

from fruits_airflow.emr.steps import TERMINAL_STATES, Step, StepSubmitter, describe_step


def bash(command: str, name: str = "load_images/1") -> dict[str, Any]:
    return {
        "Name": name,
        "ActionOnFailure": "CANCEL_AND_WAIT",
        "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["bash", "-c", command]},
    }


def ended(submitter: StepSubmitter, step_id: str) -> Step:
    for _ in range(200):
        step = describe_step(submitter.client, submitter.job_flow_id, step_id)
        if step.state in TERMINAL_STATES:
            return step
        time.sleep(0.1)
    raise AssertionError(step)
