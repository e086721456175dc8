"""From single runs to results.json: medians, ratios, and nothing that was not measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.report.details import details
from bench.report.ratios import ratios
from bench.report.summary import Summary, figure_at, model_seconds, rate, seconds
from bench.runs import Run, Sizes
from bench.suite import PCA_PEERS

PEER_KEYS = ("predict_batch_udf", "ray_data_keras", "ray_data_litert", "daft_keras", "daft_litert")


def summarize(
    runs: Iterable[Run], sizes: Sizes, workers: int, machine: dict[str, Any], took_s: float | None = None
) -> dict[str, Any]:
    """Build results.json. Figures that a size does not run are null; so is `seconds` unless all ran in one go."""
    summary = Summary(runs)
    results = {
        "machine": machine,
        "sizes": sizes.name,
        "images": sizes.peers,
        "repeats": sizes.repeats,
        "seconds": None if took_s is None else round(took_s),
        "load": load(summary, sizes, workers),
        "featurize": featurize(summary, sizes, workers),
        "pca": pca(summary, sizes, workers),
        "night": night(summary, sizes, workers),
        "scaling": scaling(summary, sizes, workers),
        "peak_memory_mb": memory(summary, sizes, workers),
    }
    results["details"] = details(summary, sizes, workers)
    results["ratios"] = ratios(results)
    return results


def load(summary: Summary, sizes: Sizes, workers: int) -> dict[str, Any]:
    """Measure whole jobs: for ours that is listing, fetching, checks, MERGE and reconciliation."""
    size = sizes.peers
    our_job = summary.median("chain", "fruits", size, workers, figure_at("jobs", "load_images", "seconds"))
    peer = summary.median("peers", "binaryfile", size, workers, seconds)
    return {"fruits_img_s": rate(size, our_job), "binaryfile_img_s": rate(size, peer)}


def featurize(summary: Summary, sizes: Sizes, workers: int) -> dict[str, Any]:
    """Measure the part that runs the model, with its loading and the start of the workers."""
    size = sizes.peers

    def peer(name: str) -> float | None:
        return rate(size, summary.median("peers", name, size, workers, model_seconds))

    our_stage = summary.median("chain", "fruits", size, workers, figure_at("jobs", "featurize", "stage_s"))
    return {
        "fruits_img_s": rate(size, our_stage),
        "no_spark_limit_img_s": peer("no_spark_limit"),
        "notebook_img_s": peer("notebook"),
        "peers_img_s": {name: peer(name) for name in PEER_KEYS},
    }


def pca(summary: Summary, sizes: Sizes, workers: int) -> dict[str, Any]:
    """Measure from features on disk to a fitted model."""
    by_rows: dict[str, Any] = {"20000": {}, "100000": {}}
    for rows in sizes.pca:
        by_rows[str(rows)] = {
            f"{name}_s": summary.median("pca", name, rows, workers, seconds) for name in ("fruits", *PCA_PEERS)
        } | {"max_relative_error": summary.median("pca", "sklearn", rows, workers, figure_at("max_relative_error"))}
    return by_rows


def night(summary: Summary, sizes: Sizes, workers: int) -> dict[str, Any]:
    """Measure a full run, 1 % more photos, and nothing new; wall times include four starts of Spark."""
    size = sizes.images[-1]

    def of(kind: str, figure: str) -> float | None:
        return summary.median("night", kind, size, workers, figure_at(figure))

    return {
        "images": size,
        "full_executor_s": of("full", "executor_s"),
        "one_percent_executor_s": of("one_percent", "executor_s"),
        "nothing_new_executor_s": of("nothing_new", "executor_s"),
        "full_wall_s": of("full", "wall_s"),
        "one_percent_wall_s": of("one_percent", "wall_s"),
        "nothing_new_wall_s": of("nothing_new", "wall_s"),
        "start_wall_s": of("one_percent", "start_s"),
    }


def scaling(summary: Summary, sizes: Sizes, workers: int) -> dict[str, Any]:
    """Return images per second of the part of featurize that runs the model."""

    def of(size: int, slots: int) -> float | None:
        return rate(size, summary.median("chain", "fruits", size, slots, figure_at("jobs", "featurize", "stage_s")))

    images = {str(size): of(size, workers) for size in (*sizes.images, 1000, 5000, 20000)}
    return {"workers": {str(n): of(sizes.peers, n) for n in sorted({1, workers})}, "images": images}


def memory(summary: Summary, sizes: Sizes, workers: int) -> dict[str, Any]:
    """Return the largest resident memory of Spark's driver (JVM and Python) and of one Python worker.

    `driver_live_heap` is the most that a full collection left of a JVM's heap, in runs of their own with a heap that is
    kept tight (`gclog.TIGHT`): resident memory says what heap a JVM was given.
    """
    by_size: dict[str, Any] = {"1000": {}, "20000": {}}
    for size in sizes.images:
        by_size[str(size)] = {
            "driver": summary.median("chain", "fruits", size, workers, figure_at("driver_mb")),
            "worker": summary.median("chain", "fruits", size, workers, figure_at("worker_mb")),
            "driver_live_heap": summary.median("memory", "fruits", size, workers, figure_at("driver_live_heap_mb")),
        }
    return by_size
