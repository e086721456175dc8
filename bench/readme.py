"""The tables of bench/README.md, written from results.json: `python -m bench.readme` after a published run.

Between the two marks nothing is typed by hand; a test compares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench.charts import number
from bench.page import NAMES, featurize_rows, percent, setting

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"
PUBLISHED = HERE / "results.json"
BEGIN, END = "<!-- results: begin, written by bench/readme.py -->", "<!-- results: end -->"


def publish(found: dict[str, Any]) -> None:
    """Keeps the results in the repository and writes the tables."""
    PUBLISHED.write_text(json.dumps(found, indent=1) + "\n")
    README.write_text(with_tables(README.read_text(), found))


def with_tables(text: str, found: dict[str, Any]) -> str:
    """The README with its tables replaced."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{tables(found)}\n{END}{after}"


def tables(found: dict[str, Any]) -> str:
    """All tables, as Markdown."""
    blocks = [
        setting(found),
        against_expectation(found),
        featurize_table(found),
        load_table(found),
        pca_table(found),
        night_table(found),
        scaling_table(found),
    ]
    return "\n\n".join(blocks) + "\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, numbers to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def against_expectation(found: dict[str, Any]) -> str:
    """What was asked for, and what was measured."""
    ratios = found["ratios"]
    rows = [
        [
            "featurize against the usual notebook",
            "≥ 5 times",
            f"{number(ratios['featurize_over_notebook'])} times",
        ],
        [
            "featurize against the same engine without Spark",
            "≥ 95 %",
            percent(ratios["featurize_over_limit"]),
        ],
        [
            "featurize against the fastest peer",
            "> 1 time",
            f"{number(ratios['featurize_over_best_peer'])} times",
        ],
    ]
    rows += [
        [f"PCA against MLlib, {int(size):,} x 1,280", "≥ 6 times", f"{number(value)} times"]
        for size, value in ratios["pca_over_mllib"].items()
    ]
    share = percent(ratios["one_percent_night_executor_share"])
    rows.append(["executor seconds of a night with 1 % new, of a full run's", "≤ 5 %", share])
    return table(["ratio", "asked for", "measured"], rows)


def featurize_table(found: dict[str, Any]) -> str:
    """All contestants, by speed."""
    details = found["details"]
    keys = {label: name for name, label in NAMES.items()} | {NAMES["fruits"]: "fruits_featurize"}
    rows = []
    for label, value in featurize_rows(found):
        key = keys[label]
        rows.append(
            [
                label,
                number(value),
                number(details["whole_job_img_s"].get(key)),
                number(details["each_further_img_s"].get(key)),
                number(details["peer_memory_mb"].get(key)),
                scientific(details["max_difference_from_ours"].get(key)),
            ]
        )
    head = [
        "features, images/s",
        "running the model",
        "whole job",
        "each further photo",
        "peak MB",
        "differs by",
    ]
    large = details["large"]
    below = (
        f"\n\nOn {large['images']:,} photos: ours {number(large['fruits_img_s'])} images/s running the model, "
        f"{number(large['fruits_whole_job_img_s'])} as a whole job; the limit without Spark "
        f"{number(large['no_spark_limit_img_s'])}. With one worker: ours "
        f"{number(details['one_worker']['fruits_img_s'])}, the limit "
        f"{number(details['one_worker']['no_spark_limit_img_s'])}."
    )
    return table(head, rows) + below


def load_table(found: dict[str, Any]) -> str:
    """Loading."""
    details = found["details"]["load_each_further_img_s"]
    rows = [
        [NAMES[name], number(found["load"][f"{name}_img_s"]), number(details[name])]
        for name in ("fruits", "binaryfile")
    ]
    return table(["load, images/s", "whole job", "each further photo"], rows)


def pca_table(found: dict[str, Any]) -> str:
    """PCA."""
    rows = [
        [
            f"{int(size):,} x 1,280",
            *(number(row[f"{name}_s"]) for name in ("fruits", "mllib", "sklearn")),
            scientific(row["max_relative_error"]),
        ]
        for size, row in found["pca"].items()
        if row
    ]
    return table(["PCA, seconds", "ours", "MLlib", "scikit-learn", "largest relative error"], rows)


def night_table(found: dict[str, Any]) -> str:
    """Nights."""
    night = found["night"]
    rows = [
        [name, number(night[f"{kind}_executor_s"]), number(night[f"{kind}_wall_s"])]
        for kind, name in (("full", "full run"), ("one_percent", "1 % new"), ("nothing_new", "nothing new"))
    ]
    head = [f"night over {night['images']:,} photos", "executor s", "wall s"]
    return (
        table(head, rows)
        + f"\n\nOf each wall time some {number(night['start_wall_s'])} s are four starts of Spark."
    )


def scaling_table(found: dict[str, Any]) -> str:
    """Workers, images, memory."""
    scaling, peaks = found["scaling"], found["peak_memory_mb"]
    rows = [[f"{n} worker(s)", number(value), "", ""] for n, value in scaling["workers"].items()]
    rows += [
        [
            f"{int(n):,} images",
            number(value),
            number(peaks.get(n, {}).get("driver")),
            number(peaks.get(n, {}).get("worker")),
        ]
        for n, value in scaling["images"].items()
    ]
    return table(["scaling", "images/s", "driver MB", "worker MB"], rows)


def scientific(value: float | None) -> str:
    """A small number."""
    return "n/a" if value is None else f"{value:.1e}"


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(), json.loads(PUBLISHED.read_text())))
    sys.stdout.write(f"{README}\n")
