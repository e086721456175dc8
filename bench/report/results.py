"""From single runs to results.json: medians, ratios, and nothing that was not measured."""

from collections.abc import Iterable
from typing import Any

from bench.report.details import details
from bench.report.ratios import ratios
from bench.report.summary import MODEL_S, Summary, rate
from bench.runs import Run, Sizes
from bench.suite import PCA_PEERS

PEER_KEYS = ("predict_batch_udf", "ray_data_keras", "ray_data_litert", "daft_keras", "daft_litert")


def summarize(
    runs: Iterable[Run], sizes: Sizes, workers: int, machine: dict[str, Any], took_s: float | None = None
) -> dict[str, Any]:
    """Build results.json. Figures that a size does not run are null; so is `seconds` unless all ran in one go."""
    summary = Summary(runs, sizes, workers)
    results = {
        "machine": machine,
        "sizes": sizes.name,
        "images": sizes.peers,
        "repeats": sizes.repeats,
        "seconds": None if took_s is None else round(took_s),
        "end_to_end": end_to_end(summary),
        "load": load(summary),
        "featurize": featurize(summary),
        "pca": pca(summary),
        "night": night(summary),
        "scaling": scaling(summary),
        "peak_memory_mb": memory(summary),
    }
    results["details"] = details(summary)
    results["ratios"] = ratios(results)
    return results


def end_to_end(summary: Summary) -> dict[str, Any]:
    """Measure photos in, vectors out: our two jobs together, and peers, by size; `12mp` are photos of 12 megapixels."""
    sizes = summary.sizes
    names = ("no_spark_limit", "notebook", *PEER_KEYS)

    def of(section: str, chain: str, size: int) -> dict[str, Any]:
        peers = {name: rate(size, summary.median(section, name, size, "seconds")) for name in names}
        return {
            "images": size,
            "fruits_img_s": rate(size, summary.load_and_featurize(size, chain)),
            "peers_img_s": peers,
        }

    by_size = {str(size): of("peers", "chain", size) for size in (sizes.peers, sizes.images[-1])}
    return by_size | {"12mp": of("phones", "phones", sizes.phones)}


def load(summary: Summary) -> dict[str, Any]:
    """Measure whole jobs: for ours that is listing, fetching, checks, MERGE and reconciliation."""
    size = summary.sizes.peers
    return {
        "fruits_img_s": rate(size, summary.job("load_images", size)),
        "binaryfile_img_s": rate(size, summary.peer("binaryfile", size, "seconds")),
    }


def featurize(summary: Summary) -> dict[str, Any]:
    """Measure the part that runs the model, with its loading and the start of the workers."""
    size = summary.sizes.peers

    def peer(name: str) -> float | None:
        return rate(size, summary.peer(name, size, *MODEL_S))

    return {
        "fruits_img_s": rate(size, summary.job("featurize", size, "stage_s")),
        "no_spark_limit_img_s": peer("no_spark_limit"),
        "notebook_img_s": peer("notebook"),
        "peers_img_s": {name: peer(name) for name in PEER_KEYS},
    }


def pca(summary: Summary) -> dict[str, Any]:
    """Measure from features on disk to a fitted model."""
    by_rows: dict[str, Any] = {"20000": {}, "100000": {}}
    for rows in summary.sizes.pca:
        seconds = {f"{name}_s": summary.median("pca", name, rows, "seconds") for name in ("fruits", *PCA_PEERS)}
        error = summary.median("pca", "sklearn", rows, "max_relative_error")
        by_rows[str(rows)] = seconds | {"max_relative_error": error}
    return by_rows


def night(summary: Summary) -> dict[str, Any]:
    """Measure a full run, 1 % more photos, and nothing new; wall times include four starts of Spark."""
    size = summary.sizes.images[-1]
    figures = {
        f"{kind}_{figure}": summary.median("night", kind, size, figure)
        for figure in ("executor_s", "wall_s")
        for kind in ("full", "one_percent", "nothing_new")
    }
    return {"images": size, **figures, "start_wall_s": summary.median("night", "one_percent", size, "start_s")}


def scaling(summary: Summary) -> dict[str, Any]:
    """Return images per second of the part of featurize that runs the model."""

    def of(size: int, workers: int) -> float | None:
        return rate(size, summary.job("featurize", size, "stage_s", workers))

    sizes, workers = summary.sizes, summary.workers
    images = {str(size): of(size, workers) for size in (*sizes.images, 1000, 5000, 20000)}
    return {"workers": {str(n): of(sizes.peers, n) for n in sorted({1, workers})}, "images": images}


def memory(summary: Summary) -> dict[str, Any]:
    """Return the largest resident memory of Spark's driver (JVM and Python) and of one Python worker.

    `driver_live_heap` is the most that a full collection left of a JVM's heap, in runs of their own with a heap that is
    kept tight (`gclog.TIGHT`): resident memory says what heap a JVM was given.
    """
    sections = {"driver": "chain", "worker": "chain", "driver_live_heap": "memory"}
    return {"1000": {}, "20000": {}} | {
        str(size): {name: summary.median(section, "fruits", size, f"{name}_mb") for name, section in sections.items()}
        for size in summary.sizes.images
    }
