"""The page of a step's logs: EMR's controller, stdout and stderr, as text.

A node writes these logs, so that their content is not trusted: the page reads a bounded part of each and escapes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fruits_airflow.emr.step_logs import step_log_prefix
from fruits_airflow.report.page import render_template
from fruits_airflow.storage.inflate import InflateError, inflate

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

NAMES = ("stdout", "stderr", "controller")  # a job of ours names its error in stdout
SHOWN_BYTES = 128 * 1024  # of the end of each log
READ_BYTES = 64 * 1024 * 1024  # inflated; the end of a longer log is not looked for


@dataclass(frozen=True)
class StepLog:
    """One log of a step."""

    name: str  # stdout, stderr or controller
    text: str | None  # the end of what it says; None when it is not in the bucket
    note: str | None = None  # what the text leaves out, and why; None when it is whole


def render_step(client: S3Client, bucket: str, job_flow_id: str, step_id: str) -> str:
    """Render the page of a step from its logs in the lake.

    Raises:
        ClientError: S3 refuses to hand a log out.
    """
    _, prefix = step_log_prefix(f"s3://{bucket}/logs/", job_flow_id, step_id)
    view = {
        "step_id": step_id,
        "cluster_id": job_flow_id,
        "folder": f"s3://{bucket}/{prefix}",
        "logs": list(_read_logs(client, bucket, prefix)),
        "home": "../../",
        "script": "../../page.js",
    }
    return render_template("step.html.j2", view)


def _read_logs(client: S3Client, bucket: str, prefix: str) -> Iterator[StepLog]:
    for name in NAMES:
        try:
            body = client.get_object(Bucket=bucket, Key=f"{prefix}{name}.gz")["Body"]
        except client.exceptions.NoSuchKey:
            yield StepLog(name, None)
            continue
        tail, total, note = b"", 0, None
        try:
            for piece in inflate(body, READ_BYTES):
                total += len(piece)
                tail = (tail + piece)[-SHOWN_BYTES:]
        except InflateError as error:
            note = str(error)
        if total > SHOWN_BYTES:
            cut = f"only the last {SHOWN_BYTES:,} of {total:,} bytes are shown"
            note = f"{note}; {cut}" if note else cut
        yield StepLog(name, tail.decode("utf-8", errors="replace"), note)
