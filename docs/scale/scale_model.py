"""The figures of docs/scale.md: measured ones, prices, and plain arithmetic between them. No figure is typed in.

Inputs: bench/results.json (the last published benchmark), plan_trial.json (a million keys), photo_trial.json (a phone's
photo), pixels_trial.json (the features of what is stored), facts.yaml (what AWS publishes, and assumptions, each
named), include/prices.yaml and the nightly profile of include/cluster.yaml, counted as `plan` counts them, and
constants of the product, read from its source.
"""

from __future__ import annotations

import json
import math
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(REPOSITORY / "plugins"), str(HERE)]

from fruits_airflow.config.strict_yaml import read_yaml_mapping  # noqa: E402
from fruits_airflow.cost.estimate import Speed, disks, fleets_eur_per_hour, forecast_hours, worker_vcpus  # noqa: E402
from fruits_airflow.cost.prices import Prices, load_prices  # noqa: E402
from fruits_airflow.emr.cluster_body import Profile, load_profile  # noqa: E402
from fruits_airflow.emr.stage_steps import STAGES  # noqa: E402
from fruits_airflow.runs.forecast import profile_speed  # noqa: E402
from fruits_airflow.storage.bucket_listing import WORKERS as LISTED_AT_ONCE  # noqa: E402 - needs the path above
from source import constants  # noqa: E402 - beside this file

SUMS = constants("spark_jobs/fruits/pca/gramian.py")
DIMS: int = runpy.run_path(str(REPOSITORY / "spark_jobs/fruits/model/networks.py"))["MOBILENET_V2"].dims
MOST_SUMS: int = constants("spark_jobs/fruits/pca/gramian_store.py")["_MAX_PARTS"]
BROADCAST_ROWS: int = constants("spark_jobs/featurize.py")["_BROADCAST_ROWS"]

LIMB_BITS = 64
LOW_BITS = 32
"""`fruits.pca.gramian` adds whole numbers in two 64-bit limbs, the lower of which carries over after 32 bits."""


def pca_sums_mb() -> float:
    """Return the size of the sum and the upper triangle of the Gramian, each number in two limbs."""
    return 2 * LIMB_BITS / 8 * (DIMS + DIMS * (DIMS + 1) / 2) / 1e6


def sum_bits() -> int:
    """Return the bits of a whole number in the sums: the upper limb's, with the sign, and those of the lower limb."""
    return LIMB_BITS + LOW_BITS


def exact_up_to() -> int:
    """Return the number of images whose squares, each as large as a feature may be, still fit."""
    bits_of_a_product = 2 * SUMS["NUMBER_BITS"]
    return int(2 ** (sum_bits() - 1 - bits_of_a_product))


@dataclass(frozen=True)
class Limit:
    """A resource and the number of images at which it runs out.

    Attributes:
        resource: What runs out.
        breaks_at: Images in all, or None when it never does.
        why: The arithmetic in words.
        answer: What the design does about it, or what has to be added then.
    """

    resource: str
    breaks_at: float
    why: str
    answer: str


@dataclass(frozen=True)
class Inputs:
    """Everything that is not computed here."""

    results: dict[str, Any]
    trial: dict[str, Any]
    photos: dict[str, Any]
    pixels: dict[str, Any]
    facts: Any
    settings: Any
    prices: Prices
    profile: Profile
    """The nightly profile: its fleets, its throughput and the minutes that every run takes."""

    @classmethod
    def read(cls) -> Inputs:
        """Read the files."""
        facts = read_yaml_mapping(HERE / "facts.yaml")
        settings = read_yaml_mapping(REPOSITORY / "include" / "settings.yaml")
        return cls(
            results=json.loads((REPOSITORY / "bench" / "results.json").read_text()),
            trial=json.loads((HERE / "plan_trial.json").read_text()),
            photos=json.loads((HERE / "photo_trial.json").read_text()),
            pixels=json.loads((HERE / "pixels_trial.json").read_text()),
            facts=facts,
            settings=settings,
            prices=load_prices(facts["region"]),
            profile=load_profile(settings["nightly_profile"]),
        )


