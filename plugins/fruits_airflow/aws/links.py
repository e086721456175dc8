"""Links to the logs of a step and to folders in the AWS console."""

from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink, Context
from airflow.sdk.configuration import conf
from airflow.sdk.execution_time.xcom import XCom

from fruits_airflow.aws.endpoints import is_simulated
from fruits_airflow.config.aws_types import S3Client

_CONSOLES = {"aws": "console.aws.amazon.com", "aws-eusc": "console.amazonaws-eusc.eu"}


class StepLogLink(BaseOperatorLink):
    """Link from a wait task to the logs of its step, also while it waits."""

    name = "Step logs"
    key = "step_logs"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the address that `persist` stored, or an empty string."""
        return str(XCom.get_value(key=self.key, ti_key=ti_key) or "")

    @classmethod
    def persist(cls, context: Context, address: str) -> None:
        """Store the address and show it at once."""
        context["ti"].xcom_push(key=cls.key, value=address)
        context["ti"].xcom_push(key=cls().xcom_key, value=address)


def airflow_address() -> str:
    """Return the address of Airflow's UI without a slash at its end; empty where `[api] base_url` is not set."""
    return str(conf.get("api", "base_url", fallback=None) or "").rstrip("/")


def step_page_address(job_flow_id: str, step_id: str) -> str:
    """Return the address of the plugin's page of a step's logs (report/web.py)."""
    return f"{airflow_address()}/fruits-runs/steps/{job_flow_id}/{step_id}"


def console_address(client: S3Client, bucket: str, prefix: str) -> str | None:
    """Return the address of a folder in the console; None where the endpoint is not one of AWS."""
    if is_simulated(client):
        return None
    console = _CONSOLES.get(client.meta.partition, _CONSOLES["aws"])
    region = client.meta.region_name
    return f"https://{region}.{console}/s3/buckets/{bucket}?region={region}&prefix={quote(prefix)}"
