"""docs/scale.md says what its inputs give, and the planning trial holds what it claims."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fruits_airflow.cost.prices import vcpus
from fruits_airflow.runs.forecast import forecast_table

SCALE = Path(__file__).resolve().parents[2] / "docs" / "scale"
PUBLISHED = Path(__file__).resolve().parents[2] / "bench" / "results.json"
sys.path.insert(0, str(SCALE))

import plan_trial  # noqa: E402
import scale_model as model  # noqa: E402 - docs/scale is a folder of scripts
import write_scale  # noqa: E402


def made_up() -> model.Model:
    details = {
        "bytes_per_image": {"input": 5000.0, "pixels": 12_000.0, "features": 4500.0, "pca": 260.0},
        "core_ms_per_further_image": {
            "load_images": 1.0, "featurize": 2.0, "reduce_pca": 0.1, "publish": 0.1
        },
    }  # fmt: skip
    real = model.Inputs.read() if PUBLISHED.is_file() else None
    facts = model.read_yaml_mapping(SCALE / "facts.yaml")
    return model.Model(
        model.Inputs(
            results={"details": details},
            trial={"keys": 1_000_000, "list_and_write_s": 10.0, "listing_bytes": 40_000_000, "peak_memory_mb": 200},
            photos={
                "small": {"clean_ms": 0.5, "fill_ms": 0.3, "bytes": 5000, "stored_bytes": 12_000},
                "phone": {"clean_ms": 30.5, "fill_ms": 3.3, "bytes": 3_000_000, "stored_bytes": 300_000},
            },
            pixels={},
            facts=facts,
            settings={"max_cost_eur": 5.0, "max_cluster_minutes": 480},
            prices=real.prices if real else model.load_prices(facts["region"]),
            profile=model.load_profile("nightly"),
        )
    )


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="no results were published yet")
def test_the_document_is_what_its_inputs_give() -> None:
    done = subprocess.run(
        [sys.executable, SCALE / "write_scale.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_template_holds_no_figure() -> None:
    text = re.sub(r"\$\{\w+\}", "", (SCALE / "template.md").read_text())
    assert re.findall(r"(?<![SC])\d[\w.,^]*", text) == [], "S3 and EC2 are names"
    words = r"(?:half|halves|thirds?|fourths?|quarters?|fifths?|twice|dozens?|two|three|four|five|six|seven"
    words += r"|eight|nine|ten|twelve|sixteen|twenty|hundreds?|thousands?|millions?|billions?)"
    counted = re.findall(rf"\b{words}\b(?: (?:to|of|a|by) \w+)?", text.partition("\n")[2], re.IGNORECASE)
    assert counted == []


def test_listing_is_that_of_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    from fruits_airflow.storage import bucket_listing

    assert bucket_listing.WORKERS == model.LISTED_AT_ONCE
    scale = made_up()
    waiting = scale.list_hours(1e8, at_once=1) - scale.list_hours(1e8, at_once=10**9)
    assert waiting == pytest.approx(1e8 / 1000 * 0.15 / 3600)
    side_by_side = scale.list_hours(1e8) - scale.list_hours(1e8, at_once=10**9)
    assert side_by_side == pytest.approx(waiting / bucket_listing.WORKERS)
    (limit,) = (limit for limit in scale.limits() if limit.resource.startswith("listing"))
    assert scale.list_hours(limit.breaks_at) == pytest.approx(1)
    assert f"{bucket_listing.WORKERS} folders at once" in limit.why


def test_constants_are_those_of_the_source() -> None:
    from source import constants

    values = constants("spark_jobs/fruits/pca/gramian.py")
    assert (values["NUMBER_BITS"], values["_EXACT_ROWS"]) == (17, 2**19)
    assert (model.DIMS, model.BROADCAST_ROWS, model.MOST_SUMS) == (1280, 1_000_000, 16)


def test_the_sums_hold_as_many_images_as_is_said() -> None:
    most = 2 ** (14 + 3)
    assert model.exact_up_to() == 2**61
    assert most * most * model.exact_up_to() <= 2 ** (model.sum_bits() - 1)
    assert model.pca_sums_mb() == pytest.approx(13.1, abs=0.05)


def test_twice_the_nodes_take_half_the_time_and_nearly_the_same_money() -> None:
    scale = made_up()
    fixed = scale.inputs.profile.fixed_minutes / 60
    few, many = scale.hours(1e8, 10) - fixed, scale.hours(1e8, 20) - fixed
    assert many == pytest.approx(few / 2)
    assert scale.eur(1e8, 20) == pytest.approx(scale.eur(1e8, 10), rel=0.05)


def test_the_fleet_is_the_nightly_profiles() -> None:
    scale = made_up()
    nightly = model.load_profile("nightly").instance_fleets
    offered = {
        fleet["InstanceFleetType"]: [config["InstanceType"] for config in fleet["InstanceTypeConfigs"]]
        for fleet in nightly
    }
    assert scale.core_types == offered["CORE"]
    assert scale.vcpus(1) == min(map(vcpus, offered["CORE"]))
    prices = scale.inputs.prices

    def eur_per_hour(instance_type: str) -> float:
        node = sum(prices.node_usd_per_hour(instance_type, "ON_DEMAND"))
        return (node + prices.disk_usd_per_hour(32)) * prices.eur_per_usd

    dearest = [max(map(eur_per_hour, offered[kind])) for kind in ("MASTER", "CORE")]
    addresses = 11 * prices.public_ipv4 * prices.eur_per_usd
    assert scale.eur_per_hour(10) == pytest.approx(dearest[0] + 10 * dearest[1] + addresses)


@pytest.mark.parametrize("images", [0, 1_000_000, 100_000_000])
def test_the_page_says_the_hours_that_make_forecast_says(images: int) -> None:
    scale = made_up()
    nodes = sum(
        fleet.get("TargetOnDemandCapacity", 0) + fleet.get("TargetSpotCapacity", 0)
        for fleet in model.load_profile("nightly").instance_fleets
        if fleet["InstanceFleetType"] != "MASTER"
    )
    assert nodes == scale.facts["fleets"][0]
    [row] = [row for row in forecast_table(images, ["nightly"]) if row["region"] == scale.facts["region"]]
    assert scale.hours(images, nodes) == pytest.approx(row["hours"], abs=0.0005)  # rounded in the table


def test_a_phones_photo_costs_what_its_decoding_takes_more() -> None:
    small = made_up()
    more_s = (small.of_phones().vcpu_s_per_image - small.vcpu_s_per_image) * small.vcpu_speed
    assert more_s == pytest.approx(0.033)


def test_limits_are_sorted_by_where_they_break() -> None:
    at = [limit.breaks_at for limit in made_up().limits()]
    assert at == sorted(at)
    assert all(value > 0 for value in at)


def test_faster_jobs_move_the_limits_of_compute_and_no_other() -> None:
    slow, fast = made_up(), made_up()
    fast.core_ms = {stage: ms / 2 for stage, ms in fast.core_ms.items()}
    moved = {
        limit.resource: limit.breaks_at / before.breaks_at
        for before in slow.limits()
        for limit in fast.limits()
        if limit.resource == before.resource
    }
    assert {name for name, factor in moved.items() if factor == pytest.approx(2)} == {
        "the run's cost ceiling, on a first load",
        "the night itself, on a first load",
    }


def test_the_trial_counts_each_key_once_and_each_change() -> None:
    measured = plan_trial.trial(20_000)
    assert (measured["keys"], measured["pages"], measured["changed"], measured["unchanged"]) == (
        20_000,
        133,
        200,
        19_800,
    )


def test_the_lister_gives_sorted_keys_a_page_at_a_time() -> None:
    lister = plan_trial.ScriptedLister(2500)
    starts = ({}, {"ContinuationToken": "1000"}, {"ContinuationToken": "2000"})
    pages = [lister.list_objects_v2(Prefix="images/", **start) for start in starts]
    keys = [item["Key"] for page in pages for item in page["Contents"]]
    assert [len(page["Contents"]) for page in pages] == [1000, 1000, 500]
    assert keys == sorted(set(keys))


@pytest.mark.slow
def test_a_million_keys_pass_in_little_memory() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import plan_trial, json; print(json.dumps(plan_trial.trial(1_000_000)))"],
        cwd=SCALE,
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(ended.stdout)
    assert answer["keys"] == 1_000_000
    assert answer["peak_memory_mb"] < 400


def test_the_first_night_on_aws_is_quoted_once_there_is_evidence(tmp_path):
    night = {
        "region": "eu-west-1", "images": {"loaded": 98}, "cluster": {"release": "emr-spark-8.0.0"}, "log_delay_s": None,
        "start_up_minutes": 6.25, "fixed_minutes": 12.5, "cost": {"estimate_eur": 0.125, "forecast_eur": 0.13},
    }  # fmt: skip
    path = tmp_path / "first_night.json"
    assert "make first-night" in write_scale.first_night(path)
    path.write_text(json.dumps(night))
    text = write_scale.first_night(path)
    assert "98 images, emr-spark-8.0.0): 6.2 minutes to start, 12.5 fixed minutes" in text
    assert "logs not seen after" in text
