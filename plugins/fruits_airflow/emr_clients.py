"""Clients of EMR: for calls that may be repeated, and for those that may not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.emr import EmrHook
from botocore.config import Config

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


def emr_hook(aws_conn_id: str | None, region: str | None, forced: Mapping[str, Any] | None = None) -> EmrHook:
    """The provider's hook with options of botocore's: `forced`, then the connection's, then PATIENT.

    The provider leaves out the connection's own, such as a proxy, when it is given any.

    Args:
        aws_conn_id: Airflow's connection; None for none.
        region: EU region.
        forced: options that the connection must not change.
    """
    connections = EmrHook(emr_conn_id=None, aws_conn_id=aws_conn_id, region_name=region).config
    config = Config(**PATIENT).merge(connections).merge(Config(**(forced or {})))
    return EmrHook(emr_conn_id=None, aws_conn_id=aws_conn_id, region_name=region, config=config)


def emr_client(settings: Settings, region: str, forced: Mapping[str, Any] | None = None) -> EMRClient:
    """A client, through Airflow's connection if one is named, that calls no endpoint outside the European Union.

    Args:
        settings: of the deployment.
        region: EU region.
        forced: SINGLE_ATTEMPT for what AWS must not act on twice, see `single_calls`.
    """
    client: EMRClient = CALLED.watch(emr_hook(settings.aws_conn_id, region, forced).get_conn())
    return client
