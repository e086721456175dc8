"""What the report says of a run that did not end well, or of which little is known."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pytest
from fruits_airflow.report import render
from fruits_airflow.report.page import Navigation

from tests.plugins.measured import blank_record
from tests.plugins.report.pages import Page, swapped


@pytest.mark.parametrize("where", ["run", "stage"])
def test_random_weights_raise_an_alarm_before_anything_else(
    where: str, run: dict[str, Any], stages: dict[str, Any], sample: pa.Table
) -> None:
    if where == "run":
        run["features"]["weights"] = "random"
    else:
        del run["features"]
        stages["featurize"]["features"] = {"weights": "random"}
    alarmed = Page(render(run, stages, sample))
    assert [alarm["role"] for alarm in alarmed.classed("alarm")] == ["alert"]
    assert alarmed.text.index("Weights: random.") < alarmed.text.index("Succeeded")


def titles(page: Page) -> set[str]:
    """Return the panels of a page."""
    return set(re.findall(r"<h2[^>]*>(.*?)</h2>", page.html))


NAVIGATION = Navigation(home="../", script="../page.js", links=())


def test_a_run_that_goes_on_is_not_said_to_have_done_nothing(stages: dict[str, Any]) -> None:
    run = {"state": "running", "region": "eu-west-1"}
    begun = Page(render(run, {}, None, navigation=NAVIGATION))
    assert "Start cluster going on" in begun.text
    assert "Load images not yet" in begun.text
    assert "Region eu-west-1" in begun.text
    for words in ("did not run", "counted no images", "none was created", "neither forecast", "left no"):
        assert words not in begun.text
    loading = Page(render(run, {"load_images": stages["load_images"]}, None, navigation=NAVIGATION))
    assert "Load images done" in loading.text
    assert "Featurize going on" in loading.text
    assert "Terminate not yet" in loading.text


def test_a_run_that_goes_on_shows_its_plan_its_tasks_and_the_time_left(stages: dict[str, Any]) -> None:
    tasks = {"plan": "success", "cluster_ready": "success", "load_images.wait": "deferred"}
    live = {
        "state": "running",
        "tasks": tasks,
        "images": {"seen": 60, "new": 60},
        "seconds": {"total": 41.0, "load_images": 12.0},
        "left": {"total": 38.0, "load_images": 5.0},
        "cluster": {"id": "j-1"},
    }
    page = Page(render(live, {}, None, navigation=NAVIGATION))
    assert "60 seen" in swapped(page.text)
    assert "Time so far 41 s Left, as the last good runs took some 38 s" in page.text
    assert "Start cluster done" in page.text
    assert "Load images going on 12 s about 5.0 s left" in page.text
    late = live | {"left": {"total": 0.0, "load_images": 0.0}}
    assert "Load images going on 12 s takes longer than past runs" in Page(render(late, {}, None)).text
    assert "until then it costs money" not in page.text
    planning = Page(render(live | {"tasks": {"plan": "running"}, "cluster": {}}, {}, None, navigation=NAVIGATION))
    assert "Start cluster not yet" in planning.text
    tasks |= {"load_images.wait": "failed", "terminate_cluster": "running"}
    failed = Page(render(live, {}, None, navigation=NAVIGATION))
    assert "Load images stopped here" in failed.text
    assert "Terminate going on" in failed.text


def test_only_the_page_of_a_run_that_goes_on_is_loaded_again_by_itself(run: dict[str, Any]) -> None:
    def refreshes(record: dict[str, Any], navigation: Navigation | None) -> bool:
        page = Page(render(record, {}, None, navigation=navigation))
        return any(meta.get("http-equiv") == "refresh" for meta in page.all("meta"))

    assert refreshes({"state": "running"}, NAVIGATION)
    assert not refreshes(run, NAVIGATION)
    assert not refreshes({"state": "running"}, None), "report.html changes no more"


@pytest.mark.parametrize("state", ["RUNNING", "TERMINATING", None])
def test_a_cluster_that_was_not_seen_ending_raises_an_alarm(state: str | None, run: dict[str, Any]) -> None:
    run["cluster"]["state"] = state
    text = Page(render(run, {}, None)).text
    assert "Cluster j-2AXXXXXXGAPLF" in text
    assert "until then it costs money" in text


def test_a_cluster_that_ended_badly_is_gone_all_the_same(run: dict[str, Any]) -> None:
    run["cluster"]["state"] = "TERMINATED_WITH_ERRORS"
    assert Page(render(run, {}, None)).classed("alarm") == []


def test_a_failed_run_says_why_where_and_what_stays(run: dict[str, Any], stages: dict[str, Any]) -> None:
    run |= {"state": "failed", "reason": "StepFailed: weights do not fit", "pca": None, "quality": None}
    run["seconds"] |= {"featurize": 0, "reduce_pca": 0, "publish": 0}
    failed = Page(render(run, {"load_images": stages["load_images"]}, None))
    assert "StepFailed: weights do not fit" in failed.text
    assert "the result of the last good run stays current" in failed.text
    assert "Load images done" in failed.text
    assert "Featurize stopped here \u2013" in failed.text
    assert "Reduce (PCA) did not run" in failed.text
    assert "Terminate done" in failed.text
    assert titles(failed).isdisjoint({"Map of the images", "Variance kept", "Quality gate"})


def test_the_zeros_of_a_blank_record_are_not_shown_as_facts() -> None:
    blank = blank_record("manual__1", "demo", "eu-west-1")
    page = Page(render(blank | {"state": "refused", "reason": "ConfigError: no such model"}, {}, None))
    assert "ConfigError: no such model" in page.text
    assert "Metadata stripped" not in page.text
    assert "stayed in the EU" not in page.text
    assert titles(page) == set(), "it has nothing but its cause"


def test_a_cluster_that_never_became_ready_is_where_the_run_stopped(run: dict[str, Any]) -> None:
    run["state"] = "failed"
    run["seconds"] = dict.fromkeys(run["seconds"], 0)
    text = Page(render(run, {}, None)).text
    assert "Start cluster stopped here" in text
    assert "Load images did not run" in text


def test_a_failed_gate_stops_at_publish(run: dict[str, Any], stages: dict[str, Any]) -> None:
    run["state"] = "failed"
    stages["publish"]["published"] = False
    run["quality"]["checks"]["reject_rate"] = {"ok": False, "value": 0.4, "limit": 0.2}
    failed = Page(render(run, stages, None))
    assert "Publish stopped here" in failed.text
    assert "nothing published" in failed.text
    assert failed.text.index("reject_rate failed 0.4 ≤ 0.2") < failed.text.index("keys_match passed")


def test_a_run_that_failed_after_publishing_says_that_it_published(run: dict[str, Any], stages: dict[str, Any]) -> None:
    run["state"] = "failed"
    assert "The PCA was published before the run failed." in Page(render(run, stages, None)).text


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("skipped", "There was nothing to do, or too little, so no cluster was created."),
        ("refused", "The plan stopped the run before anything was created"),
        ("failed", "The run gives no cause"),
    ],
)
def test_a_state_without_cause_is_explained(state: str, words: str) -> None:
    assert words in Page(render({"state": state}, {}, None)).text


def test_a_refused_run_shows_its_cause() -> None:
    cause = "CostCeilingExceeded: forecast €3.20, max_cost_eur is 1.00"
    refused = Page(render({"state": "refused", "reason": cause}, {}, None))
    assert cause in refused.text
    assert "Refused" in refused.text


def test_an_empty_record_gives_a_page_that_says_what_is_missing() -> None:
    empty = Page(render({}, {}, None))
    assert "State not known" in empty.text
    assert "The run names no region." in empty.text
    assert titles(empty) == {"Cluster and residency"}
    assert empty.classed("alarm") == []
    assert "None" not in empty.text


def test_a_run_over_no_image_counts_zeros_and_draws_nothing(run: dict[str, Any]) -> None:
    run["images"] = dict.fromkeys(run["images"], 0)
    run |= {"rejects_by_code": {}, "pca": {"k": 0, "n": 0}, "bytes": dict.fromkeys(run["bytes"], 0)}
    none = pa.table({"label": pa.array([], pa.string()), "pc1": pa.array([], pa.float64())})
    no_rows = none.append_column("pc2", pa.array([], pa.float64()))
    for sample in (none, no_rows):
        stages = {"load_images": {"seconds": 3.0}, "reduce_pca": {"variance_curve": []}}
        page = Page(render(run, stages, sample))
        assert "0 seen" in swapped(page.text)
        assert "No image was rejected." in page.text
        assert titles(page).isdisjoint({"Map of the images", "Volumes"})


@pytest.mark.parametrize(
    ("record", "section"),
    [
        ({"state": "refused", "reason": "RunRefused: input_prefix: no photo"}, "refused"),
        ({"state": "refused", "reason": "LockHeld: fruits is locked by x"}, "lock-held"),
        ({"state": "failed", "reason": "featurize: killed"}, "red-run"),
        ({"state": "failed", "quality": {"checks": {"reject_rate": {"ok": False}}}}, "gate-failed"),
        ({"state": "failed", "cluster": {"id": "j-1", "state": "RUNNING"}}, "cluster-will-not-die"),
        ({"state": "succeeded"}, None),
    ],
)
def test_a_bad_end_leads_to_the_section_of_the_runbook_that_its_notice_names(
    record: dict[str, Any], section: str | None
) -> None:
    links = [link.get("href", "") for link in Page(render(record, {}, None, navigation=NAVIGATION)).all("a")]
    assert [link for link in links if "runbook" in link] == ([f"../runbook#{section}"] if section else [])
    assert "runbook" not in Page(render(record, {}, None)).text, "report.html is read where no runbook is"
