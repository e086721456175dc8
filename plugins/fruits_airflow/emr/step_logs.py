"""Read the end of a step's own output from the cluster's LogUri.

EMR uploads it every few minutes as `<LogUri>/<cluster>/steps/<step>/{stderr,stdout,controller}.gz`.
"""

import logging
import re
import time
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.config.aws_types import S3Client
from fruits_airflow.emr.clusters import Cluster
from fruits_airflow.emr.steps import Step
from fruits_airflow.storage.inflate import InflateError, inflate

log = logging.getLogger(__name__)

TAIL_LINES = 60
TAIL_BYTES = 1024 * 1024
MAX_LINE = 10_000
MAX_LOG_BYTES = 256 * 1024 * 1024  # decompressed; a step may write without end
STDOUT_WAIT_S = 10.0  # EMR uploads all logs nearly at once, but a step may write only stderr
_NAMES = ("stdout", "stderr", "controller")
_SPARK_INFO = re.compile(r"\d\d/\d\d/\d\d \d\d:\d\d:\d\d INFO ")  # Spark's shutdown would fill the tail


def step_log_prefix(log_uri: str, job_flow_id: str, step_id: str) -> tuple[str, str]:
    """Return bucket and key prefix of a step's logs; LogUri may begin with `s3n://`, as in the console."""
    parts = urlsplit(log_uri)
    folder = parts.path.strip("/")
    return parts.netloc, f"{folder}/{job_flow_id}/steps/{step_id}/".lstrip("/")


def show_tails(client: S3Client, cluster: Cluster, step: Step, wait_s: float, poll_s: float) -> Mapping[str, list[str]]:
    """Log the last lines of a step's output, and return them as `read_tails` does."""
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
    """Return the last lines of a step's stdout, stderr and controller log, by name.

    Wait up to `wait_s` seconds for late logs, but no more than STDOUT_WAIT_S for the others after stderr. Omit a log
    that is missing or unreadable: the step's failure is the error, and its log only explains it.
    """
    if not log_uri:
        log.warning("The cluster has no LogUri; no log of %s to show", step_id)
        return {}
    bucket, prefix = step_log_prefix(log_uri, job_flow_id, step_id)
    give_up = time.monotonic() + wait_s
    while True:
        logs = {name: _tail(client, bucket, prefix + name) for name in _NAMES}
        tails = {name: lines for name, lines in logs.items() if lines is not None}
        if "stderr" in tails:
            give_up = min(give_up, time.monotonic() + STDOUT_WAIT_S)
        if len(tails) == len(_NAMES) or time.monotonic() >= give_up:
            return tails
        log.info("Not all logs of %s are below s3://%s/%s yet; trying again", step_id, bucket, prefix)
        time.sleep(min(poll_s, max(0.0, give_up - time.monotonic())))


def _tail(client: S3Client, bucket: str, key: str) -> list[str] | None:
    for candidate in (f"{key}.gz", key):
        try:
            body = client.get_object(Bucket=bucket, Key=candidate)["Body"]
            return _last_lines(inflate(body, MAX_LOG_BYTES))
        except (ClientError, BotoCoreError) as error:
            log.debug("s3://%s/%s: %s", bucket, candidate, error)
    return None


def _last_lines(chunks: Iterator[bytes]) -> list[str]:
    """Return the last lines of a log without Spark's own INFO lines; keep only TAIL_BYTES in memory."""
    tail = b""
    try:
        for chunk in chunks:
            tail = (tail + chunk)[-TAIL_BYTES:]
    except InflateError as error:
        log.warning("A log is truncated, corrupt or too large (%s); showing its readable part", error)
    lines = tail.decode("utf-8", errors="replace").splitlines()
    return [line[:MAX_LINE] for line in lines if not _SPARK_INFO.match(line)][-TAIL_LINES:]
