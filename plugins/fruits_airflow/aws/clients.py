"""Clients of AWS: for calls that may be repeated, and for those that may not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.amazon.aws.hooks.emr import EmrHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from botocore.config import Config

from fruits_airflow.aws.endpoints import CALLED
from fruits_airflow.config.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient
    from mypy_boto3_s3 import S3Client

# AWS throttles per account, so whoever else is busy there is waited for: half a minute, mostly.
PATIENT: Mapping[str, Any] = {
    "connect_timeout": 10,
    "retries": {"mode": "standard", "total_max_attempts": 8},
}
SINGLE_ATTEMPT: Mapping[str, Any] = {"retries": {"total_max_attempts": 1}}

_Hook = TypeVar("_Hook", bound=AwsBaseHook)


def emr_hook(aws_conn_id: str | None, region: str | None, forced: Mapping[str, Any] | None = None) -> EmrHook:
    """The provider's hook with options of botocore's: `forced`, then the connection's, then PATIENT.

    Args:
        aws_conn_id: Airflow's connection; None for none.
        region: EU region.
        forced: options that the connection must not change.
    """
    return _hook(EmrHook, forced, emr_conn_id=None, aws_conn_id=aws_conn_id, region_name=region)


def emr_client(settings: Settings, region: str, forced: Mapping[str, Any] | None = None) -> EMRClient:
    """A client, through Airflow's connection if one is named, that calls no endpoint outside the European Union.

    Args:
        settings: of the deployment.
        region: EU region.
        forced: SINGLE_ATTEMPT for what AWS must not act on twice, see `single_calls`.
    """
    client: EMRClient = CALLED.watch(emr_hook(settings.aws_conn_id, region, forced).get_conn())
    return client


def s3_client(settings: Settings) -> S3Client:
    """An S3 client of the deployment's region, as `emr_client` makes one of EMR."""
    hook = _hook(S3Hook, aws_conn_id=settings.aws_conn_id, region_name=settings.region)
    client: S3Client = CALLED.watch(hook.get_conn())
    return client


def kms_client(settings: Settings, region: str) -> Any:
    """A KMS client of a region, as `emr_client` makes one of EMR."""
    hook = _hook(AwsBaseHook, aws_conn_id=settings.aws_conn_id, region_name=region, client_type="kms")
    return CALLED.watch(hook.get_conn())


def _hook(kind: type[_Hook], forced: Mapping[str, Any] | None = None, **of: Any) -> _Hook:
    """A hook whose options are merged here: the provider leaves out the connection's, such as a proxy, if given any."""
    config = Config(**PATIENT).merge(kind(**of).config).merge(Config(**(forced or {})))
    return kind(**of, config=config)
