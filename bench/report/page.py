"""results.json as one page: build/bench/index.html."""

from __future__ import annotations

from html import escape
from typing import Any

from bench.report.charts import bars, lines, number
from bench.report.details import BATCHES
from bench.report.ratios import percent

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
OWN = (NAMES["fruits"],)
STYLE = """
:root{color-scheme:light dark;--ink:#1d2a22;--soft:#5d6b62;--paper:#fbfaf6;--own:#c2412d;--peer:#8fa694;--third:#d9a441;
--rule:#dcd9cf}
@media(prefers-color-scheme:dark){:root{--ink:#ecefe9;--soft:#9fada3;--paper:#161b18;--own:#f0705a;--peer:#6d8573;
--third:#d9a441;--rule:#333b36}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:760px;margin:2.5rem auto;
padding:0 1rem}
h1{font-size:1.9rem;margin:0 0 .3rem}h2{margin:2.6rem 0 .2rem;font-size:1.25rem}p{margin:.3rem 0 .8rem}
.soft,.none,figcaption{color:var(--soft)}svg{width:100%;height:auto;font:13px system-ui,sans-serif}
.label{text-anchor:end;fill:var(--ink)}.value,.unit{fill:var(--ink)}.tick{text-anchor:middle;fill:var(--soft);font-size:11px}
rect.own,circle.own{fill:var(--own)}rect.peer,circle.peer{fill:var(--peer)}circle.third{fill:var(--third)}
.line{fill:none;stroke-width:2.5}.line.own{stroke:var(--own)}.line.peer{stroke:var(--peer)}.line.third{stroke:var(--third)}
.axis{fill:none;stroke:var(--rule);stroke-width:1.5}table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--rule)}td.n{text-align:right}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:.8rem;margin:1.2rem 0}
.tile{border:1px solid var(--rule);border-radius:10px;padding:.7rem .9rem}.tile b{display:block;font-size:1.6rem}
"""


def render(results: dict[str, Any]) -> str:
    """Render the page."""
    details, machine = results["details"], results["machine"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>Fruits! benchmark</title><style>{STYLE}</style>",
        "<h1>Fruits! beside its peers</h1>",
        f"<p class=soft>{escape(setting(results))}</p>",
        tiles(results),
        section(
            f"Features from {results['images']:,} photos",
            "Images per second of the part that runs the model: its loading and the start of the workers are in "
            "it, planning and the commit of tables are not.",
            bars(featurize_rows(results), "img/s", OWN),
        ),
        section(
            "The same, the whole job",
            "From the moment the framework could take work to the features on disk; ours commits an Iceberg table.",
            bars(named(details["whole_job_img_s"], skip="fruits_load_and_featurize"), "img/s", OWN),
        ),
        section(
            "What each further photo costs",
            "The difference between a larger and a smaller set: starting up cancels out.",
            bars(named(details["each_further_img_s"]), "img/s", OWN),
        ),
        section(
            "Loading",
            "The whole job. Ours also lists, checks, rejects, merges and reconciles.",
            bars(
                [
                    (NAMES["fruits"], results["load"]["fruits_img_s"]),
                    (NAMES["binaryfile"], results["load"]["binaryfile_img_s"]),
                ],
                "img/s",
                OWN,
            ),
        ),
        batching_section(results),
        *(pca_section(rows, row) for rows, row in results["pca"].items() if row),
        night_section(results),
        scaling_section(results),
        section(
            "Memory",
            "Over the four jobs: the largest resident memory of the driver (its JVM runs the executor too, in local "
            "mode) and of one Python worker; and, of runs with a heap that is kept tight, the most that a full "
            "collection left of it.",
            lines(memory_series(results), "images", "MB"),
        ),
        section("Machine", "", facts(machine | {"load average of the runs": details["load_average"]})),
        "</html>",
    ]
    return "\n".join(parts) + "\n"


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


def tiles(results: dict[str, Any]) -> str:
    """Render the ratios that have a bound."""
    ratios = results["ratios"]
    share = ratios["one_percent_night_executor_share"]
    shown = [
        ("times the usual notebook", number(ratios["featurize_over_notebook"])),
        ("of the limit without Spark, running the model", percent(ratios["featurize_over_limit"])),
        (
            "of it, whole job against whole job, on the large set",
            percent(ratios["large"]["whole_job_over_limit"]),
        ),
        ("times the best peer", number(ratios["featurize_over_best_peer"])),
        *(
            (f"times MLlib, {int(rows):,} rows", number(value))
            for rows, value in ratios["pca_over_mllib"].items()
        ),
        ("of a full run's executor time for 1 % new", percent(share)),
    ]
    inside = "".join(f"<div class=tile><b>{escape(value)}</b>{escape(name)}</div>" for name, value in shown)
    return f"<div class=tiles>{inside}</div>"


