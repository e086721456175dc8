"""The plan: what the task `plan` decides, and every later task of the run or the erasure reads."""

import logging
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fruits_airflow.config.run_parameters import RunParameters
from fruits_airflow.runs.publication import Fingerprint

log = logging.getLogger(__name__)


class Plan(BaseModel):
    """What the tasks of the cluster need to know."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    planned_at: str  # ISO 8601 with a zone
    run_folder: str  # URI of the folder that the stages write their metrics to
    lake_bucket: str
    lake_region: str
    region: str
    profile: str
    database: str
    locked_databases: tuple[str, ...] = ()  # the databases to lock; empty stands for `database` alone
    max_cost_eur: float
    eur_per_hour: float  # price of the whole cluster on demand
    vcpus: int  # of the workers

    @property
    def start(self) -> datetime:
        """When the run was planned."""
        return datetime.fromisoformat(self.planned_at)

    def to_xcom(self) -> dict[str, Any]:
        """Return the plan as JSON holds it."""
        return self.model_dump(mode="json")


class ErasurePlan(Plan):
    """The plan of an erasure."""

    erasure: str  # URI of the request
    photos: int  # how many photos are erased
    databases: tuple[str, ...]  # all databases that are searched, one step each
    demo_database: str
    notebook_database: str


class ListingCounts(BaseModel):
    """Photos in the listing, and its difference from the published one."""

    seen: int
    new: int
    unchanged: int
    removed: int


class RunPlan(Plan, RunParameters):
    """The plan of a run: its parameters, the limits of its stages, the forecast, and what decides its result."""

    raw_bucket: str
    model_id: str
    network: str = "MobileNetV2"
    weights: str
    batch_size: int
    max_bytes: int
    max_pixels: int
    max_removed_share: float
    max_removed_rows: int
    expected_removals: int  # missing photos that lifecycle rules explain
    leftovers: dict[str, int] = {}  # objects of file managers that are not loaded, by kind
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
    images: ListingCounts  # what the listing has
    input_bytes: int  # size of the listed photos
    typical_s: dict[str, float] = {}  # seconds that each part takes, as far as past runs tell
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
