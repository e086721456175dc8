"""AWS clients, for calls that may be repeated and for those that may not, and the check of whom they act as."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.amazon.aws.hooks.emr import EmrHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from botocore.config import Config

from fruits_airflow.aws.endpoints import CALLED
from fruits_airflow.config.aws_types import EMRClient, S3Client
from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.settings import Settings

# AWS throttles per account: eight attempts outlast about half a minute of other callers.
PATIENT: Mapping[str, Any] = {"connect_timeout": 10, "retries": {"mode": "standard", "total_max_attempts": 8}}
SINGLE_ATTEMPT: Mapping[str, Any] = {"retries": {"total_max_attempts": 1}}

_Hook = TypeVar("_Hook", bound=AwsBaseHook)


def emr_hook(aws_conn_id: str | None, region: str | None, forced: Mapping[str, Any] | None = None) -> EmrHook:
    """Return the provider's hook, with the botocore options `forced`, then the connection's, then PATIENT."""
    return _hook(EmrHook, forced, emr_conn_id=None, aws_conn_id=aws_conn_id, region_name=region)


def emr_client(settings: Settings, region: str, forced: Mapping[str, Any] | None = None) -> EMRClient:
    """Return an EMR client of an EU region that calls no endpoint outside the European Union.

    `forced` is SINGLE_ATTEMPT for calls that AWS must not act on twice (emr/announced_requests.py).
    """
    client: EMRClient = CALLED.watch(emr_hook(settings.aws_conn_id, region, forced).get_conn())
    return client


def s3_client(settings: Settings) -> S3Client:
    """Return an S3 client of the deployment's region that calls no endpoint outside the European Union."""
    hook = _hook(S3Hook, aws_conn_id=settings.aws_conn_id, region_name=settings.region)
    client: S3Client = CALLED.watch(hook.get_conn())
    return client


def kms_client(settings: Settings, region: str) -> Any:
    """Return a KMS client of a region that calls no endpoint outside the European Union."""
    hook = _hook(AwsBaseHook, aws_conn_id=settings.aws_conn_id, region_name=region, client_type="kms")
    return CALLED.watch(hook.get_conn())


def require_role(settings: Settings) -> None:
    """Refuse to act as another caller than the role that the setting `airflow_role` names, where it names one.

    Raises:
        ConfigError: AWS takes Airflow for a user, another role, or a role of another account.
        ClientError, BotoCoreError: STS does not answer now; another attempt asks again.
    """
    role = settings.airflow_role
    if role is None:
        return
    hook = _hook(AwsBaseHook, aws_conn_id=settings.aws_conn_id, region_name=settings.region, client_type="sts")
    caller: str = CALLED.watch(hook.get_conn()).get_caller_identity()["Arn"]
    account, name = role.split(":")[4], role.rsplit("/", 1)[-1]  # the ARN of a session shows no path
    if not re.fullmatch(rf"arn:[^:]+:sts::{account}:assumed-role/{re.escape(name)}/[^/]+", caller):
        raise ConfigError(
            f"airflow_role: Airflow acts as {caller} and not as {role}, which alone is bound to its region; use a "
            "profile or connection that assumes it, or unset airflow_role (FRUITS_AIRFLOW_ROLE=) to act as another"
        )


def _hook(kind: type[_Hook], forced: Mapping[str, Any] | None = None, **arguments: Any) -> _Hook:
    """Merge the options of botocore here: with a `config`, the provider ignores the connection's, such as a proxy."""
    config = Config(**PATIENT).merge(kind(**arguments).config).merge(Config(**(forced or {})))
    return kind(**arguments, config=config)
