"""What the connection says of proxies and patience holds, and what AWS must not act on twice is sent once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from fruits_airflow.aws.clients import PATIENT, SINGLE_ATTEMPT, emr_hook
from fruits_airflow.operators.triggers import StepTrigger


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a site behind a proxy."""
    extra = {
        "config_kwargs": {
            "proxies": {"https": "proxy.example.org:3128"},
            "connect_timeout": 30,
            "retries": {"mode": "standard", "total_max_attempts": 3},
        }
    }
    monkeypatch.setenv("AIRFLOW_CONN_SITE", json.dumps({"conn_type": "aws", "extra": extra}))
    return "site"


@pytest.mark.parametrize(("forced", "attempts"), [({}, 3), (SINGLE_ATTEMPT, 1)])
def test_the_connections_options_hold_but_for_how_often_a_single_request_is_sent(
    connection: str, forced: Mapping[str, Any], attempts: int
) -> None:
    config: Any = emr_hook(connection, "eu-west-1", forced).config
    assert config.proxies == {"https": "proxy.example.org:3128"}
    assert config.connect_timeout == 30
    assert config.retries["total_max_attempts"] == attempts


def test_without_a_connection_everybody_is_patient() -> None:
    config: Any = emr_hook(None, "eu-west-1").config
    assert config.retries == PATIENT["retries"]
    assert config.connect_timeout == PATIENT["connect_timeout"]


def test_what_waits_without_a_worker_is_as_patient_and_takes_the_same_way_out(connection: str) -> None:
    trigger = StepTrigger(
        job_flow_id="j", step_id="s", deadline=0, settle_s=0, consistency_s=0, waiter_delay=1, region_name="eu-west-1"
    )
    trigger.aws_conn_id = None
    assert trigger.hook().config.retries == PATIENT["retries"]  # type: ignore[attr-defined]
    trigger.aws_conn_id = connection
    assert trigger.hook().config.proxies == {"https": "proxy.example.org:3128"}  # type: ignore[attr-defined]
