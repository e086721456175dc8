"""Why a run may be red: what each kind of disturbance leaves in the reason of run.json."""

from __future__ import annotations

import re
from collections.abc import Collection

_NO_ANSWER = r"onnection|imeout|timed out|did not answer|StorageFailed|not ended|Incomplete"
_CHANGED_HANDS = r"LockHeld|RunOvertaken|has worked on the database|is locked|Waiting|overtaken|too many|no longer in"
_TASKS = r"is failed|is skipped|is None|is upstream_failed|is removed|left no metrics|planned nothing|no event from"
PATTERNS = {
    "lost": _NO_ANSWER,
    "cut": _NO_ANSWER,
    "delayed": _NO_ANSWER,
    "held": _NO_ANSWER + "|deadline",
    "refused": (
        "AccessDenied|AccessRefused|Forbidden|Throttl|SlowDown|Expired|Internal|Unavailable|Conflict|reached max|"
        "status 5|protected"
    ),
    "stale": "ClusterLost|does not know|TERMINATED|shutting down",
    "backward": "ClusterLost|does not know|TERMINATED|shutting down",
    "stays": r"STARTING|BOOTSTRAPPING|TERMINATING|minutes \(start_timeout",
    "bootstrap_fails": "bootstrap|BOOTSTRAP_FAILURE",
    "cluster_lost": r"INSTANCE_FAILURE|master node|TERMINATED|shutting down",
    "step_hangs": r"deadline|cancelled|CANCELLED",
    "step_killed": r"is FAILED|exit",
    "disk_full": "No space left",
    "logs_late": r"is FAILED",
    "kill_attempt": _TASKS,
    "stop_airflow": _TASKS + "|deadline|auto-terminated|cancelled|TERMINATED|shutting down",
    "restart_triggerer": _TASKS,
    "clear_task": _TASKS + "|" + _CHANGED_HANDS + "|CANCELLED|USER_REQUEST|changed while",
    "clear_failed": _TASKS + "|" + _CHANGED_HANDS,
    "mark_failed": _TASKS,
    "run": _CHANGED_HANDS,
    "erase": _CHANGED_HANDS,
    "removed": "no longer in|RunRefused",
}


def unexplained(reason: str, causes: Collection[str]) -> str | None:
    """Return what is wrong with the reason of a red run, given the kinds of what disturbed it; None for nothing."""
    if any(re.search(PATTERNS[cause], reason) for cause in causes):
        return None
    return f"{reason!r} names none of {', '.join(sorted(causes)) or 'nothing that disturbed it'}"
