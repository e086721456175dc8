"""The same runs seen otherwise: whole jobs, start-up taken out, processor time, memory, agreement."""

from typing import Any

from bench.measure import STAGES
from bench.report.summary import MODEL_S, Summary, marginal, milliseconds, per_image, rate, ratio
from bench.suite import FASTEST_PEER, PEERS

BYTES = {"input": "load_images", "pixels": "load_images", "features": "featurize", "pca": "publish"}
"""Which job reports the bytes of what."""


def details(summary: Summary) -> dict[str, Any]:
    """Compute the further figures: whole jobs, without start-up, the large set, memory, agreement."""
    sizes, job, peer = summary.sizes, summary.job, summary.peer
    size, first, large = sizes.peers, sizes.images[0], sizes.images[-1]

    def further_by_peer(name: str) -> float | None:
        return marginal(sizes.small, size, lambda count: peer(name, count, "seconds"))

    def further_by_job(stage: str, figure: str = "seconds") -> float | None:
        return marginal(first, large, lambda count: job(stage, count, figure))

    return {
        "whole_job_img_s": {name: rate(size, peer(name, size, "seconds")) for name in PEERS}
        | {
            "fruits_featurize": rate(size, job("featurize", size)),
            "fruits_load_and_featurize": rate(size, summary.load_and_featurize(size)),
        },
        "each_further_img_s": {name: further_by_peer(name) for name in PEERS}
        | {"fruits_featurize": further_by_job("featurize")},
        "load_each_further_img_s": {
            "fruits": further_by_job("load_images"),
            "binaryfile": further_by_peer("binaryfile"),
        },
        "large": {
            "images": large,
            "fruits_img_s": rate(large, job("featurize", large, "stage_s")),
            "fruits_whole_job_img_s": rate(large, job("featurize", large)),
            "fruits_load_and_featurize_img_s": rate(large, summary.load_and_featurize(large)),
            "no_spark_limit_img_s": rate(large, peer("no_spark_limit", large, "seconds")),
            "best_peer_img_s": rate(large, peer(FASTEST_PEER, large, "seconds")),
        },
        "one_worker": {
            "fruits_img_s": rate(size, job("featurize", size, "stage_s", workers=1)),
            "no_spark_limit_img_s": rate(size, peer("no_spark_limit", size, *MODEL_S, workers=1)),
        },
        "night": night(summary),
        "core_ms_per_further_image": {stage: milliseconds(further_by_job(stage, "executor_s")) for stage in STAGES}
        | {"reduce_pca": _sum_milliseconds(summary)},
        "bytes_per_image": {
            name: per_image(large, summary.median("chain", "fruits", large, f"bytes.{stage}.{name}"))
            for name, stage in BYTES.items()
        },
        "peer_memory_mb": {name: peer(name, size, "memory_mb") for name in PEERS},
        "max_difference_from_ours": {name: peer(name, size, "max_difference") for name in PEERS},
        "load_average": summary.load(),
        "commits": summary.commits(),
    }


def night(summary: Summary) -> dict[str, Any]:
    """Processor seconds of each night: of the four drivers (their executors in them) and of the Python workers.

    `one_percent_beyond_nothing_new_share` is what the night with 1 % new takes beyond the one with nothing new, of what
    the full run takes beyond it: all processes, so that work moved from executors to a driver would show.
    """
    figures: dict[str, Any] = {
        kind: {
            figure: summary.median("night", kind, summary.sizes.images[-1], figure)
            for figure in ("driver_cpu_s", "worker_cpu_s")
        }
        for kind in ("full", "one_percent", "nothing_new")
    }
    totals = {kind: sum(row.values()) for kind, row in figures.items() if all(v is not None for v in row.values())}
    if len(totals) == len(figures):
        least = totals["nothing_new"]
        figures["one_percent_beyond_nothing_new_share"] = ratio(totals["one_percent"] - least, totals["full"] - least)
    return figures


def _sum_milliseconds(summary: Summary) -> float | None:
    """Return the core milliseconds to sum a further row, which the driver does on all cores."""
    few, many = summary.sizes.pca[0], summary.sizes.pca[-1]
    wall = milliseconds(marginal(few, many, lambda rows: summary.median("pca", "fruits", rows, "seconds")))
    return None if wall is None else round(wall * summary.workers, 4)
