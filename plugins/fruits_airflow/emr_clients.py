"""Clients of EMR: for calls that may be repeated, and for those that may not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.emr import EmrHook

from fruits_airflow.endpoints import CALLED
from fruits_airflow.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient

# AWS throttles per account, so whoever else is busy there is waited for: half a minute, mostly.
PATIENT: Mapping[str, Any] = {
    "connect_timeout": 10,
    "retries": {"mode": "standard", "total_max_attempts": 8},
}
SINGLE_ATTEMPT: Mapping[str, Any] = {"retries": {"total_max_attempts": 1}}


def emr_client(settings: Settings, region: str, config: Mapping[str, Any] = PATIENT) -> EMRClient:
    """A client, through Airflow's connection if one is named, that calls no endpoint outside the European Union.

    Args:
        settings: of the deployment.
        region: EU region.
        config: botocore's; SINGLE_ATTEMPT for what AWS must not act on twice, see `single_calls`.
    """
    hook = EmrHook(
        emr_conn_id=None, aws_conn_id=settings.aws_conn_id, region_name=region, config=dict(config)
    )
    client: EMRClient = CALLED.watch(hook.get_conn())
    return client
