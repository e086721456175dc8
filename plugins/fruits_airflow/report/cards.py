"""The model card and the datasheet of what a run published, in Markdown.

Their sections are those of Mitchell et al., "Model Cards for Model Reporting" (2019), and of Gebru et al., "Datasheets
for Datasets" (2021). `make local` calls this module with the folder of its run.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fruits_airflow.records.digests import CARDS
from fruits_airflow.report import sections
from fruits_airflow.report.facts import Facts
from fruits_airflow.report.page import render_template


def render_cards(run: Any, stages: Mapping[str, Any]) -> dict[str, str]:
    """Render the cards by name, from what `render` takes; none for a run that published nothing."""
    facts = Facts(run, stages)
    naming, (in_eu, place) = sections.naming(facts), sections.residency(facts)
    view = {
        "facts": facts,
        "naming": naming if naming and naming.classifier_id else None,
        "checks": sections.checks(facts),
        "reject_codes": sections.reject_codes(facts),
        "place": "not shown to be in the European Union" if in_eu is None else place,
    }
    return {name: render_template(f"{name}.j2", view) for name in CARDS if facts.get("published") is True}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    metrics = {path.stem: json.loads(path.read_text()) for path in (folder / "stages").glob("*.json")}
    for name, card in render_cards({"run_id": folder.name}, metrics).items():
        (folder / name).write_text(card)
