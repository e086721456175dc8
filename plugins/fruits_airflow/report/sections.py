"""The tables of the report: volumes, rejects, quality gate, drift, names, cost, residency."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fruits_airflow.config.errors import LockHeld
from fruits_airflow.config.regions import EU_REGIONS, NEAR_MISSES
from fruits_airflow.emr.clusters import ENDED_STATES
from fruits_airflow.records.models import ClassifierFacts
from fruits_airflow.report.facts import Facts
from fruits_airflow.report.pca_map import data_uri
from fruits_airflow.report.units import NBSP, UNKNOWN, clipped, euros, number, percent, value

if TYPE_CHECKING:
    import pyarrow as pa

VOLUMES = {
    "input": ("Input", "photos as they were uploaded"),
    "pixels": ("Pixels", "re-encoded without loss, all metadata gone"),
    "features": ("Features", "{dims} numbers per image"),
    "pca": ("PCA", "{k} numbers per image"),
}
MAX_EXAMPLES = 20
MAX_DETAIL = 500
MAX_EVIDENCE = 120
MAX_NAME = 100
MAX_LABELS = 30  # of the confusion matrix
MAX_ROWS = 100  # the gate has some ten checks, and the load step some ten codes


@dataclass(frozen=True)
class Volume:
    """A step of the reduction: bytes of it, of the step before, of the first; share of the largest step, 0 to 1."""

    name: str
    what: str
    size: float | None
    before: float | None
    first: float | None
    share: float | None


@dataclass(frozen=True)
class Reject:
    """A rejected object, as the load step reports it."""

    source_key: str
    code: str
    detail: str


@dataclass(frozen=True)
class Check:
    """A check of the quality gate; `ok` is None when its outcome is not known."""

    name: str
    ok: bool | None
    value: str
    limit: str


@dataclass(frozen=True)
class Amount:
    """A sum of money; `share` is of the largest of them, 0 to 1."""

    name: str
    what: str
    euros: float | None
    share: float | None


@dataclass(frozen=True)
class Drift:
    """How far the images have moved from the published PCA model; `measures` are (name, value, limit)."""

    sentence: str
    measures: list[tuple[str, str, str]]


def volumes(facts: Facts) -> list[Volume]:
    """Return the volumes in the order of the flow; empty when none is known."""
    sizes = {name: facts.number("bytes", name) or None for name in VOLUMES}
    known = [size for size in sizes.values() if size is not None]
    if not known:
        return []
    k = facts.number("pca", "k")
    rows, before = [], None
    for name, (title, what) in VOLUMES.items():
        size = sizes[name]
        rows.append(
            Volume(
                name=title,
                what=what.format(k=f"{k:.0f}" if k else "fewer", dims=facts.dims),
                size=size,
                before=before,
                first=sizes["input"] if name != "input" else None,
                share=None if size is None else size / max(known),
            )
        )
        before = size
    return rows


def reject_codes(facts: Facts) -> list[tuple[str, float | None]]:
    """Return codes with their counts, most frequent first; at most MAX_ROWS."""
    codes = [(clipped(code, MAX_NAME), number(times)) for code, times in facts.mapping("rejects_by_code").items()]
    return sorted(codes, key=lambda item: (-(item[1] or 0), item[0]))[:MAX_ROWS]


def reject_examples(facts: Facts) -> list[Reject]:
    """Return the examples of the load step, shortened."""
    examples = [example for example in facts.items("reject_examples") if isinstance(example, Mapping)]
    return [
        Reject(*(clipped(value(example.get(key)), MAX_DETAIL) for key in ("source_key", "error_code", "detail")))
        for example in examples[:MAX_EXAMPLES]
    ]


def checks(facts: Facts) -> list[Check]:
    """Return the checks of the quality gate, failed checks first; at most MAX_ROWS."""
    rows = []
    for name, outcome in facts.mapping("quality", "checks").items():
        check: Mapping[str, Any] = outcome if isinstance(outcome, Mapping) else {}
        ok = check.get("ok")
        rows.append(
            Check(
                name=clipped(name, MAX_NAME),
                ok=ok if isinstance(ok, bool) else None,
                value=clipped(value(check.get("value")), MAX_DETAIL),
                limit=clipped(value(check.get("limit")), MAX_DETAIL),
            )
        )
    return sorted(rows, key=lambda check: (check.ok is True, check.name))[:MAX_ROWS]


def drift(facts: Facts) -> Drift | None:
    """Return the drift that reduce_pca measured; None when it left none, as a first run does."""
    if not facts.mapping("drift"):
        return None
    new, reason = facts.get("drift", "new_basis"), facts.text("drift", "reason")
    if new is True:
        sentence = f"A new PCA model{f', because {reason}' if reason else ''}: all vectors are computed again."
    elif new is False:
        sentence = "The published PCA model is kept: vectors of earlier runs stay comparable with this run’s."
    else:
        sentence = "Whether the PCA model is new is not known."
    angle, loss = facts.number("drift", "angle_degrees"), facts.number("drift", "variance_loss")
    explained = facts.number("drift", "explained_variance_published_basis")
    measures = [
        ("Angle between the PCA models", angle, _degrees, "limit_degrees"),
        ("Variance lost by keeping the published PCA model", loss, percent, "limit_variance_loss"),
        ("Variance that the published PCA model keeps", explained, percent, None),
    ]
    return Drift(
        clipped(sentence, MAX_DETAIL),
        [
            (name, unit(measure), unit(facts.number("drift", limit)) if limit else "–")
            for name, measure, unit, limit in measures
            if measure is not None
        ],
    )


def naming(facts: Facts) -> ClassifierFacts | None:
    """Return how well photos are named, and some that had no label; None without a classifier, or a bad record."""
    try:
        return ClassifierFacts.model_validate_json(json.dumps(facts.mapping("classifier") or None))
    except (RecursionError, TypeError, ValueError):
        return None


def confusion(naming: ClassifierFacts) -> list[tuple[str, list[float]]]:
    """Return each label with the shares of its photos that are taken for it, for the other ones, and for any other."""
    cells = {(true, name): n for true, name, n in naming.confusion}
    labels = sorted({true for true, _ in cells})[:MAX_LABELS]
    rows = []
    for true in labels:
        total = sum(n for pair, n in cells.items() if pair[0] == true) or 1
        shares = [cells.get((true, name), 0) / total for name in labels]
        rows.append((true, [*shares, max(0.0, 1 - sum(shares))]))
    return rows


def thumbnails(sample: pa.Table | None) -> dict[str, str | None]:
    """Return the thumbnails of a sample as data URIs, by image id."""
    rows = sample.select(["image_id", "thumbnail"]).to_pylist() if sample and "image_id" in sample.column_names else []
    return {row["image_id"]: data_uri(row["thumbnail"]) for row in rows}


def evidence(residency: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the leaves of residency.json with the path to each in words, in the file's order."""
    leaves = list(_leaves(residency, ()))
    more = len(leaves) - MAX_EVIDENCE
    rows = [(clipped(name, MAX_DETAIL), clipped(text, MAX_DETAIL)) for name, text in leaves[:MAX_EVIDENCE]]
    return [*rows, (f"{more} more", "in residency.json")] if more > 0 else rows


