"""The tables of a benchmark's results."""

from dataclasses import dataclass
from typing import Any

from bench.report.ratios import expectations, number, percent, photos_of
from bench.suite import FASTEST_PEER

NAMES = {
    "fruits": "Fruits!",
    "fruits_featurize": "Fruits!",
    "no_spark_limit": "limit: processes, no Spark",
    "notebook": "usual notebook",
    "predict_batch_udf": "predict_batch_udf",
    "ray_data_keras": "Ray Data, Keras",
    "ray_data_litert": "Ray Data, LiteRT",
    "daft_keras": "Daft, Keras",
    "daft_litert": "Daft, LiteRT",
    "binaryfile": "binaryFile + pandas_udf",
    "mllib": "Spark MLlib",
    "sklearn": "scikit-learn",
}


@dataclass(frozen=True)
class Table:
    """A table of formatted figures, with a note below it. The head of its first column says what it is about."""

    head: list[str]
    rows: list[list[str]]
    note: str = ""


def all_tables(results: dict[str, Any]) -> list[Table]:
    """Return all tables, in the order of reading."""
    builders = (
        end_to_end_table,
        against_expectation,
        featurize_table,
        load_table,
        pca_table,
        night_table,
        scaling_table,
    )
    return [build(results) for build in builders]


def setting(results: dict[str, Any]) -> str:
    """Say in one sentence what was measured where."""
    machine, details = results["machine"], results["details"]
    load, commits = details["load_average"], details["commits"]
    measured = (
        f"commit {next(iter(commits))}"
        if len(commits) == 1
        else "; ".join(f"{', '.join(sections)} at commit {commit}" for commit, sections in commits.items())
    )
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {machine['date']}, "
        f"{measured}; medians of {results['repeats']} run(s), contestants in turns; "
        f"{details.get('photos', '')} photos of 100 px, weights: {details.get('weights', '')}; load average when runs "
        f"began: {number(load.get('median'))}, at most {number(load.get('max'))}."
    )


def end_to_end_table(results: dict[str, Any]) -> Table:
    """Tabulate photos in, vectors out."""
    by_size = results["end_to_end"]
    names = {"fruits": "Fruits!, both jobs"} | {name: NAMES[name] for name in by_size["12mp"]["peers_img_s"]}
    rows = [
        [text, *(number(({"fruits": row["fruits_img_s"]} | row["peers_img_s"])[name]) for row in by_size.values())]
        for name, text in names.items()
    ]
    head = ["photos in, vectors out, images/s"]
    head += [photos_of(size, row) for size, row in by_size.items()]
    return Table(head, rows, "Whole jobs, with all that they start but Spark and Python themselves.")


def against_expectation(results: dict[str, Any]) -> Table:
    """Compare each measured ratio with its bound."""
    rows = [
        [row.label, row.bound_text, row.show(row.value) + ("" if row.met else " **(not met)**")]
        for row in expectations(results)
    ]
    return Table(["ratio", "asked for", "measured"], rows)


def featurize_table(results: dict[str, Any]) -> Table:
    """Tabulate all contestants: the limit, then the others by speed."""
    rates, details = results["featurize"], results["details"]
    contestants = {
        "fruits_featurize": rates["fruits_img_s"],
        "notebook": rates["notebook_img_s"],
        **rates["peers_img_s"],
    }
    by_speed = sorted(contestants.items(), key=lambda item: -(item[1] or 0.0))
    rows = [
        [
            NAMES[name],
            number(value),
            number(details["whole_job_img_s"].get(name)),
            number(details["each_further_img_s"].get(name)),
            number(details["peer_memory_mb"].get(name)),
            scientific(details["max_difference_from_ours"].get(name)),
        ]
        for name, value in [("no_spark_limit", rates["no_spark_limit_img_s"]), *by_speed]
    ]
    head = ["features, images/s", "running the model", "whole job", "each further photo", "peak MB", "differs by"]
    large, whole = details["large"], details["whole_job_img_s"]
    note = (
        f"On {large['images']:,} photos: ours {number(large['fruits_img_s'])} images/s running the model, "
        f"{number(large['fruits_whole_job_img_s'])} as a whole job; the limit without Spark "
        f"{number(large['no_spark_limit_img_s'])}, {NAMES[FASTEST_PEER]} {number(large['best_peer_img_s'])}. Peers and "
        "limit read photos; our featurize reads pixels that load_images has fetched, checked and kept. Both jobs "
        f"together: {number(whole['fruits_load_and_featurize'])} images/s on {results['images']:,} photos, "
        f"{number(large['fruits_load_and_featurize_img_s'])} on {large['images']:,}. With one worker: ours "
        f"{number(details['one_worker']['fruits_img_s'])}, the limit "
        f"{number(details['one_worker']['no_spark_limit_img_s'])}."
    )
    return Table(head, rows, note)


def load_table(results: dict[str, Any]) -> Table:
    """Tabulate loading."""
    details = results["details"]["load_each_further_img_s"]
    rows = [
        [NAMES[name], number(results["load"][f"{name}_img_s"]), number(details[name])]
        for name in ("fruits", "binaryfile")
    ]
    return Table(["load, images/s", "whole job", "each further photo"], rows)


def pca_table(results: dict[str, Any]) -> Table:
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
    return Table(["PCA, seconds", "ours", "MLlib", "scikit-learn", "largest relative error"], rows)


def night_table(results: dict[str, Any]) -> Table:
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
    head = [f"night over {night['images']:,} photos", "executor s", "drivers' CPU s", "workers' CPU s", "wall s"]
    share = more.get("one_percent_beyond_nothing_new_share")
    note = (
        f"Of each wall time some {number(night['start_wall_s'])} s are four starts of Spark. The drivers' CPU "
        "seconds are those of four JVMs (the executor's threads run in them too) and the Python beside each; most of "
        "them are starting up, as the night with nothing new shows. What the night with 1 % new takes beyond it, "
        f"drivers and workers together, is {percent(share)} of what the full run takes beyond it."
    )
    return Table(head, rows, note)


def scaling_table(results: dict[str, Any]) -> Table:
    """Tabulate workers, images and memory."""
    scaling, peaks = results["scaling"], results["peak_memory_mb"]
    kinds = ("driver", "driver_live_heap", "worker")
    rows = [[f"{n} worker(s)", number(value), *("" for _ in kinds)] for n, value in scaling["workers"].items()]
    rows += [
        [f"{int(n):,} images", number(value), *(number(peaks.get(n, {}).get(kind)) for kind in kinds)]
        for n, value in scaling["images"].items()
    ]
    head = ["scaling", "images/s", "driver MB", "of it live heap, MB", "worker MB"]
    return Table(head, rows)


def scientific(value: float | None) -> str:
    """Format a small number."""
    return "n/a" if value is None else f"{value:.1e}"
