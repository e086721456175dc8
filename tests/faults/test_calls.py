"""Faults of AWS, one run of the real DAG each, without a scheduler: what was armed strikes, and the invariants hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults import invariants
from tests.faults.cases import CASES, Case
from tests.faults.world import Deployment, Pipeline

pytestmark = pytest.mark.timeout(240)


def parameters() -> list[Any]:
    return [pytest.param(case, id=case.id, marks=[] if case.quick else [pytest.mark.slow]) for case in CASES]


@pytest.mark.parametrize("case", parameters())
def test_the_invariants_hold(
    case: Case,
    deployment: Deployment,
    pipeline: Pipeline,
    undisturbed: str,
    record: Callable[..., list[str]],
    seed: int,
) -> None:
    broken = record(case.fault, case.moment, "scripted", case.what)
    numbers = [deployment.aws.arm(**{"seed": seed} | one) for one in case.armed]
    run = pipeline.run()
    struck = [deployment.aws.fault(number)["struck"] for number in numbers]
    deployment.aws.disarm()

    assert all(struck), f"a fault that never struck shows nothing: {struck}"
    allowed = {"clusters": case.clusters, "red_though_published": case.red_though_published}
    broken += invariants.check(deployment, run, invariants.scripted_tables, **allowed)
    assert broken == [], pipeline.tail()
    assert (deployment.record(run.run_id) or {})["state"] == case.end, pipeline.tail()

    again = pipeline.run(force=True)
    broken += invariants.check(deployment, again, invariants.scripted_tables)
    if invariants.digest(invariants.scripted_tables(deployment)) != undisturbed:
        broken.append("another night over the same photos gave another result")
    assert broken == []
    assert again.state == "success", pipeline.tail()