def costs(facts: Facts) -> list[Amount]:
    """Return forecast, estimate and ceiling; empty when none is known to be above zero."""
    amounts = {
        "Forecast": ("before anything was created", facts.number("cost", "forecast_eur")),
        "Estimate": (
            f"from the seconds that each node lived{_difference(facts)}",
            facts.number("cost", "estimate_eur"),
        ),
        "Ceiling": ("what this run may cost at most", facts.number("cost", "ceiling_eur")),
    }
    most = max((euros for _, euros in amounts.values() if euros is not None), default=0.0)
    if most <= 0:  # a blank record's zeros
        return []
    return [
        Amount(name, what, euros, None if euros is None else max(0.0, euros / most))
        for name, (what, euros) in amounts.items()
    ]


def _difference(facts: Facts) -> str:
    """Say by how much the forecast of the nodes was wrong."""
    error = facts.number("cost", "difference_eur")
    if not error:
        return ""
    return f"; {euros(abs(error))} {'more' if error > 0 else 'less'} than was forecast for them"


def residency(facts: Facts) -> tuple[bool | None, str]:
    """Return whether the run's region is in the EU (None when that is not shown), and the sentence that says so."""
    region, reason = facts.text("region"), facts.text("reason") or ""
    if "ResidencyError" in reason:
        return None, f"Not shown for this run: {reason}"
    if region is None:
        return None, "The run names no region."
    if region in EU_REGIONS:
        return True, f"{region} ({EU_REGIONS[region]}), in a member state of the European Union"
    return False, f"{region}: {NEAR_MISSES.get(region, 'not a region in an EU member state')}"


def unended_cluster(facts: Facts) -> str | None:
    """Return a warning when the run had a cluster whose end was not seen."""
    cluster, state = facts.text("cluster", "id"), facts.text("cluster", "state")
    if cluster is None or state in ENDED_STATES or facts.get("state") == "running":
        return None
    seen = f"was last seen {state}" if state else "was not seen ending"
    return f"Cluster {cluster} {seen}. Check that it is terminated: until then it costs money."


def runbook_section(facts: Facts) -> str | None:
    """Return the section of the runbook that the notice of a failed or refused run names; None for any other run."""
    state = facts.text("state")
    if state not in ("failed", "refused"):
        return None
    if unended_cluster(facts):
        return "cluster-will-not-die"
    if f"{LockHeld.__name__}:" in (facts.text("reason") or ""):
        return "lock-held"
    if state == "refused":
        return "refused"
    return "gate-failed" if any(check.ok is False for check in checks(facts)) else "red-run"


def _degrees(angle: float | None) -> str:
    return UNKNOWN if angle is None else f"{angle:.1f}{NBSP}°"


def _leaves(part: object, path: tuple[str, ...], deep: int = 6) -> Iterator[tuple[str, str]]:
    if isinstance(part, Mapping) and part and deep:
        for key, inner in part.items():
            yield from _leaves(inner, (*path, str(key).replace("_", " ")), deep - 1)
    elif isinstance(part, list) and any(isinstance(inner, Mapping) for inner in part) and deep:
        for place, inner in enumerate(part, 1):
            yield from _leaves(inner, (*path, str(place)), deep - 1)
    elif path:
        shown = ", ".join(value(inner) for inner in part) or "none" if isinstance(part, list) else value(part)
        yield " › ".join(path), shown
