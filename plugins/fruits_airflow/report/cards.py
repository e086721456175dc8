"""The model card and the datasheet of what a run published, in Markdown.

Their sections are those of Mitchell et al., "Model Cards for Model Reporting" (2019), and of Gebru et al., "Datasheets
for Datasets" (2021). `make local` calls this module with the folder of its run.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fruits_airflow.records.digests import CARDS
from fruits_airflow.records.models import ClassifierFacts, RunRecord, StageMetrics
from fruits_airflow.report import sections
from fruits_airflow.report.facts import Facts
from fruits_airflow.report.page import render_template


class LabelOutcome(NamedTuple):
    """What became of the held-out photos of a label."""

    label: str
    photos: int
    right: float  # share
    taken_for: str | None  # the most frequent wrong name


def render_cards(run: RunRecord | Mapping[str, Any], stages: Mapping[str, StageMetrics | Any]) -> dict[str, str]:
    """Render the cards by name; none for a run that published nothing."""
    facts = Facts(run, stages)
    if facts.get("published") is not True:
        return {}
    naming, (in_eu, place) = sections.naming(facts), sections.residency(facts)
    view = {
        "facts": facts,
        "naming": naming if naming and naming.classifier_id else None,
        "outcomes": outcomes(naming) if naming else [],
        "checks": sections.checks(facts),
        "reject_codes": sections.reject_codes(facts),
        "place": place if in_eu is not None else "not shown to be in the European Union",
    }
    return {name: render_template(f"{name}.j2", view) for name in CARDS}


def outcomes(naming: ClassifierFacts) -> list[LabelOutcome]:
    """Return the outcome of each label of the confusion matrix, the worst first."""
    names: dict[str, Counter[str]] = defaultdict(Counter)
    for label, name, photos in naming.confusion:
        names[label][name] += photos
    rows = []
    for label, counts in names.items():
        total, right = counts.total(), counts.pop(label, 0)
        wrong = next((name for name, photos in counts.most_common(1) if photos), None)
        rows.append(LabelOutcome(label, total, right / (total or 1), wrong))
    return sorted(rows, key=lambda row: (row.right, row.label))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    metrics = {path.stem: json.loads(path.read_text()) for path in (folder / "stages").glob("*.json")}
    for name, card in render_cards({"run_id": folder.name}, metrics).items():
        (folder / name).write_text(card)
