"""What a run will cost, from what earlier runs have shown; and what any number of images would cost where.

The speed is the median of the last runs' images per second and vCPU, as their run.json tell; a lake without such runs
takes the profile's figure.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from fruits_airflow.config.errors import CostCeilingExceeded
from fruits_airflow.config.regions import EU_REGIONS
from fruits_airflow.config.run_parameters import RunParameters
from fruits_airflow.cost.estimate import (
    Forecast,
    Speed,
    Workload,
    forecast,
    worker_vcpus,
)
from fruits_airflow.cost.prices import load_prices
from fruits_airflow.emr.cluster_body import Profile, load_profile
from fruits_airflow.records.models import (
    RecordError,
    RunRecord,
    date_of,
    read_record,
)
from fruits_airflow.storage.lake import Lake

log = logging.getLogger(__name__)

RUNS_LOOKED_AT = 30
RUNS_LEARNED_FROM = 10
CLOCK_SKEW = timedelta(hours=1)
LEAST_IMAGES = 10_000  # in a smaller run the start of Spark is most of the seconds


def forecast_run(
    asked: RunParameters,
    lake: Lake,
    profile: Profile,
    work: Workload,
    interface_endpoints: int,
) -> Forecast:
    """The forecast of a run, logged.

    Args:
        asked: what the run is to do.
        lake: where earlier runs left their run.json.
        profile: of the cluster.
        work: what there is to do.
        interface_endpoints: of the cluster's network.

    Raises:
        CostCeilingExceeded: it is above `max_cost_eur`.
    """
    prices = load_prices(asked.region)
    if prices.remembered:
        log.warning(
            "include/prices.yaml: %s of %s are from memory (%s); run make prices",
            *(", ".join(prices.remembered), asked.region, prices.as_of),
        )
    learned = learned_speed(past_runs(lake), asked.engine)
    speed = speed_of(profile, learned)
    expected = forecast(work, speed, profile.instance_fleets, prices, interface_endpoints)
    log.info(
        "Forecast: %.2f EUR (%s) and %.2f hours for %d images on %s, at %.1f images/s per vCPU (%s); at most %.2f EUR",
        *(expected.total_eur, ", ".join(f"{part} {eur:.3f}" for part, eur in expected.parts.items())),
        *(expected.hours, work.images, profile.name, speed.images_per_second_per_vcpu, speed.source),
        asked.max_cost_eur,
    )
    if expected.total_eur > asked.max_cost_eur:
        raise CostCeilingExceeded(
            f"max_cost_eur: the forecast for {work.images} images is {expected.total_eur:.2f} EUR, "
            f"the ceiling {asked.max_cost_eur:.2f}; raise it, or trigger with a limit"
        )
    return expected


def profile_speed(profile: Profile) -> float:
    """Images per second and vCPU that include/cluster.yaml promises of a profile."""
    return profile.images_per_second / worker_vcpus(profile.instance_fleets)


def speed_of(profile: Profile, learned: tuple[float, int] | None) -> Speed:
    """The speed of a profile: learned from so many runs, or its own figure."""
    if learned is None:
        return Speed(profile_speed(profile), profile.fixed_minutes)
    rate, runs = learned
    return Speed(rate, profile.fixed_minutes, f"median of the last {runs} runs")


def past_runs(lake: Lake) -> list[RunRecord]:
    """The records of the last runs, the latest first.

    The date in a run's id says when it was. Ids without a date, or with a date in the future, are left out: their
    records would stay among the latest. A record that cannot be used is logged and left out.
    """
    now = datetime.now(UTC)
    dated = [
        (date, run_id) for run_id in lake.run_ids() if (date := date_of(run_id)) and date <= now + CLOCK_SKEW
    ]
    records = []
    for _, run_id in sorted(dated, reverse=True)[:RUNS_LOOKED_AT]:
        try:
            record = read_record(lake, run_id)
        except RecordError as error:
            log.warning("The forecast leaves a run out: %s", error)
            continue
        if record is not None:
            records.append(record)
    return records


def learned_speed(records: Iterable[RunRecord], engine: str) -> tuple[float, int] | None:
    """The median images per second and vCPU of the last good runs, and of how many; None without any.

    Args:
        records: of runs, the latest first; those that failed or had few images are left out.
        engine: of the model; the reference engine is slower.
    """
    rates = []
    for record in records:
        done = record.images.loaded + record.images.rejected
        took = record.seconds.load_images + record.seconds.featurize
        whole = record.state == "succeeded" and record.features.engine == engine
        if whole and done >= LEAST_IMAGES and took > 0 and record.cluster.vcpus > 0:
            rates.append(done / took / record.cluster.vcpus)
    rates = rates[:RUNS_LEARNED_FROM]
    if not rates:
        return None
    return statistics.median(rates), len(rates)


def forecast_table(
    images: int, profiles: Iterable[str], learned: tuple[float, int] | None = None
) -> list[dict[str, Any]]:
    """What `images` new images would cost by region and profile, the cheapest first.

    Args:
        images: all new, in the region of the cluster.
        profiles: of include/cluster.yaml.
        learned: what `learned_speed` found; by default each profile's own figure.

    Returns:
        A row for each: `region`, `profile`, `hours`, `total_eur`, `parts` (euros).
    """
    rows = []
    for region in EU_REGIONS:
        prices = load_prices(region)
        for name in profiles:
            profile = load_profile(name)
            work, speed = Workload(images, images), speed_of(profile, learned)
            expected = forecast(work, speed, profile.instance_fleets, prices)
            rows.append(
                {
                    "region": region,
                    "profile": name,
                    "hours": round(expected.hours, 3),
                    "total_eur": round(expected.total_eur, 4),
                    "parts": {part: round(eur, 4) for part, eur in expected.parts.items()},
                }
            )
    return sorted(rows, key=lambda row: row["total_eur"])
