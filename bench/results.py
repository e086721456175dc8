"""From single runs to results.json: medians, ratios, and nothing that was not measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

from bench.measure import STAGES
from bench.suite import PCA_PEERS, PEERS, Run, Sizes

BYTES = {"input": "load_images", "pixels": "load_images", "features": "featurize", "pca": "publish"}
"""Which job reports the bytes of what."""

PEER_KEYS = ("predict_batch_udf", "ray_data_keras", "ray_data_litert", "daft_keras", "daft_litert")
Figure = Callable[[Run], float | None]


class Summary:
    """Medians over the runs of one suite."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = list(runs)

    def median(self, section: str, contestant: str, size: int, workers: int, figure: Figure) -> float | None:
        """The median of a figure; None where it was not measured."""
        values = [
            value
            for run in self._runs
            if (run.section, run.contestant, run.size, run.workers) == (section, contestant, size, workers)
            if (value := figure(run)) is not None
        ]
        return statistics.median(values) if values else None

    def spread(self, section: str, contestant: str, size: int, workers: int, figure: Figure) -> float | None:
        """Largest over smallest of a figure, the noise of the machine; None below two runs."""
        values = [
            value
            for run in self._runs
            if (run.section, run.contestant, run.size, run.workers) == (section, contestant, size, workers)
            if (value := figure(run)) is not None
        ]
        return round(max(values) / min(values), 2) if len(values) > 1 else None

    def load(self) -> dict[str, float]:
        """How busy the machine was when runs began."""
        loads = [run.load_average for run in self._runs]
        return {"median": statistics.median(loads), "max": max(loads)} if loads else {}

    def commits(self) -> dict[str, list[str]]:
        """What each commit was measured in: sections may have been measured again since the others."""
        return {
            commit: sorted({run.section for run in self._runs if run.commit == commit})
            for commit in sorted({run.commit for run in self._runs})
        }


def seconds(run: Run) -> float | None:
    """A peer's clock: framework ready to results on disk."""
    return run.figures.get("seconds")


def model_seconds(run: Run) -> float | None:
    """The part that runs the model: the Spark stage, or the whole clock where there is no Spark."""
    return run.figures.get("stage_s", run.figures.get("seconds"))


def job(stage: str, figure: str) -> Figure:
    """A figure of one of our jobs."""
    return lambda run: run.figures["jobs"][stage][figure] if "jobs" in run.figures else None


def plain(name: str) -> Figure:
    """A figure as it is."""
    return lambda run: run.figures.get(name)


def _sum_milliseconds(summary: Summary, sizes: Sizes, workers: int) -> float | None:
    """Milliseconds of a core to sum one further row: the driver does it on all cores, and executors do nothing."""
    few, many = sizes.pca[0], sizes.pca[-1]
    took = (
        summary.median("pca", "fruits", few, workers, seconds),
        summary.median("pca", "fruits", many, workers, seconds),
    )
    wall = milliseconds(marginal((few, many), took))
    return None if wall is None else round(wall * workers, 4)


def bytes_of(stage: str, name: str) -> Figure:
    """Bytes that a job reported."""
    return lambda run: run.figures.get("bytes", {}).get(stage, {}).get(name)


def per_image(size: int, total: float | None) -> float | None:
    """A total shared out."""
    return None if total is None else round(total / size, 1)


def milliseconds(per_second: float | None) -> float | None:
    """What one takes, from how many a second makes."""
    return None if not per_second else round(1000 / per_second, 4)


def rate(size: int, took: float | None) -> float | None:
    """Images per second."""
    return None if not took else round(size / took, 1)


def marginal(sizes: tuple[int, int], took: tuple[float | None, float | None]) -> float | None:
    """Images per second of what a larger set costs more: starting up cancels out."""
    small, large = took
    if small is None or large is None or large <= small or sizes[1] <= sizes[0]:
        return None
    return round((sizes[1] - sizes[0]) / (large - small), 2)


def ratio(a: float | None, b: float | None) -> float | None:
    """A / b."""
    return None if a is None or not b else round(a / b, 3)


def summarize(runs: Iterable[Run], sizes: Sizes, workers: int, machine: dict[str, Any]) -> dict[str, Any]:
    """Builds results.json. What a size does not run is null."""
    summary = Summary(runs)
    found = {
        "machine": machine,
        "sizes": sizes.name,
        "images": sizes.peers,
        "repeats": sizes.repeats,
        "load": load(summary, sizes, workers),
        "featurize": featurize(summary, sizes, workers),
        "pca": pca(summary, sizes, workers),
        "night": night(summary, sizes, workers),
        "scaling": scaling(summary, sizes, workers),
        "peak_memory_mb": memory(summary, sizes, workers),
    }
    found["ratios"] = ratios(found)
    found["details"] = details(summary, sizes, workers)
    return found


def load(summary: Summary, sizes: Sizes, workers: int) -> dict[str, Any]:
    """Whole jobs: for ours that is listing, fetching, checks, MERGE and reconciliation."""
    size = sizes.peers
    our_job = summary.median("chain", "fruits", size, workers, job("load_images", "seconds"))
    peer = summary.median("peers", "binaryfile", size, workers, seconds)
    return {"fruits_img_s": rate(size, our_job), "binaryfile_img_s": rate(size, peer)}


def featurize(summary: Summary, sizes: Sizes, workers: int) -> dict[str, Any]:
    """The part that runs the model, its loading and the workers' start included."""
    size = sizes.peers

    def peer(name: str) -> float | None:
        return rate(size, summary.median("peers", name, size, workers, model_seconds))

    our_stage = summary.median("chain", "fruits", size, workers, job("featurize", "stage_s"))
    return {
        "fruits_img_s": rate(size, our_stage),
        "no_spark_limit_img_s": peer("no_spark_limit"),
        "notebook_img_s": peer("notebook"),
        "peers_img_s": {name: peer(name) for name in PEER_KEYS},
    }


