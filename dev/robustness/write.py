"""Show what `measure` wrote: a table, a chart, and the demo's report with the photos as they are and the worst three.

The second step of `make robustness`, in .venv-airflow.
"""

import json
import os
from pathlib import Path
from typing import Any

from fruits_airflow.emr.stage_steps import STAGES
from fruits_airflow.records.digests import EVIDENCE
from fruits_airflow.records.models import RECORD, stage_file
from fruits_airflow.records.sample import SAMPLE, decode_sample
from fruits_airflow.report import render
from fruits_airflow.report.units import percent
from jinja2 import Environment, FileSystemLoader, StrictUndefined

FILES = ("robustness.md", "robustness.svg")


def texts(result: dict[str, Any]) -> dict[str, str]:
    """Return the table and the chart of a result, by the names of their files."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["percent"] = percent
    return {name: environment.get_template(f"{name}.j2").render(result=result) for name in FILES}


def show_in_report(demo: Path, result: dict[str, Any]) -> bool:
    """Write the report of a demo again, with a result of its classifier; return whether it is one of it."""
    if not (demo / "report.html").is_file():
        return False
    record = json.loads((demo / RECORD).read_text())
    run = demo / "lake" / "runs" / record["run_id"]
    stages = {stage: json.loads((run / stage_file(stage)).read_text()) for stage in STAGES}
    classifier = stages["publish"].get("classifier", {})
    if classifier.get("classifier_id") != result["classifier_id"]:
        return False
    rates = ("top1", "answered", "wrong_answers")
    rows = ([row["kind"], row["strength"], *(row[rate]["share"] for rate in rates)] for row in result["rows"])
    classifier["robustness"] = list(rows)
    sample, evidence = decode_sample((run / SAMPLE).read_bytes()), json.loads((run / EVIDENCE).read_text())
    record["classifier"] = classifier  # run.json has its own, which counts first
    (demo / "report.html").write_text(render(record, stages, sample, evidence))
    return True


def main() -> None:
    """Write table and chart beside the result, and the report of the demo in LAKE."""
    out, demo = Path("build/robustness"), Path(os.environ["LAKE"])
    result = json.loads((out / "robustness.json").read_text())
    for name, text in texts(result).items():
        (out / name).write_text(text)
        print(out / name)
    if show_in_report(demo, result):
        print(demo / "report.html")


if __name__ == "__main__":
    main()
