"""The XCom of the task `plan`, read by every later task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.settings import Settings
from fruits_airflow.cost.estimate import fleets_eur_per_hour
from fruits_airflow.cost.prices import load_prices
from fruits_airflow.emr.cluster_body import load_profile
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


def test_whoever_edits_the_plan_has_nothing_run_by_it(run: RunContext, plan: dict[str, Any]) -> None:
    """Each part of it: what the jobs are told, the gates, the place, the price."""
    edits: list[Any] = [{name: value} for name in plan for value in ("edited", 0.0, 1, True, None, [], "fruits_demo")]
    plans = [edited for edit in edits if (edited := read_plan(plan | edit)) not in (None, run.plan)]
    assert len({name for edited in plans for name, value in edited if value != getattr(run.plan, name)}) > 40
    for edited in plans:
        for use in (replace(run, plan=edited).body, lambda: replace(run, plan=edited).step("load_images")):  # noqa: B023
            with pytest.raises(ConfigError, match="has a person edited it"):
                use()
    run.body()


def test_a_plan_that_no_task_has_kept_is_not_used(run: RunContext) -> None:
    """`plan` may be marked as success, and its result added by hand."""
    run.journal.forget("plan")
    with pytest.raises(ConfigError, match="has a person edited it"):
        run.step("load_images")


def test_no_digest_chooses_code_that_no_task_has_uploaded(run: RunContext) -> None:
    """A notebook may write `logs/*`, and `code/` has the bundles of earlier releases, with their weaknesses."""
    arguments = run.step("load_images")["HadoopJarStep"]["Args"]
    assert f"s3://{run.settings.lake_bucket}/code/{run.code_digest}/load_images.py" in arguments
    for digest in ("../logs/evil", "x/../../logs/evil", "0ld"):
        with pytest.raises(ConfigError, match="upload_code has not uploaded"):
            replace(run, code_digest=digest).step("load_images")


def test_no_edited_plan_raises_the_ceiling_of_the_settings(
    make_run: Callable[..., RunContext], account: Settings, plan: dict[str, Any]
) -> None:
    run = make_run(settings=replace(account, max_cost_eur=0.2))
    kept = read_plan(plan | {"max_cost_eur": 1e6, "eur_per_hour": 1e-9})
    assert kept is not None
    run.keep(kept)
    body = replace(run, plan=kept).body()
    [deadline] = [tag["Value"] for tag in body["Tags"] if tag["Key"] == "deadline"]
    eur_per_hour = fleets_eur_per_hour(load_profile(plan["profile"]).instance_fleets, load_prices(run.region))
    assert datetime.fromisoformat(deadline) <= datetime.now(UTC) + timedelta(hours=0.2 / eur_per_hour)
