"""The table that ends a demo: did it work, what came out, where is it, what did it cost."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fruits_airflow.report.units import size, weights

VOLUMES = ("input", "pixels", "features", "pca")
STAGES = ("cluster_start", "load_images", "featurize", "reduce_pca", "publish", "terminate")


def summary(run: Mapping[str, Any], files: Iterable[Path]) -> str:
    """Return the summary of a run as text.

    Args:
        run: the run's run.json.
        files: what was left for the reader.
    """
    rows = [
        ("state", f"{run['state']}   ({run['run_id']})"),
        ("cluster", _cluster(run)),
        ("images", _images(run["images"])),
        *([("rejects", _counts(run["rejects_by_code"]))] if run["rejects_by_code"] else []),
        ("metadata", f"stripped from {run['metadata_stripped']} photos (GPS, camera, time: never stored)"),
        ("features", _features(run["features"])),
        ("PCA", _pca(run["pca"])),
        ("volume", " → ".join(f"{name} {size(run['bytes'].get(name, 0))}" for name in VOLUMES)),
        ("quality", _quality(run["quality"])),
        ("seconds", _seconds(run["seconds"])),
        ("cost on AWS", _cost(run["cost"]) + ("; simulated, nothing was billed" if run.get("simulated") else "")),
        *(("look at" if number == 0 else "", str(path)) for number, path in enumerate(files)),
    ]
    return "\n".join(f"  {name:<12} {text}" for name, text in rows)


def _cluster(run: Mapping[str, Any]) -> str:
    cluster = run["cluster"]
    if not cluster.get("id"):
        return "none was created"
    kind = f"; {cluster['engine']}, executors: {cluster['executors']}, hosts: {cluster['hosts']}"
    kind *= cluster["hosts"] > 0  # one process has no executors
    return f"{cluster['id']} in {run['region']}, {cluster['release']}, {cluster['state']}{kind}"


def _images(images: Mapping[str, int]) -> str:
    return (
        f"{images['seen']} seen, {images['new']} new or changed: "
        f"{images['loaded']} loaded, {images['rejected']} rejected; {images['removed']} removed"
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {code}" for code, count in sorted(counts.items()))


def _features(features: Mapping[str, Any]) -> str:
    return (
        f"{features['rows']} vectors of 1280 ({features['engine']}, weights: {weights(features['weights'])}, "
        f"model {str(features['model_id'])[:12]})"
    )


def _pca(pca: Mapping[str, Any]) -> str:
    if not pca.get("k"):
        return "none"
    return f"{pca['k']} of 1280 components keep {pca['explained_variance']:.1%} of the variance of {pca['n']} vectors"


def _quality(quality: Mapping[str, Any]) -> str:
    checks = quality.get("checks", {})
    failed = [name for name, check in checks.items() if not check["ok"]]
    passed = f"{len(checks)} checks passed" if checks else "not checked"
    verdict = f"failed: {', '.join(failed)}" if failed else passed
    knn = [
        f"{name} {quality[key]:.1%}"
        for name, key in (("features", "knn_accuracy_features"), ("PCA", "knn_accuracy_pca"))
        if quality.get(key) is not None
    ]
    return verdict + (f"; nearest neighbour has the same label: {', '.join(knn)}" if knn else "")


def _seconds(seconds: Mapping[str, float]) -> str:
    parts = ", ".join(f"{name} {seconds.get(name) or 0:.0f}" for name in STAGES)
    return f"{seconds.get('total') or 0:.0f}  ({parts})"


def _cost(cost: Mapping[str, float]) -> str:
    return (
        f"{cost['estimate_eur']:.4f} EUR by the cluster's real times "
        f"(forecast {cost['forecast_eur']:.4f}, ceiling {cost['ceiling_eur']:.2f})"
    )
