"""Airflow's cluster policy for the fault tests: a minute of the deployment's patience takes a second or two.

Airflow reads it from `$AIRFLOW_HOME/config`; the product's DAGs and operators are used as they are.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

SECONDS_PER_MINUTE = float(os.environ.get("FAULTS_SECONDS_PER_MINUTE", "1"))
RETRY_SECONDS = float(os.environ.get("FAULTS_RETRY_SECONDS", "0.3"))


def task_policy(task: Any) -> None:
    """Shortens pauses between attempts, and the timeouts that settings count in whole minutes."""
    task.retry_delay = min(task.retry_delay, timedelta(seconds=RETRY_SECONDS))
    task.max_retry_delay = timedelta(seconds=RETRY_SECONDS)
    task.retry_exponential_backoff = 0
    settings = getattr(task, "settings", None)
    if settings is not None and isinstance(settings.start_timeout_minutes, int):
        for name in ("start", "step", "terminate"):
            minutes = getattr(settings, f"{name}_timeout_minutes")
            # frozen, and refuses less than a minute: rightly so, but for a test's clock
            object.__setattr__(settings, f"{name}_timeout_minutes", minutes * SECONDS_PER_MINUTE / 60)
