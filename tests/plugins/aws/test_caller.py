"""Airflow acts as the role of its deployment, or the plan refuses."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from airflow.sdk.exceptions import AirflowFailException
from fruits_airflow.aws import clients
from fruits_airflow.aws.clients import require_role
from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.settings import Settings
from fruits_airflow.operators.erasure_plan import ErasurePlanOperator
from fruits_airflow.operators.plan import PlanOperator
from fruits_airflow.storage.lake import Lake, run_key

from tests.plugins import laptop

ROLE = "arn:aws:iam::123456789012:role/fruits-x-airflow-eu-west-1"
SESSION = "arn:aws:sts::123456789012:assumed-role/fruits-x-airflow-eu-west-1/botocore-session"


@pytest.fixture
def as_the_role(account: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Act with credentials that STS has issued for the role."""
    issued = laptop.client("sts").assume_role(RoleArn=ROLE, RoleSessionName="botocore-session")["Credentials"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", issued["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", issued["SecretAccessKey"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", issued["SessionToken"])
    boto3.DEFAULT_SESSION = None


@pytest.mark.usefixtures("as_the_role")
@pytest.mark.parametrize("role", [ROLE, None])
def test_the_role_of_the_deployment_may_act(account: Settings, role: str | None) -> None:
    require_role(replace(account, airflow_role=role))


def test_another_caller_is_refused(account: Settings) -> None:
    refusal = r"airflow_role: Airflow acts as arn:aws:\S+ and not as arn.*that assumes it.*FRUITS_AIRFLOW_ROLE="
    with pytest.raises(ConfigError, match=refusal):
        require_role(replace(account, airflow_role=ROLE))


def test_a_deployment_without_the_setting_asks_nobody(account: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_hook", lambda *_, **__: pytest.fail("asked"))
    require_role(account)


class Sts:
    """A hook, and the client that it returns, for which Airflow acts as `arn`."""

    meta = SimpleNamespace(events=SimpleNamespace(register=lambda *_, **__: None))

    def __init__(self, arn: str) -> None:
        self.arn = arn

    def get_conn(self) -> Sts:
        return self

    def get_caller_identity(self) -> dict[str, str]:
        return {"Arn": self.arn}


@pytest.mark.parametrize(
    ("arn", "role", "is_refused"),
    [
        (SESSION, ROLE, False),
        (SESSION, "arn:aws:iam::123456789012:role/team/fruits-x-airflow-eu-west-1", False),  # sessions show no path
        (SESSION.replace("aws", "aws-eusc"), ROLE.replace("aws", "aws-eusc"), False),
        (SESSION.replace("123456789012", "999999999999"), ROLE, True),
        (SESSION.replace("-airflow-", "-analyst-"), ROLE, True),
        (SESSION.replace("fruits-x", "fruits-xy"), ROLE, True),
        (SESSION.replace("-airflow-", ".airflow."), ROLE.replace("-airflow-", ".airflow."), False),
        (SESSION, ROLE.replace("-airflow-", ".airflow."), True),
        ("arn:aws:iam::123456789012:user/fruits-x-airflow-eu-west-1", ROLE, True),
        ("arn:aws:iam::123456789012:root", ROLE, True),
        ("arn:aws:sts::123456789012:federated-user/fruits-x-airflow-eu-west-1", ROLE, True),
    ],
)
def test_a_caller_is_compared_by_account_and_name(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, arn: str, role: str, is_refused: bool
) -> None:
    monkeypatch.setattr(clients, "_hook", lambda *_, **__: Sts(arn))
    settings = replace(settings, airflow_role=role)
    if is_refused:
        with pytest.raises(ConfigError, match="airflow_role"):
            require_role(settings)
    else:
        require_role(settings)


def test_sts_is_asked_in_the_region_of_the_deployment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    hosts: list[str] = []

    def note(client: Any) -> Any:
        hosts.append(client.meta.endpoint_url)
        return Sts(SESSION)

    monkeypatch.setattr(clients.CALLED, "watch", note)
    require_role(replace(settings, airflow_role=ROLE))
    assert hosts == ["https://sts.eu-west-1.amazonaws.com"]


def test_both_plans_refuse_another_caller(account: Settings) -> None:
    settings = replace(account, airflow_role=ROLE)
    context: Any = {
        "run_id": "manual__2026-01-01T00:00:00+00:00",
        "dag": SimpleNamespace(dag_id="fruits_pipeline"),
        "dag_run": SimpleNamespace(conf={}),
        "params": {"region": account.region, "limit": None, "input_prefix": account.raw_prefix},
    }
    with pytest.raises(AirflowFailException, match="airflow_role"):
        PlanOperator(task_id="plan", settings=settings).work(context)
    record = Lake(laptop.client("s3"), account.lake_bucket).read_json(run_key(context["run_id"], "run.json"))
    assert record is not None
    assert record["state"] == "refused"
    assert record["reason"].startswith("ConfigError: airflow_role")
    with pytest.raises(AirflowFailException, match="airflow_role"):
        ErasurePlanOperator(task_id="plan", settings=settings).work(context)
