"""Puts the report together: facts in, one HTML page out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fruits_airflow.report import flow, sections, units
from fruits_airflow.report.curve import variance_curve
from fruits_airflow.report.facts import Facts
from fruits_airflow.report.pca_map import ASPECT, MAX_POINTS, THUMBNAIL, pca_map

STATES = {
    "succeeded": ("Succeeded", "The result of this run is published."),
    "failed": ("Failed", "The run gives no cause: the log of its first red task in Airflow has it."),
    "skipped": ("Skipped", "There was nothing to do, so no cluster was created."),
    "refused": ("Refused", "The plan stopped the run before anything was created; its log says why."),
}
MAX_CAUSE = 4000


def render(run: Mapping[str, Any], stages: Mapping[str, Any], sample: pa.Table | None) -> str:
    """The report of one run as one HTML page that loads nothing from anywhere and contains no script.

    A part whose data is not there says so; nothing in `run` or `stages` can make this raise, and no text from
    them is anything but text on the page.

    Args:
        run: run.json.
        stages: the stages' metrics by stage name, as each job left them.
        sample: sample.parquet with columns `label`, `pc1`, `pc2`, `thumbnail`; None when there is none.
    """
    facts = Facts(run, stages)
    return _environment().get_template("page.html.j2").render(_view(facts, sample))


def _view(facts: Facts, sample: pa.Table | None) -> dict[str, Any]:
    state = facts.text("state") or ""
    title, explanation = STATES.get(
        state, ("State not known", "The record of this run names no state we know.")
    )
    cause = facts.text("reason")
    in_eu, residency = sections.residency(facts)
    return {
        "facts": facts,
        "state": state if state in STATES else "unknown",
        "title": title,
        "cause": units.clipped(cause, MAX_CAUSE) if cause else None,
        "explanation": explanation,
        "published": facts.get("published") is True,
        "counted": facts.wrote("load_images")
        or any(units.number(n) for n in facts.mapping("images").values()),
        "random_weights": facts.get("features", "weights") == "random",
        "unended_cluster": sections.unended_cluster(facts),
        "stages": flow.flow(facts),
        "rest_seconds": flow.rest_seconds(facts),
        "volumes": sections.volumes(facts),
        "reject_codes": sections.reject_codes(facts),
        "reject_examples": sections.reject_examples(facts),
        "checks": sections.checks(facts),
        "costs": sections.costs(facts),
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
    for name in ("count", "size", "seconds", "euros", "percent"):
        environment.filters[name] = getattr(units, name)
    environment.globals["change"] = units.change
    return environment


def _finalize(output: object) -> object:
    """What every `{{ }}` prints: hidden characters written out, None as an absence rather than as `None`."""
    if isinstance(output, Markup):
        return output
    return units.UNKNOWN if output is None else units.visible(str(output))
