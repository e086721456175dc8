"""What the figures say against each other, and what was asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.report.summary import ratio
from bench.suite import FASTEST_PEER

FLAT = 1.25
"""What was asked for is that memory stays flat.

It is asked of sets that fill what the writers of Parquet hold of a file (16 MB in each task, some 3,000 photos in two).
"""


def times(value: float | None) -> str:
    """Format a factor."""
    return "n/a" if value is None else f"{number(value)} times"


def percent(value: float | None) -> str:
    """Format a share."""
    return "n/a" if value is None else f"{value:.1%}"


def number(value: float | None) -> str:
    """Format a figure with three significant digits."""
    if value is None:
        return "n/a"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def photos_of(size: str, row: dict[str, Any]) -> str:
    """Name a set of photos of `end_to_end`."""
    return f"{row['images']:,} photos of {'12 MP' if size == '12mp' else '100 px'}"


@dataclass(frozen=True)
class Expectation:
    """A ratio, and the bound that was asked for."""

    label: str  # what is compared with what
    value: float | None  # as measured; None where it was not
    bound: float | None  # what was asked for; None where nothing was
    show: Callable[[float | None], str] = times  # the figure as people read it
    at_most: bool = False  # whether the bound is the most that it may be, and not the least

    @property
    def bound_text(self) -> str:
        """The bound in words."""
        if self.bound is None:
            return "-"
        return f"{'≤' if self.at_most else '≥'} {self.show(self.bound)}"

    @property
    def met(self) -> bool:
        """Whether it is within the bound; what has none or was not measured is."""
        if self.bound is None or self.value is None:
            return True
        return self.value <= self.bound if self.at_most else self.value >= self.bound


def ratios(results: dict[str, Any]) -> dict[str, Any]:
    """Compute the ratios of the figures."""
    rates, our_rate = results["featurize"], results["featurize"]["fruits_img_s"]
    details, peaks = results["details"], results["peak_memory_mb"]
    whole, large = details["whole_job_img_s"], details["large"]
    best_whole = max((whole[name] for name in rates["peers_img_s"] if whole[name]), default=None)
    best = max((value for value in rates["peers_img_s"].values() if value), default=None)
    sizes = sorted(int(size) for size, row in peaks.items() if row)

    def growth(fewer: int) -> dict[str, float | None]:
        return {
            what: ratio(peaks[str(sizes[-1])][what], peaks[str(fewer)][what])
            for what in ("driver_live_heap", "driver", "worker")
        }

    end_to_end = {}
    for size, row in results["end_to_end"].items():
        peers = [value for name, value in row["peers_img_s"].items() if value and name != "no_spark_limit"]
        end_to_end[size] = ratio(row["fruits_img_s"], max(peers, default=None))
    return {
        "end_to_end_over_best_peer": end_to_end,
        "featurize_over_notebook": ratio(our_rate, rates["notebook_img_s"]),
        "featurize_over_limit": ratio(our_rate, rates["no_spark_limit_img_s"]),
        "featurize_over_best_peer": ratio(our_rate, best),
        "whole_job_over_limit": ratio(whole["fruits_featurize"], whole["no_spark_limit"]),
        "whole_job_over_best_peer": ratio(whole["fruits_featurize"], best_whole),
        "large": {
            "featurize_over_limit": ratio(large["fruits_img_s"], large["no_spark_limit_img_s"]),
            "featurize_over_best_peer": ratio(large["fruits_img_s"], large["best_peer_img_s"]),
            "whole_job_over_limit": ratio(large["fruits_whole_job_img_s"], large["no_spark_limit_img_s"]),
            "whole_job_over_best_peer": ratio(large["fruits_whole_job_img_s"], large["best_peer_img_s"]),
        },
        "pca_over_mllib": {
            rows: ratio(row.get("mllib_s"), row.get("fruits_s")) for rows, row in results["pca"].items() if row
        },
        "one_percent_night_executor_share": ratio(
            results["night"]["one_percent_executor_s"], results["night"]["full_executor_s"]
        ),
        "memory_growth": {str(fewer): {"images": sizes[-1], **growth(fewer)} for fewer in sizes[:-1]},
    }


def expectations(results: dict[str, Any]) -> list[Expectation]:
    """Return every ratio that has a bound, and those that put it into context."""
    measured, large = results["ratios"], results["ratios"]["large"]
    few, many = f"{results['images']:,} photos", f"{results['details']['large']['images']:,} photos"
    peer = f"the fastest peer ({FASTEST_PEER.replace('_', ', ')})"

    limit, model = "the same engine without Spark", "running the model, against"
    limit_of_model = f"{model} {limit} (its whole job)"
    over = measured["end_to_end_over_best_peer"]
    rows = [
        Expectation(f"both jobs, against the fastest peer, {photos_of(size, row)}", over[size], goal)
        for size, row in results["end_to_end"].items()
        for goal in [2.5 if size == "12mp" else 1.0]
    ]
    rows += [
        Expectation(f"{model} the usual notebook, {few}", measured["featurize_over_notebook"], 5.0),
        Expectation(f"{limit_of_model}, {few}", measured["featurize_over_limit"], 0.95, percent),
        Expectation(f"{limit_of_model}, {many}", large["featurize_over_limit"], 0.95, percent),
        Expectation(f"whole job, against {limit}, {few}", measured["whole_job_over_limit"], None, percent),
        Expectation(f"whole job, against {limit}, {many}", large["whole_job_over_limit"], 0.95, percent),
        Expectation(f"{model} the fastest peer, {few}", measured["featurize_over_best_peer"], 1.0),
        Expectation(f"{model} {peer}, {many}", large["featurize_over_best_peer"], 1.0),
        Expectation(f"whole job, against the fastest peer, {few}", measured["whole_job_over_best_peer"], 1.0),
        Expectation(f"whole job, against {peer}, {many}", large["whole_job_over_best_peer"], 1.0),
    ]
    rows += [
        Expectation(f"PCA against MLlib, {int(size):,} x 1,280", value, 6.0)
        for size, value in measured["pca_over_mllib"].items()
    ]
    share = measured["one_percent_night_executor_share"]
    rows.append(
        Expectation("executor seconds of a night with 1 % new, of a full run's", share, 0.05, percent, at_most=True)
    )
    growth = measured["memory_growth"]
    fewest, fewer = min(growth, key=int), max(growth, key=int)
    kinds = {"driver_live_heap": "live heap of a driver", "worker": "resident memory of a worker"}
    return rows + [
        Expectation(
            f"{name}, {growth[size]['images']:,} images against {int(size):,}",
            growth[size][kind],
            FLAT if size == fewer else None,
            at_most=True,
        )
        for kind, name in kinds.items()
        for size in dict.fromkeys((fewest, fewer))
    ]
