"""Render the report of a run as an HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fruits_airflow.records.models import RunRecord
from fruits_airflow.report import flow, sections, units
from fruits_airflow.report.curve import variance_curve
from fruits_airflow.report.facts import Facts
from fruits_airflow.report.pca_map import ASPECT, MAX_POINTS, THUMBNAIL, pca_map
from fruits_airflow.report.run_links import Link

STATES = {
    "succeeded": ("Succeeded", "The result of this run is published."),
    "failed": ("Failed", "The run gives no cause: the log of its first red task in Airflow has it."),
    "skipped": ("Skipped", "There was nothing to do, or too little, so no cluster was created."),
    "refused": ("Refused", "The plan stopped the run before anything was created; its log says why."),
    # Only in Airflow: such a run has left no run.json.
    "running": ("Running", "The run goes on. What it has done so far is below; the page loads itself again."),
    "unrecorded": ("No record", "The run left no run.json: it goes on, or was cut short before it could."),
}
MAX_CAUSE = 4000
REFRESH_SECONDS = 20  # of the page of a run that goes on
MAX_NAME = 300
MAX_PROBLEMS = 20
MAX_PAGE_BYTES = 2_000_000


@dataclass(frozen=True)
class Navigation:
    """What surrounds the page when Airflow serves it; the self-contained report.html has none."""

    home: str  # address of the list of runs
    script: str  # address of page.js
    links: Sequence[Link]  # where a reader looks next
    is_tab: bool = False  # whether the page is a tab of a DAG run, where the list would be out of place


def render(
    run: RunRecord | Mapping[str, Any],
    stages: Mapping[str, Any],
    sample: pa.Table | None,
    residency: Mapping[str, Any] | None = None,
    navigation: Navigation | None = None,
    problems: Sequence[str] = (),
    changes: Sequence[str] = (),
) -> str:
    """Return the report of a run as an HTML page; without `navigation` it loads nothing and runs no script.

    A part without data says so. Nothing in `run`, `stages` or `residency` can make this raise, and their texts are
    nothing but text on the page. A page of more than MAX_PAGE_BYTES is rendered again without its largest parts, and
    says so.

    Args:
        run: run.json.
        stages: The stages' metrics by stage name, as each job left them.
        sample: sample.parquet with columns `image_id`, `label`, `pc1`, `pc2`, `thumbnail`; None when there is none.
        residency: residency.json; None when there is none.
        navigation: What Airflow's page adds; None for report.html.
        problems: What cannot be read of the run, for the top of the page.
        changes: What differs from what the final check judged, for the top of the page.
    """
    facts = Facts(run, stages)
    least = {name: units.clipped(facts.text(name) or "", MAX_NAME) for name in ("run_id", "state")}
    attempts: list[tuple[Facts, pa.Table | None, Mapping[str, Any]]] = [
        (facts, sample, residency or {}),
        (facts, None, residency or {}),
        (Facts(run, {}), None, {}),
        (Facts(least, {}), None, {}),
    ]
    page, sentences = "", list(problems[:MAX_PROBLEMS])
    for shown, picture, evidence in attempts:
        view = _view(shown, picture) | {
            "evidence": sections.evidence(evidence),
            "navigation": navigation,
            "script": navigation and navigation.script,
            "problems": [units.clipped(problem, MAX_CAUSE) for problem in sentences],
            "changes": [units.clipped(change, MAX_CAUSE) for change in changes[:MAX_PROBLEMS]],
        }
        page = render_template("page.html.j2", view)
        size = len(page.encode("utf-8", errors="replace"))
        if size <= MAX_PAGE_BYTES:
            break
        sentences.append(f"Parts of the page are left out: with them it would have {size:,} bytes.")
    return page


def render_template(name: str, view: Mapping[str, Any]) -> str:
    """Render a template of this folder, with everything in `view` as text."""
    return _environment().get_template(name).render({"script": None, **view})


def named_state(state: str | None) -> tuple[str, str, str]:
    """Return a run's state as a word for the style, its title and its explanation."""
    if state in STATES:
        return state, *STATES[state]
    return "unknown", "State not known", "The record of this run names no state we know."


def _view(facts: Facts, sample: pa.Table | None) -> dict[str, Any]:
    state, title, explanation = named_state(facts.text("state"))
    cause = facts.text("reason")
    in_eu, residency = sections.residency(facts)
    return {
        "facts": facts,
        "state": state,
        "title": title,
        "cause": units.clipped(cause, MAX_CAUSE) if cause else None,
        "explanation": explanation,
        "published": facts.get("published") is True,
        "has_counts": facts.has_metrics("load_images")
        or any(units.number(n) for n in facts.mapping("images").values()),
        "random_weights": facts.get("features", "weights") == "random",
        "unended_cluster": sections.unended_cluster(facts),
        "runbook_section": sections.runbook_section(facts),
        "stages": flow.flow(facts),
        "rest_seconds": flow.rest_seconds(facts),
        "volumes": sections.volumes(facts),
        "reject_codes": sections.reject_codes(facts),
        "reject_examples": sections.reject_examples(facts),
        "checks": sections.checks(facts),
        "drift": sections.drift(facts),
        "naming": (naming := sections.naming(facts)),
        "confusion": sections.confusion(naming) if naming else [],
        "thumbnails": sections.thumbnails(sample),
        "costs": sections.costs(facts),
        "pending": state == "running",
        "refresh_seconds": REFRESH_SECONDS,
        "simulated": facts.get("simulated") is True,
        "in_eu": in_eu,
        "residency": residency,
        "curve": variance_curve(facts.items("variance_curve"), facts.number("pca", "k")),
        "map": pca_map(sample),
        "aspect": ASPECT,
        "thumbnail": THUMBNAIL,
        "max_points": MAX_POINTS,
    }


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("count", "size", "seconds", "euros", "percent", "weights", "cell"):
        environment.filters[name] = getattr(units, name)
    environment.globals["change"] = units.change
    return environment


def _finalize(output: object) -> object:
    """Write out hidden characters in what a `{{ }}` prints, and None as `not known`."""
    if isinstance(output, Markup):
        return output
    return units.UNKNOWN if output is None else units.visible(str(output))
