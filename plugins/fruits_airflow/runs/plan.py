"""The plan: what the task `plan` decides, and every later task of the run or the erasure reads."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fruits_airflow.runs.publication import Fingerprint

log = logging.getLogger(__name__)


class Plan(BaseModel):
    """What the tasks of the cluster need to know.

    Attributes:
        planned_at: ISO 8601 with a zone.
        run_folder: URI of the folder that the stages write their metrics to.
        locked_databases: The databases to lock; empty stands for `database` alone.
        eur_per_hour: Price of the whole cluster on demand.
        vcpus: Of the workers.
    """

    model_config = ConfigDict(frozen=True)

    run_id: str
    planned_at: str
    run_folder: str
    lake_bucket: str
    lake_region: str
    region: str
    profile: str
    database: str
    locked_databases: tuple[str, ...] = ()
    max_cost_eur: float
    eur_per_hour: float
    vcpus: int

    @property
    def start(self) -> datetime:
        """When the run was planned."""
        return datetime.fromisoformat(self.planned_at)

    def to_xcom(self) -> dict[str, Any]:
        """Return the plan as JSON holds it."""
        return self.model_dump(mode="json")


class ErasurePlan(Plan):
    """The plan of an erasure.

    Attributes:
        erasure: URI of the request.
        photos: How many photos are erased.
        databases: All databases that are searched, one step each.
    """

    erasure: str
    photos: int
    databases: tuple[str, ...]
    demo_database: str
    notebook_database: str


class ListingCounts(BaseModel):
    """Photos in the listing, and its difference from the published one."""

    seen: int
    new: int
    unchanged: int
    removed: int


class RunPlan(Plan):
    """The plan of a run: its parameters, the limits of its stages, the forecast, and what decides its result.

    Attributes:
        expected_removals: Missing photos that lifecycle rules explain.
        leftovers: Objects of file managers that are not loaded, by kind.
        images: What the listing has.
        input_bytes: Size of the listed photos.
        typical_s: Seconds that each part takes, as far as past runs tell.
    """

    mode: str
    complete: bool
    input_prefix: str
    limit: int | None
    variance: float
    k: int | None
    engine: str
    full_refresh: bool
    force: bool
    raw_bucket: str
    model_id: str
    weights: str
    batch_size: int
    max_bytes: int
    max_pixels: int
    max_removed_share: float
    max_removed_rows: int
    expected_removals: int
    leftovers: dict[str, int] = {}
    max_reject_rate: float
    min_explained_variance: float
    min_agreement: float
    max_drift_degrees: float
    max_variance_loss: float
    classifier: str
    shrinkage: float
    held_out_share: float
    refit_share: float
    max_accuracy_loss: float
    unknown_error: float
    forecast_eur: float
    forecast_parts: dict[str, float]
    images: ListingCounts
    input_bytes: int
    typical_s: dict[str, float] = {}
    fingerprint: Fingerprint


def read_plan(xcom: dict[str, Any] | None) -> RunPlan | ErasurePlan | None:
    """Read the XCom of the task `plan`.

    Returns:
        None when the task returned nothing, or returned a plan of another version of this code: what ends a cluster
        must work without the plan.
    """
    if not xcom:
        return None
    kind = ErasurePlan if "erasure" in xcom else RunPlan
    try:
        return kind.model_validate(xcom)
    except ValidationError as error:
        log.warning("The plan cannot be used: %s", error)
        return None
