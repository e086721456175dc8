"""The tables of bench/README.md, written from results.json: `python -m bench.report.readme` after a published run.

Between the two marks nothing is typed by hand; a test compares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench.report.charts import number
from bench.report.details import BATCHES
from bench.report.page import NAMES, featurize_rows, setting
from bench.report.ratios import expectations, percent
from bench.suite import FASTEST_PEER

HERE = Path(__file__).resolve().parents[1]
README = HERE / "README.md"
PUBLISHED = HERE / "results.json"
QUICK = HERE / "quick.json"
"""How long the last quick run took that was published."""

BEGIN, END = "<!-- results: begin, written by bench/report/readme.py -->", "<!-- results: end -->"


def publish(results: dict[str, Any]) -> None:
    """Store the results in the repository and write the tables; of a quick run store only how long it took."""
    if results["sizes"] == "quick":
        kept = {
            "seconds": results["seconds"],
            **{name: results["machine"][name] for name in ("date", "commit")},
        }
        QUICK.write_text(json.dumps(kept, indent=1) + "\n")
        results = json.loads(PUBLISHED.read_text())
    else:
        PUBLISHED.write_text(json.dumps(results, indent=1) + "\n")
    README.write_text(with_tables(README.read_text(), results))


def how_long(results: dict[str, Any]) -> str:
    """Say how long the suite took, and the last quick run that was published."""
    quick = json.loads(QUICK.read_text()) if QUICK.is_file() else None
    return f"The suite took {minutes(results['seconds'])}" + (
        f"; quick mode {minutes(quick['seconds'])} ({quick['date']}, commit {quick['commit']})."
        if quick
        else "."
    )


def minutes(seconds: float | None) -> str:
    """Format the time of the whole suite."""
    return "several goes" if seconds is None else f"{seconds / 60:.0f} minutes"


def with_tables(text: str, results: dict[str, Any]) -> str:
    """Return the README with its tables replaced."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{tables(results)}\n{END}{after}"


def tables(results: dict[str, Any]) -> str:
    """Return all tables as Markdown."""
    blocks = [
        f"{setting(results)} {how_long(results)}",
        against_expectation(results),
        featurize_table(results),
        load_table(results),
        batching_table(results),
        pca_table(results),
        night_table(results),
        scaling_table(results),
    ]
    return "\n\n".join(blocks) + "\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Format a Markdown table with its numbers to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def against_expectation(results: dict[str, Any]) -> str:
    """Compare each measured ratio with its bound."""
    rows = [
        [row.label, row.bound_text, row.show(row.value) + ("" if row.met else " **(not met)**")]
        for row in expectations(results)
    ]
    return table(["ratio", "asked for", "measured"], rows)


def featurize_table(results: dict[str, Any]) -> str:
    """Tabulate all contestants, by speed."""
    details = results["details"]
    keys = {label: name for name, label in NAMES.items()} | {NAMES["fruits"]: "fruits_featurize"}
    rows = []
    for label, value in featurize_rows(results):
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
    whole = details["whole_job_img_s"]
    below = (
        f"\n\nOn {large['images']:,} photos: ours {number(large['fruits_img_s'])} images/s running the model, "
        f"{number(large['fruits_whole_job_img_s'])} as a whole job; the limit without Spark "
        f"{number(large['no_spark_limit_img_s'])}, {NAMES[FASTEST_PEER]} {number(large['best_peer_img_s'])}. Peers and "
        "limit read photos; our featurize reads pixels that load_images has fetched, checked and kept. Both jobs "
        f"together: {number(whole['fruits_load_and_featurize'])} images/s on {results['images']:,} photos, "
        f"{number(large['fruits_load_and_featurize_img_s'])} on {large['images']:,}. With one worker: ours "
        f"{number(details['one_worker']['fruits_img_s'])}, the limit "
        f"{number(details['one_worker']['no_spark_limit_img_s'])}."
    )
    return table(head, rows) + below


def load_table(results: dict[str, Any]) -> str:
    """Tabulate loading."""
    details = results["details"]["load_each_further_img_s"]
    rows = [
        [NAMES[name], number(results["load"][f"{name}_img_s"]), number(details[name])]
        for name in ("fruits", "binaryfile")
    ]
    return table(["load, images/s", "whole job", "each further photo"], rows)


def pca_table(results: dict[str, Any]) -> str:
    """Tabulate the PCA."""
    rows = [
        [
            f"{int(size):,} x 1,280",
            *(number(row[f"{name}_s"]) for name in ("fruits", "mllib", "sklearn")),
            scientific(row["max_relative_error"]),
        ]
        for size, row in results["pca"].items()
        if row
    ]
    return table(["PCA, seconds", "ours", "MLlib", "scikit-learn", "largest relative error"], rows)


def batching_table(results: dict[str, Any]) -> str:
    """Tabulate the batches of the model, alone and with a thread that decodes."""
    figures = results["details"]["batching"]
    rows = [
        [
            str(batch),
            *(number(figures[figure][f"{batch}{way}"]) for figure in figures for way in ("", "_ahead")),
        ]
        for batch in BATCHES
    ]
    head = ["batch", "images/s", "decoding ahead", "ms of a core", "decoding ahead, ms of a core"]
    return table(head, rows)


def night_table(results: dict[str, Any]) -> str:
    """Tabulate the nights."""
    night, more = results["night"], results["details"]["night"]
    rows = [
        [
            name,
            number(night[f"{kind}_executor_s"]),
            number(more[kind]["driver_cpu_s"]),
            number(more[kind]["worker_cpu_s"]),
            number(night[f"{kind}_wall_s"]),
        ]
        for kind, name in (("full", "full run"), ("one_percent", "1 % new"), ("nothing_new", "nothing new"))
    ]
    head = [
        f"night over {night['images']:,} photos",
        "executor s",
        "drivers' CPU s",
        "workers' CPU s",
        "wall s",
    ]
    share = more.get("one_percent_beyond_nothing_new_share")
    return (
        table(head, rows)
        + f"\n\nOf each wall time some {number(night['start_wall_s'])} s are four starts of Spark. The drivers' CPU "
        "seconds are those of four JVMs (the executor's threads run in them too) and the Python beside each; most of "
        "them are starting up, as the night with nothing new shows. What the night with 1 % new takes beyond it, "
        f"drivers and workers together, is {percent(share)} of what the full run takes beyond it."
    )


def scaling_table(results: dict[str, Any]) -> str:
    """Tabulate workers, images and memory."""
    scaling, peaks = results["scaling"], results["peak_memory_mb"]
    kinds = ("driver", "driver_live_heap", "worker")
    rows = [
        [f"{n} worker(s)", number(value), *("" for _ in kinds)] for n, value in scaling["workers"].items()
    ]
    rows += [
        [f"{int(n):,} images", number(value), *(number(peaks.get(n, {}).get(kind)) for kind in kinds)]
        for n, value in scaling["images"].items()
    ]
    head = ["scaling", "images/s", "driver MB", "of it live heap, MB", "worker MB"]
    return table(head, rows)


def scientific(value: float | None) -> str:
    """Format a small number."""
    return "n/a" if value is None else f"{value:.1e}"


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(), json.loads(PUBLISHED.read_text())))
    sys.stdout.write(f"{README}\n")
