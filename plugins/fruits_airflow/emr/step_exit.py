"""Why a step failed, in one sentence, and whether the same step may succeed when it is run again.

EMR's FailureDetails often hold "Unknown Error." alone. The exit status is in the last lines of the controller's log:
``WARN Step failed with exitCode 137 and took 2586 seconds``. A job of ours names its error in the last
line of stderr, which `spark-submit` in client mode merges into its own stdout (Spark's PythonRunner).
"""

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fruits_airflow.emr.steps import Step

_STATUS = re.compile(r"\bWARN Step failed with exitCode (-?\d+)\b")
_TRANSIENT = re.compile(
    r"ExecutorLostFailure|Lost executor|FetchFailed|Container from a bad node|Container released on a \*lost\* node"
    r"|node (?:was )?lost|decommission|SparkContext (?:was|has been) shut ?down|Java side is empty",
    re.IGNORECASE,
)
"""What Spark writes when an executor, its node or the driver's JVM has gone."""


@dataclass(frozen=True)
class StepExit:
    """How a failed step ended."""

    cause: str
    is_transient: bool


def explain(step: Step, logs: Mapping[str, Sequence[str]]) -> StepExit:
    """Explain a failed step from the last lines of its logs (`step_logs.read_tails`)."""
    if step.state != "FAILED":  # somebody, or EMR at the end of its cluster, has cancelled it
        return StepExit(step.reason or "EMR names no reason", is_transient=False)
    statuses = [int(match[1]) for line in logs.get("controller", []) if (match := _STATUS.search(line))]
    status = statuses[-1] if statuses else None
    lines = [*logs.get("stderr", []), *logs.get("stdout", [])]
    error = next((line for line in reversed(lines) if line.startswith("ERROR ")), None)
    if status is not None and status > 128:
        name = {number.value: number.name for number in signal.Signals}.get(status - 128, f"signal {status - 128}")
        advice = ", mostly for lack of memory (spark.driver.memory)" if name == "SIGKILL" else ""
        return StepExit(f"the Spark driver was killed: exit status {status}, {name}{advice}", is_transient=True)
    known = "" if status is None else f" (exit status {status})"
    if error:
        return StepExit(f"{error}{known}", is_transient=_TRANSIENT.search(error) is not None)
    return StepExit(f"{step.reason or 'EMR names no reason'}{known}; see the end of its log", is_transient=False)
