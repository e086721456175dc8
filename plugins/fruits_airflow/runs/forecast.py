"""The forecast of a run's cost from the speed of earlier runs, and a table of costs by region and profile.

The speed is the median of the last runs' images per second and vCPU, from their run.json. Without such runs it is the
profile's figure.
"""

import logging
import statistics
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from fruits_airflow.config.errors import CostCeilingExceeded
from fruits_airflow.config.regions import EU_REGIONS
from fruits_airflow.config.run_parameters import RunParameters
from fruits_airflow.cost.estimate import Forecast, Speed, Workload, forecast, worker_vcpus
from fruits_airflow.cost.prices import load_prices
from fruits_airflow.emr.cluster_body import Profile, load_profile
from fruits_airflow.records.models import RecordError, RunRecord, date_of, read_record
from fruits_airflow.records.pace import MIN_IMAGES
from fruits_airflow.storage.lake import Lake

log = logging.getLogger(__name__)

RUNS_LOOKED_AT = 30
RUNS_LEARNED_FROM = 10
CLOCK_SKEW = timedelta(hours=1)


def forecast_run(
    parameters: RunParameters, past: list[RunRecord], profile: Profile, work: Workload, interface_endpoints: int
) -> Forecast:
    """Forecast the cost of a run, with the speed of `past` runs, and log it.

    Raises:
        CostCeilingExceeded: It is above `max_cost_eur`.
    """
    prices = load_prices(parameters.region)
    if prices.remembered:
        log.warning(
            "include/prices.yaml: %s of %s are from memory (%s); run make prices",
            *(", ".join(prices.remembered), parameters.region, prices.as_of),
        )
    learned = learned_speed(past, parameters.engine)
    speed = speed_of(profile, learned)
    expected = forecast(work, speed, profile.instance_fleets, prices, interface_endpoints)
    log.info(
        "Forecast: %.2f EUR (%s) and %.2f hours for %d images on %s, at %.1f images/s per vCPU (%s); at most %.2f EUR",
        *(expected.total_eur, ", ".join(f"{part} {eur:.3f}" for part, eur in expected.parts.items())),
        *(expected.hours, work.images, profile.name, speed.images_per_second_per_vcpu, speed.source),
        parameters.max_cost_eur,
    )
    if expected.total_eur > parameters.max_cost_eur:
        raise CostCeilingExceeded(
            f"max_cost_eur: the forecast for {work.images} images is {expected.total_eur:.2f} EUR, "
            f"the ceiling {parameters.max_cost_eur:.2f}; raise it, or trigger with a limit"
        )
    return expected


def profile_speed(profile: Profile) -> float:
    """Return the images per second and vCPU of a profile, from include/cluster.yaml."""
    return profile.images_per_second / worker_vcpus(profile.instance_fleets)


def speed_of(profile: Profile, learned: tuple[float, int] | None) -> Speed:
    """Return the speed of a profile: `learned` from a number of runs, or its own figure."""
    if learned is None:
        return Speed(profile_speed(profile), profile.fixed_minutes)
    rate, runs = learned
    return Speed(rate, profile.fixed_minutes, f"median of the last {runs} runs")


def past_runs(lake: Lake) -> list[RunRecord]:
    """Read the records of the last runs, the latest first.

    The date in a run's id says when it was. Ids without a date, or with a date in the future, are left out: their
    records would stay among the latest. A record that cannot be used is logged and left out.
    """
    now = datetime.now(UTC)
    dated = [(date, run_id) for run_id in lake.run_ids() if (date := date_of(run_id)) and date <= now + CLOCK_SKEW]
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
    """Compute the median images per second and vCPU of the last good runs, and their number; None without any.

    Of the records, the latest first, runs that failed, had few images or another engine are left out: the reference
    engine is slower.
    """
    rates = []
    for record in records:
        images = record.images.loaded + record.images.rejected
        seconds = record.seconds.load_images + record.seconds.featurize
        is_good = record.state == "succeeded" and record.features.engine == engine
        if is_good and images >= MIN_IMAGES and seconds > 0 and record.cluster.vcpus > 0:
            rates.append(images / seconds / record.cluster.vcpus)
    rates = rates[:RUNS_LEARNED_FROM]
    return (statistics.median(rates), len(rates)) if rates else None


def forecast_table(
    images: int, profiles: Iterable[str], learned: tuple[float, int] | None = None
) -> list[dict[str, Any]]:
    """Compute what new images in the region of the cluster cost by region and profile, the cheapest first.

    The speed is that of `learned_speed`, by default each profile's own figure.

    Returns:
        For each: `region`, `profile`, `hours`, `total_eur`, `parts` (euros).
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
