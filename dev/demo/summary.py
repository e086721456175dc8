"""The table that ends a demo, summary.txt.j2: did it work, what came out, where is it, what did it cost."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fruits_airflow.report.units import size, weights
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape


def summary(run: Mapping[str, Any], files: Iterable[Path]) -> str:
    """Return the summary of a run.json as text, and the files that were left for the reader."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(),  # HTML alone
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"size": size, "weights": weights}
    return environment.get_template("summary.txt.j2").render(run=run, files=list(files)).rstrip()
