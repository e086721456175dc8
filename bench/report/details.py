"""The same runs seen otherwise: whole jobs, start-up taken out, processor time, memory, agreement, noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.measure import STAGES
from bench.report.summary import (
    Summary,
    figure_at,
    marginal,
    milliseconds,
    model_seconds,
    per_image,
    rate,
    ratio,
    seconds,
)
from bench.runs import Sizes
from bench.suite import FASTEST_PEER, PCA_PEERS, PEERS

BYTES = {"input": "load_images", "pixels": "load_images", "features": "featurize", "pca": "publish"}
"""Which job reports the bytes of what."""

BATCHES = (1, 2, 4, 8)
"""As `bench.peers.batching`, which needs the engine to be imported, has them; a test compares."""


def details(summary: Summary, sizes: Sizes, workers: int) -> dict[str, Any]:
    """Compute the further figures: whole jobs, without start-up, the large set, memory, agreement, noise."""
    size, large, small = sizes.peers, sizes.images[-1], sizes.small

    def took(name: str, count: int) -> float | None:
        return summary.median("peers", name, count, workers, seconds)

    def ours(stage: str, count: int, figure: str = "seconds") -> float | None:
        return summary.median("chain", "fruits", count, workers, figure_at("jobs", stage, figure))

    whole = {name: rate(size, took(name, size)) for name in PEERS} | {
        "fruits_featurize": rate(size, ours("featurize", size))
    }
    whole["fruits_load_and_featurize"] = rate(size, load_and_featurize(ours, size))
    first = sizes.images[0]
    further = {name: marginal((small, size), (took(name, small), took(name, size))) for name in PEERS} | {
        "fruits_featurize": marginal((first, large), (ours("featurize", first), ours("featurize", large)))
    }
    return {
        "whole_job_img_s": whole,
        "each_further_img_s": further,
        "load_each_further_img_s": {
            "fruits": marginal((first, large), (ours("load_images", first), ours("load_images", large))),
            "binaryfile": marginal((small, size), (took("binaryfile", small), took("binaryfile", size))),
        },
        "large": {
            "images": large,
            "fruits_img_s": rate(large, ours("featurize", large, "stage_s")),
            "fruits_whole_job_img_s": rate(large, ours("featurize", large)),
            "fruits_load_and_featurize_img_s": rate(large, load_and_featurize(ours, large)),
            "no_spark_limit_img_s": rate(large, took("no_spark_limit", large)),
            "best_peer_img_s": rate(large, took(FASTEST_PEER, large)),
            "load_whole_job_img_s": rate(large, ours("load_images", large)),
        },
        "one_worker": {
            "fruits_img_s": rate(
                size, summary.median("chain", "fruits", size, 1, figure_at("jobs", "featurize", "stage_s"))
            ),
            "no_spark_limit_img_s": rate(size, summary.median("peers", "no_spark_limit", size, 1, model_seconds)),
        },
        "night": night(summary, sizes, workers),
        "batching": batching(summary, sizes, workers),
        "memory_by_stage_mb": {str(count): memory_by_stage(summary, count, workers) for count in sizes.images},
        "job_seconds": {
            str(count): {stage: ours(stage, count) for stage in ("load_images", "featurize", "reduce_pca", "publish")}
            for count in (size, *sizes.images)
        },
        "core_ms_per_further_image": {
            stage: milliseconds(
                marginal((first, large), (ours(stage, first, "executor_s"), ours(stage, large, "executor_s")))
            )
            for stage in STAGES
        }
        | {"reduce_pca": _sum_milliseconds(summary, sizes, workers)},
        "bytes_per_image": {
            name: per_image(large, summary.median("chain", "fruits", large, workers, figure_at("bytes", stage, name)))
            for name, stage in BYTES.items()
        },
        "peer_memory_mb": {
            name: summary.median("peers", name, size, workers, figure_at("memory_mb")) for name in PEERS
        },
        "max_difference_from_ours": {
            name: summary.median("peers", name, size, workers, figure_at("max_difference")) for name in PEERS
        },
        "pca": {
            str(rows): {
                name: {
                    figure: summary.median("pca", name, rows, workers, figure_at(figure))
                    for figure in ("stage_s", "memory_mb", "max_relative_error", "subspace_sine")
                }
                for name in ("fruits", *PCA_PEERS)
            }
            for rows in sizes.pca
        },
        "spread_of_repeats": {
            "fruits_featurize": summary.spread(
                "chain", "fruits", size, workers, figure_at("jobs", "featurize", "stage_s")
            ),
            **{name: summary.spread("peers", name, size, workers, model_seconds) for name in PEERS},
        },
        "load_average": summary.load(),
        "commits": summary.commits(),
    }


def load_and_featurize(ours: Callable[[str, int], float | None], size: int) -> float | None:
    """Return the seconds of both jobs, which together do what a peer does in one."""
    both = [ours(stage, size) for stage in ("load_images", "featurize")]
    return sum(filter(None, both)) if all(both) else None


def night(summary: Summary, sizes: Sizes, workers: int) -> dict[str, Any]:
    """Processor seconds of each night: of the four drivers (their executors in them) and of the Python workers.

    `one_percent_beyond_nothing_new_share` is what the night with 1 % new takes beyond the one with nothing new, of what
    the full run takes beyond it: all processes, so that work moved from executors to a driver would show.
    """
    figures: dict[str, Any] = {}
    for kind in ("full", "one_percent", "nothing_new"):
        driver, worker = (
            summary.median("night", kind, sizes.images[-1], workers, figure_at(f"{role}_cpu_s"))
            for role in ("driver", "worker")
        )
        figures[kind] = {"driver_cpu_s": driver, "worker_cpu_s": worker}
    totals = {kind: sum(row.values()) for kind, row in figures.items() if all(v is not None for v in row.values())}
    if len(totals) == len(figures):
        least = totals["nothing_new"]
        figures["one_percent_beyond_nothing_new_share"] = ratio(totals["one_percent"] - least, totals["full"] - least)
    return figures


def memory_by_stage(summary: Summary, size: int, workers: int) -> dict[str, dict[str, float | None]]:
    """Return the memory of driver and worker, and the live heap, of each of our jobs."""

    def of(section: str, *path: str) -> float | None:
        return summary.median(section, "fruits", size, workers, figure_at(*path))

    return {
        stage: {
            "driver": of("chain", "memory_by_stage_mb", stage, "driver"),
            "worker": of("chain", "memory_by_stage_mb", stage, "worker"),
            "driver_live_heap": of("memory", "live_heap_by_stage_mb", stage),
        }
        for stage in STAGES
    }


def batching(summary: Summary, sizes: Sizes, workers: int) -> dict[str, Any]:
    """Return images per second and CPU milliseconds per image by batch, with and without a thread that decodes."""

    def of(figure: str, setting: str) -> float | None:
        return summary.median("batching", "fruits", sizes.batching, workers, figure_at(figure, setting))

    return {
        figure: {setting: of(figure, setting) for batch in BATCHES for setting in (f"{batch}", f"{batch}_ahead")}
        for figure in ("img_s", "core_ms")
    }


def _sum_milliseconds(summary: Summary, sizes: Sizes, workers: int) -> float | None:
    """Return the core milliseconds to sum a further row, which the driver does on all cores."""
    few, many = sizes.pca[0], sizes.pca[-1]
    took = (
        summary.median("pca", "fruits", few, workers, seconds),
        summary.median("pca", "fruits", many, workers, seconds),
    )
    wall = milliseconds(marginal((few, many), took))
    return None if wall is None else round(wall * workers, 4)