class Model:
    """What follows from the inputs."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.facts = inputs.facts
        details = inputs.results["details"]
        self.bytes: dict[str, float] = details["bytes_per_image"]
        self.core_ms: dict[str, float] = {stage: details["core_ms_per_further_image"][stage] or 0.0 for stage in STAGES}
        # The throughput of include/cluster.yaml is that of load_images and featurize, as `make forecast` takes it.
        self.vcpu_speed = profile_speed(inputs.profile) * self._core_ms_by_image / 1000
        """What a vCPU of the fleet does of a core of the benchmark's machine."""

    def of_phones(self) -> Model:
        """Return the model for photos as a phone takes them: more to decode, more to store."""
        phone, small = self.inputs.photos["phone"], self.inputs.photos["small"]
        other = Model(self.inputs)
        other.core_ms["load_images"] += phone["clean_ms"] - small["clean_ms"]
        other.core_ms["featurize"] += phone["fill_ms"] - small["fill_ms"]
        other.bytes = self.bytes | {"input": phone["bytes"], "pixels": phone["stored_bytes"]}
        return other

    # —— machines ——

    @property
    def vcpu_s_per_image(self) -> float:
        """Seconds of one vCPU of the fleet for one new image; PCA and publication are in the profile's minutes."""
        return self._core_ms_by_image / 1000 / self.vcpu_speed

    @property
    def _core_ms_by_image(self) -> float:
        return self.core_ms["load_images"] + self.core_ms["featurize"]

    def cluster(self, nodes: int) -> list[dict[str, Any]]:
        """Return the nightly profile's fleets with `nodes` core nodes, all on demand."""
        fleets = {fleet["InstanceFleetType"]: fleet for fleet in self.inputs.profile.instance_fleets}
        return [fleets["MASTER"], {**fleets["CORE"], "TargetOnDemandCapacity": nodes}]

    @property
    def core_types(self) -> list[str]:
        """Types of which EMR may take a core node."""
        return [config["InstanceType"] for config in self.cluster(1)[-1]["InstanceTypeConfigs"]]

    def vcpus(self, nodes: int) -> int:
        """Return the vCPUs of a fleet's core nodes."""
        return worker_vcpus(self.cluster(nodes))

    def images_per_s(self, nodes: int) -> float:
        """Return the new images that a fleet loads and featurizes in a second."""
        return self.vcpus(nodes) / self.vcpu_s_per_image

    def eur_per_hour(self, nodes: int) -> float:
        """Return the price of a fleet with its primary node, of the dearest types: EC2, EMR's fee, disks, addresses."""
        return fleets_eur_per_hour(self.cluster(nodes), self.inputs.prices)

    def hours(self, images: float, nodes: int, known: float = 0.0) -> float:
        """Return the wall hours of a run over new images, as `make forecast` does; `known` rows are scanned besides."""
        speed = Speed(1 / self.vcpu_s_per_image, self.inputs.profile.fixed_minutes)
        return forecast_hours(images, speed, self.cluster(nodes)) + self.id_scan_s(known, nodes) / 3600

    def eur(self, images: float, nodes: int, known: float = 0.0) -> float:
        """Return the machine cost of that run."""
        return self.hours(images, nodes, known) * self.eur_per_hour(nodes)

    def id_scan_s(self, rows: float, nodes: int) -> float:
        """Return the time to read all known ids: twice in load_images, twice in featurize, once in publish."""
        planner = self.facts["planner"]
        rate = self.vcpus(nodes) * planner["scan_mb_per_s_per_vcpu"] * 1e6
        return 5 * rows * planner["key_bytes"] / rate

    # —— S3 ——

    def list_hours(self, images: float, at_once: int = LISTED_AT_ONCE) -> float:
        """Return the time to list `at_once` folders at a time, as `plan` does, and to write the listing in one thread.

        A prefix without folders is listed page after page: `at_once` is 1 there.
        """
        s3, trial = self.facts["s3"], self.inputs.trial
        per_key = s3["list_page_s"] / s3["list_keys_per_page"] / at_once
        return images * (per_key + trial["list_and_write_s"] / trial["keys"]) / 3600

    def usd_to_eur(self, usd: float) -> float:
        """Convert US dollars to euros."""
        return usd * self.inputs.prices.eur_per_usd

    def list_eur(self, images: float) -> float:
        """Return the cost of a LIST request for each thousand keys."""
        s3 = self.facts["s3"]
        return self.usd_to_eur(images / s3["list_keys_per_page"] / 1000 * s3["usd_per_1000_list"])

    def inventory_eur(self, images: float) -> float:
        """Return the cost of an S3 Inventory report over all keys."""
        return self.usd_to_eur(images / 1e6 * self.facts["s3"]["inventory_usd_per_million"])

    def get_eur(self, images: float) -> float:
        """Return the cost of a GET for each image."""
        return self.usd_to_eur(images / 1000 * self.facts["s3"]["usd_per_1000_get"])

    def storage_gb(self, images: float, what: str) -> float:
        """Return the size of a table (or the input)."""
        return images * (self.bytes[what] or 0.0) / 1e9

    def lake_eur_per_month(self, images: float) -> float:
        """Return the storage cost of the tables, at the first step of the price list."""
        total = sum(self.storage_gb(images, what) for what in ("pixels", "features", "pca"))
        return self.usd_to_eur(total * self.facts["s3"]["usd_per_gb_month"])

    def data_files(self, images: float) -> int:
        """Return the data files of `images` and `features` together, at the target size."""
        total = self.storage_gb(images, "pixels") + self.storage_gb(images, "features")
        return math.ceil(total * 1e3 / self.facts["planner"]["target_file_mb"])

    # —— limits ——

    def limits(self) -> list[Limit]:
        """Return every resource that runs out, the first one first."""
        planner, s3, settings = self.facts["planner"], self.facts["s3"], self.inputs.settings
        nightly, trial = self.facts["fleets"][0], self.inputs.trial
        night_hours = settings["max_cluster_minutes"] / 60
        fixed_hours = self.inputs.profile.fixed_minutes / 60
        work_hours = night_hours - fixed_hours
        affordable_s = (settings["max_cost_eur"] / self.eur_per_hour(nightly) - fixed_hours) * 3600
        listing_bytes = trial["listing_bytes"] / trial["keys"]
        disk_gib = min(disks(self.cluster(nightly)[1:]).values())
        heap = planner["driver_gib"] * 2**30 * planner["heap_for_planning"]
        bytes_of_files = (self.bytes["pixels"] or 0.0) + (self.bytes["features"] or 0.0)
        per_image_in_plan = planner["heap_bytes_per_data_file"] * bytes_of_files / (planner["target_file_mb"] * 1e6)
        limits = [
            Limit(
                "the run's cost ceiling, on a first load",
                affordable_s * self.images_per_s(nightly),
                f"max_cost_eur {settings['max_cost_eur']:.0f} buys {affordable_s / 3600:.1f} h of work on {nightly} "
                "core nodes",
                "`plan` refuses before anything is created; a first load is done by prefix, or with a ceiling raised "
                "once",
            ),
            Limit(
                "ids of new images, broadcast by featurize",
                float(BROADCAST_ROWS),
                f"{BROADCAST_ROWS * planner['key_bytes'] / 1e6:.0f} MB on each executor",
                "above it the join is a shuffle; nothing to do",
            ),
            Limit(
                "the night itself, on a first load",
                work_hours * 3600 * self.images_per_s(nightly),
                f"{work_hours:.1f} h on {nightly} core nodes",
                "a larger profile in include/cluster.yaml for that one run; nights after it see only what is new",
            ),
            Limit(
                "listing within an hour",
                1.0 / self.list_hours(1.0),
                f"{LISTED_AT_ONCE} folders at once, {s3['list_page_s']} s a page of {s3['list_keys_per_page']:,} keys; "
                f"a prefix without folders, page after page, takes an hour for {1 / self.list_hours(1.0, 1) / 1e6:.0f} "
                "million",
                "S3 Inventory: a Parquet list made by S3 itself, read by executors",
            ),
            Limit(
                "disk of the machine that plans",
                planner["disk_gib"] * 2**30 / 2 / listing_bytes,
                f"two listings of {listing_bytes:.0f} bytes a key in {planner['disk_gib']} GiB; memory stays at "
                f"{trial['peak_memory_mb']} MB",
                "compare the listings on the cluster: load_images does so already, by grouping them by key",
            ),
            Limit(
                "executor disks, when all ids are shuffled",
                nightly * disk_gib * 2**30 / 2 / planner["shuffle_bytes_per_id"],
                f"{planner['shuffle_bytes_per_id']} bytes an id for each side of the comparison on {nightly} x "
                f"{disk_gib:.0f} GiB",
                "partition `images` and `features` by bucket(image_id): a join in the place of the grouping then needs "
                "no shuffle (storage-partitioned join), and MERGE reads only the buckets that it changes",
            ),
            Limit(
                "driver memory, planning a scan over all data files",
                heap / per_image_in_plan,
                f"{heap / planner['heap_bytes_per_data_file']:,.0f} files of {planner['target_file_mb']} MB",
                "cluster the manifests by bucket (rewrite_manifests), read them on executors "
                "(spark.sql.iceberg.planning-mode=distributed), larger files for pixels",
            ),
        ]
        return sorted(limits, key=lambda limit: limit.breaks_at)

    def nodes_at_request_limit(self) -> float:
        """Return the core nodes whose load job reaches S3's rate of GETs for a prefix."""
        per_vcpu = self.vcpu_speed * 1000 / self.core_ms["load_images"]
        return float(self.facts["s3"]["get_per_s_per_prefix"]) / per_vcpu / self.vcpus(1)

    def pca_hours(self, images: float, nodes: int) -> float:
        """Return the time to compute the Gramian anew over all features."""
        core_s = images * self.core_ms["reduce_pca"] / 1000
        return core_s / self.vcpu_speed / self.vcpus(nodes) / 3600
