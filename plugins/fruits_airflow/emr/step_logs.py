"""The tail of a step's own output, read from the cluster's LogUri.

EMR lays it out as `<LogUri>/<cluster>/steps/<step>/{stderr,stdout,controller}.gz` and uploads it every few minutes.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.emr.clusters import Cluster
from fruits_airflow.emr.steps import Step
from fruits_airflow.storage.inflate import InflateError, inflate

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

TAIL_LINES = 60
TOGETHER_S = 10.0  # one upload brings both logs, not quite at once; of a silent step maybe only one
_SPARK_INFO = re.compile(
    r"\d\d/\d\d/\d\d \d\d:\d\d:\d\d INFO "
)  # would fill the tail: Spark says farewell at length
MAX_LOG_BYTES = 256 * 1024 * 1024  # inflated; a step may write without end
TAIL_BYTES = 1024 * 1024
MAX_LINE = 10_000


def step_log_prefix(log_uri: str, job_flow_id: str, step_id: str) -> tuple[str, str]:
    """Bucket and key prefix of a step's logs; LogUri may say `s3n://`, as the console does."""
    parts = urlsplit(log_uri)
    folder = parts.path.strip("/")
    return parts.netloc, f"{folder}/{job_flow_id}/steps/{step_id}/".lstrip("/")


def show_tails(
    client: S3Client, cluster: Cluster, step: Step, wait_s: float, poll_s: float
) -> Mapping[str, list[str]]:
    """Writes the last lines of a step's output to the task's log; returns them, see `read_tails`."""
    tails = read_tails(client, cluster.log_uri, cluster.job_flow_id, step.step_id, wait_s, poll_s)
    for name in ("stdout", "stderr"):
        lines = tails.get(name)
        if lines is None:
            log.error("%s of %s is not there, or not yet: see the task's link", name, step.step_id)
            continue
        log.error("%s of %s, last %d lines:", name, step.name, len(lines))
        for line in lines:
            log.error("%s| %s", name, line)
    return tails


def read_tails(
    client: S3Client, log_uri: str, job_flow_id: str, step_id: str, wait_s: float, poll_s: float
) -> Mapping[str, list[str]]:
    """The last lines of a step's stdout and stderr, by name.

    Waits up to `wait_s` seconds for late logs, and once stderr is there no more than TOGETHER_S for stdout; what has
    not come by then is absent. Never raises for what it cannot read: the step's failure is the message, its log only
    explains it.
    """
    if not log_uri:
        log.warning("The cluster has no LogUri; no log of %s to show", step_id)
        return {}
    bucket, prefix = step_log_prefix(log_uri, job_flow_id, step_id)
    give_up = time.monotonic() + wait_s
    while True:
        tails = {
            name: tail
            for name in ("stdout", "stderr")
            if (tail := _tail(client, bucket, prefix, name)) is not None
        }
        if "stderr" in tails:
            give_up = min(give_up, time.monotonic() + TOGETHER_S)
        if len(tails) == 2 or time.monotonic() >= give_up:
            return tails
        log.info("Not all logs of %s are below s3://%s/%s yet; looking again", step_id, bucket, prefix)
        time.sleep(min(poll_s, max(0.0, give_up - time.monotonic())))


def _tail(client: S3Client, bucket: str, prefix: str, name: str) -> list[str] | None:
    for key in (f"{prefix}{name}.gz", f"{prefix}{name}"):
        try:
            body = client.get_object(Bucket=bucket, Key=key)["Body"]
            return _last_lines(inflate(body, MAX_LOG_BYTES))
        except (ClientError, BotoCoreError) as error:
            log.debug("s3://%s/%s: %s", bucket, key, error)
    return None


def _last_lines(pieces: Iterator[bytes]) -> list[str]:
    """The last lines of a log, without what Spark reports of itself; only its last TAIL_BYTES are kept in memory."""
    kept = b""
    try:
        for piece in pieces:
            kept = (kept + piece)[-TAIL_BYTES:]
    except InflateError as error:
        log.warning("A log is cut short or corrupt, or too large (%s); showing what is readable of it", error)
    lines = kept.decode("utf-8", errors="replace").splitlines()
    return [line[:MAX_LINE] for line in lines if not _SPARK_INFO.match(line)][-TAIL_LINES:]
