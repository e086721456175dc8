"""The XCom of the task `plan`, read by every later task."""

from __future__ import annotations

from typing import Any

import pytest
from fruits_airflow.config.errors import ConfigError
from fruits_airflow.runs.plan import ErasurePlan, RunPlan, read_plan
from fruits_airflow.runs.run_context import RunContext

from tests.plugins.airflow_context import context_of


def test_the_xcom_says_whether_it_is_of_a_run_or_of_an_erasure(plan: dict[str, Any]) -> None:
    assert isinstance(read_plan(plan), RunPlan)
    databases = {"demo_database": "fruits_demo", "notebook_database": "fruits_notebook"}
    erasure = plan | databases | {"erasure": "s3://lake/e", "photos": 2, "databases": ["fruits"]}
    assert isinstance(read_plan(erasure), ErasurePlan)


@pytest.mark.parametrize("xcom", [None, {}, {"run_id": "r1"}, {"erasure": "s3://lake/erasures/r1"}])
def test_a_plan_that_cannot_be_used_counts_as_none(xcom: dict[str, Any] | None) -> None:
    assert read_plan(xcom) is None


def test_without_a_plan_that_can_be_used_a_cluster_is_ended_and_none_is_created(run: RunContext) -> None:
    context = context_of(run)
    context["ti"].xcoms["plan"] = {"run_id": run.identity.run_id}
    unplanned = RunContext.of(context, run.settings)
    with pytest.raises(ConfigError, match="plan has returned no plan that can be used; clear it"):
        unplanned.find_or_create()
    run.find_or_create()
    assert len(unplanned.lifecycle.end_all(timeout_s=30)) == 1