def section(title: str, text: str, body: str) -> str:
    """Render a headline, a sentence and a chart."""
    return f"<h2>{escape(title)}</h2><p class=soft>{escape(text)}</p>{body}"


def featurize_rows(results: dict[str, Any]) -> list[tuple[str, float | None]]:
    """Return the contestants by speed, the limit first."""
    rates = results["featurize"]
    rows = [
        (NAMES["fruits"], rates["fruits_img_s"]),
        (NAMES["notebook"], rates["notebook_img_s"]),
        *((NAMES[name], value) for name, value in rates["peers_img_s"].items()),
    ]
    return [(NAMES["no_spark_limit"], rates["no_spark_limit_img_s"]), *by_speed(rows)]


def named(figures: dict[str, float | None], skip: str = "") -> list[tuple[str, float | None]]:
    """Return the contestants by speed, with their names."""
    return by_speed([(NAMES.get(name, name), value) for name, value in figures.items() if name != skip])


def by_speed(rows: list[tuple[str, float | None]]) -> list[tuple[str, float | None]]:
    """Sort rows by speed, the fastest first."""
    return sorted(rows, key=lambda row: -(row[1] or 0.0))


def batching_section(results: dict[str, Any]) -> str:
    """Render the batches of the model."""
    rates = results["details"]["batching"]["img_s"]
    rows = [
        (f"batch of {batch}{suffix}", rates[f"{batch}{way}"])
        for batch in BATCHES
        for way, suffix in (("", ""), ("_ahead", ", decoding ahead"))
    ]
    text = (
        "Our engine over stored pixels in memory, one process per core, no Spark: pictures per call of the model, "
        "alone and with a thread that decodes the next ones meanwhile."
    )
    return section("Batches", text, bars(rows, "img/s", ("batch of 1",)))


def pca_section(rows: str, row: dict[str, float]) -> str:
    """Render a size of the PCA."""
    shown = [(NAMES[name], row[f"{name}_s"]) for name in ("fruits", "mllib", "sklearn")]
    error = row["max_relative_error"]
    text = (
        "Seconds from features on disk to a fitted model of 64 components; largest relative difference of a variance "
        f"from scikit-learn's: {'n/a' if error is None else f'{error:.1g}'}."
    )
    return section(f"PCA of {int(rows):,} x 1,280", text, bars(shown, "s", OWN))


def night_section(results: dict[str, Any]) -> str:
    """Render executor seconds and wall time of three nights."""
    night = results["night"]
    executor = [
        ("full run", night["full_executor_s"]),
        ("1 % new", night["one_percent_executor_s"]),
        ("nothing new", night["nothing_new_executor_s"]),
    ]
    wall = [
        ("full run, on the wall", night["full_wall_s"]),
        ("1 % new, on the wall", night["one_percent_wall_s"]),
        ("of which starting up", night["start_wall_s"]),
        ("nothing new, on the wall", night["nothing_new_wall_s"]),
    ]
    text = (
        f"{night['images']:,} photos. Executor seconds are what the cluster works; the wall has four starts of Spark "
        "in it. In production a night with nothing new starts no cluster at all."
    )
    processor = [
        (f"{name}, {role}s", results["details"]["night"][kind][f"{role}_cpu_s"])
        for kind, name in (("full", "full run"), ("one_percent", "1 % new"), ("nothing_new", "nothing new"))
        for role in ("driver", "worker")
    ]
    charts = bars(executor, "executor s", ("1 % new",)) + bars(processor, "CPU s") + bars(wall, "s")
    return section("Nights", text, charts)


def scaling_section(results: dict[str, Any]) -> str:
    """Render workers and images."""
    scaling = results["scaling"]
    by_workers = [(float(n), value) for n, value in scaling["workers"].items()]
    by_images = [(float(n), value) for n, value in scaling["images"].items()]
    chart = lines({"Fruits!": by_workers}, "workers", "img/s") + lines(
        {"Fruits!": by_images}, "images", "img/s"
    )
    return section("Scaling", "Images per second of the part of featurize that runs the model.", chart)


def memory_series(results: dict[str, Any]) -> dict[str, list[tuple[float, float | None]]]:
    """Return the memory of driver and worker over the number of images."""
    peaks = results["peak_memory_mb"]
    return {
        role: [(float(size), row.get(role)) for size, row in peaks.items() if row]
        for role in ("driver", "worker", "driver_live_heap")
    }


def facts(values: dict[str, Any]) -> str:
    """Render a table of names and values."""
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(flat(value))}</td></tr>"
        for name, value in values.items()
    )
    return f"<table>{rows}</table>"


def flat(value: Any) -> str:
    """Format a value on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return str(value)