def pca(summary: Summary, sizes: Sizes, workers: int) -> dict[str, Any]:
    """From features on disk to a fitted model."""
    found: dict[str, Any] = {"20000": {}, "100000": {}}
    for rows in sizes.pca:
        found[str(rows)] = {
            f"{name}_s": summary.median("pca", name, rows, workers, seconds)
            for name in ("fruits", *PCA_PEERS)
        } | {
            "max_relative_error": summary.median("pca", "sklearn", rows, workers, plain("max_relative_error"))
        }
    return found


def night(summary: Summary, sizes: Sizes, workers: int) -> dict[str, Any]:
    """A full run, then 1 % more photos, then nothing new; wall times include four starts of Spark."""
    size = sizes.images[-1]

    def of(kind: str, figure: str) -> float | None:
        return summary.median("night", kind, size, workers, plain(figure))

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
    """Images per second of the part of featurize that runs the model."""

    def of(size: int, slots: int) -> float | None:
        return rate(size, summary.median("chain", "fruits", size, slots, job("featurize", "stage_s")))

    images = {str(size): of(size, workers) for size in (*sizes.images, 1000, 5000, 20000)}
    return {"workers": {str(n): of(sizes.peers, n) for n in sorted({1, workers})}, "images": images}


def memory(summary: Summary, sizes: Sizes, workers: int) -> dict[str, Any]:
    """Largest resident memory of Spark's driver (JVM and Python) and of one Python worker, over the four jobs."""
    found: dict[str, Any] = {"1000": {}, "20000": {}}
    for size in sizes.images:
        found[str(size)] = {
            role: summary.median("chain", "fruits", size, workers, plain(f"{role}_mb"))
            for role in ("driver", "worker")
        }
    return found


def ratios(found: dict[str, Any]) -> dict[str, Any]:
    """What the figures say against what was asked for."""
    made, our_rate = found["featurize"], found["featurize"]["fruits_img_s"]
    best = max((value for value in made["peers_img_s"].values() if value), default=None)
    return {
        "featurize_over_notebook": ratio(our_rate, made["notebook_img_s"]),
        "featurize_over_limit": ratio(our_rate, made["no_spark_limit_img_s"]),
        "featurize_over_best_peer": ratio(our_rate, best),
        "load_over_binaryfile": ratio(found["load"]["fruits_img_s"], found["load"]["binaryfile_img_s"]),
        "pca_over_mllib": {
            rows: ratio(row.get("mllib_s"), row.get("fruits_s")) for rows, row in found["pca"].items() if row
        },
        "pca_over_sklearn": {
            rows: ratio(row.get("sklearn_s"), row.get("fruits_s"))
            for rows, row in found["pca"].items()
            if row
        },
        "one_percent_night_executor_share": ratio(
            found["night"]["one_percent_executor_s"], found["night"]["full_executor_s"]
        ),
    }


def details(summary: Summary, sizes: Sizes, workers: int) -> dict[str, Any]:
    """The same runs seen otherwise: whole jobs, start-up taken out, the large set, memory, agreement, noise."""
    size, large, small = sizes.peers, sizes.images[-1], sizes.small

    def took(name: str, count: int) -> float | None:
        return summary.median("peers", name, count, workers, seconds)

    def ours(stage: str, count: int, figure: str = "seconds") -> float | None:
        return summary.median("chain", "fruits", count, workers, job(stage, figure))

    whole = {name: rate(size, took(name, size)) for name in PEERS} | {
        "fruits_featurize": rate(size, ours("featurize", size)),
    }
    both = [ours("load_images", size), ours("featurize", size)]
    whole["fruits_load_and_featurize"] = rate(size, sum(filter(None, both))) if all(both) else None
    first = sizes.images[0]
    further = {name: marginal((small, size), (took(name, small), took(name, size))) for name in PEERS} | {
        "fruits_featurize": marginal((first, large), (ours("featurize", first), ours("featurize", large))),
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
            "no_spark_limit_img_s": rate(large, took("no_spark_limit", large)),
            "load_whole_job_img_s": rate(large, ours("load_images", large)),
        },
        "one_worker": {
            "fruits_img_s": rate(
                size, summary.median("chain", "fruits", size, 1, job("featurize", "stage_s"))
            ),
            "no_spark_limit_img_s": rate(
                size, summary.median("peers", "no_spark_limit", size, 1, model_seconds)
            ),
        },
        "job_seconds": {
            str(count): {
                stage: ours(stage, count) for stage in ("load_images", "featurize", "reduce_pca", "publish")
            }
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
            name: per_image(large, summary.median("chain", "fruits", large, workers, bytes_of(stage, name)))
            for name, stage in BYTES.items()
        },
        "peer_memory_mb": {
            name: summary.median("peers", name, size, workers, plain("memory_mb")) for name in PEERS
        },
        "max_difference_from_ours": {
            name: summary.median("peers", name, size, workers, plain("max_difference")) for name in PEERS
        },
        "pca": {
            str(rows): {
                name: {
                    figure: summary.median("pca", name, rows, workers, plain(figure))
                    for figure in ("stage_s", "memory_mb", "max_relative_error", "subspace_sine")
                }
                for name in ("fruits", *PCA_PEERS)
            }
            for rows in sizes.pca
        },
        "spread_of_repeats": {
            "fruits_featurize": summary.spread("chain", "fruits", size, workers, job("featurize", "stage_s")),
            **{name: summary.spread("peers", name, size, workers, model_seconds) for name in PEERS},
        },
        "load_average": summary.load(),
        "commits": summary.commits(),
    }
