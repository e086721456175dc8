"""The runs in the lake as the pages read them: which requests, in which order, and what is made of bad objects."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from fruits_airflow.config.settings import Settings
from fruits_airflow.records.models import RunRecord, date_of
from fruits_airflow.report.archive import MAX_RECORD_BYTES, RunArchive
from fruits_airflow.report.runs_page import record_of

RUN = "scheduled__2026-01-12T02:00:00+00:00"


class Counted:
    """An archive over a bucket of its own, and the requests it has made, by operation."""

    def __init__(self, bucket: str, endpoint: str) -> None:
        self.s3 = boto3.client(
            "s3", endpoint_url=endpoint, region_name="eu-west-1", config=Config(max_pool_connections=16)
        )
        self.requests: Counter[str] = Counter()
        self.s3.meta.events.register("before-call.s3", lambda model, **_: self.requests.update([model.name]))
        self.archive = RunArchive(self.s3, bucket)
        self.bucket = bucket

    def put(self, run_id: str, name: str = "run.json", content: Any = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content or {"state": "succeeded"}).encode()
        self.s3.put_object(Bucket=self.bucket, Key=f"runs/{run_id}/{name}", Body=body)


@pytest.fixture
def lake(account: Settings, endpoint: str) -> Counted:
    return Counted(account.lake_bucket, endpoint)


@pytest.mark.parametrize(
    ("run_id", "date"),
    [
        (RUN, datetime(2026, 1, 12, 2, tzinfo=UTC)),
        ("manual__2026-01-12T02:00:00.123456+00:00_AbCd", datetime(2026, 1, 12, 2, tzinfo=UTC)),
        ("demo__2026-11-23T02-57-53", datetime(2026, 11, 23, 2, 57, 53, tzinfo=UTC)),
        ("backfill__2026-01-12T01:30:00+02:00", datetime(2026, 1, 11, 23, 30, tzinfo=UTC)),
        ("by-hand", None),
        ("manual__2026-13-45T99:99:99", None),
        ("manual__9999-12-31T23:59:59-14:00", None),
    ],
)
def test_the_date_of_a_run_is_in_its_id(run_id: str, date: datetime | None) -> None:
    assert date_of(run_id) == date


def test_runs_come_newest_first_whatever_began_them(lake: Counted) -> None:
    ids = [RUN, "manual__2026-01-11T09:00:00+00:00", "demo__2026-01-13T09-00-00", "zz__2025-01-01T00:00:00+00:00"]
    for run_id in ids:
        lake.put(run_id)
    assert lake.archive.run_ids() == [ids[2], ids[0], ids[1], ids[3]]


def test_a_run_without_a_date_in_its_id_is_placed_by_its_age_and_asked_for_once(lake: Counted) -> None:
    lake.put("by-hand", "listing.parquet", b"x")
    lake.put(RUN)
    assert lake.archive.run_ids() == ["by-hand", RUN]  # it began today
    lake.requests.clear()
    lake.archive.run_ids()
    assert lake.requests == {"ListObjectsV2": 1}


def test_a_list_of_many_runs_is_one_request_and_reads_the_records_of_its_page(lake: Counted) -> None:
    for n in range(60):
        lake.put(f"manual__2026-01-12T02:{n:02d}:00+00:00")
    lake.requests.clear()
    ids = lake.archive.run_ids()
    assert lake.requests == {"ListObjectsV2": 1}
    lake.archive.records(ids[:25])
    assert lake.requests == {"ListObjectsV2": 1, "GetObject": 25}


def test_a_record_that_has_not_changed_is_not_sent_again_and_one_that_has_is_seen(lake: Counted) -> None:
    lake.put(RUN, content={"state": "failed"})
    sent: list[int] = []
    lake.s3.meta.events.register(
        "after-call.s3.GetObject", lambda http_response, **_: sent.append(http_response.status_code)
    )

    def state() -> str | None:
        record = lake.archive.records([RUN])[0].record
        return record and record.state

    states = [state(), state()]
    lake.put(RUN, content={"state": "succeeded"})
    states.append(state())
    assert states == ["failed", "failed", "succeeded"]
    assert sent == [200, 304, 200]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "Invalid JSON"),
        (b"[1]", "should be an object"),
        (b"\xff\xfe\x00", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (b'{"state": "failed", "images": {"loaded": "<text>"}}', "images.loaded"),
        (b'{"state": "failed", "seconds": null}', "seconds"),
        (b" " * (MAX_RECORD_BYTES + 1), "at most 1,000,000 are read"),
    ],
)
def test_a_record_that_cannot_be_read_is_a_problem_of_that_run_alone(content: bytes, words: str, lake: Counted) -> None:
    lake.put(RUN, content=content)
    lake.put("other", content={"state": "failed"})
    broken, other = lake.archive.records([RUN, "other"])
    assert broken.has_record
    assert broken.record is None
    assert words in broken.problems[0]
    assert other.record == RunRecord(state="failed")
    assert other.problems == []


def test_what_else_of_a_run_cannot_be_read_is_named(lake: Counted) -> None:
    lake.put(RUN)
    lake.put(RUN, "stages/publish.json", b"{")
    lake.put(RUN, "stages/featurize.json", {"seconds": 3})
    lake.put(RUN, "sample.parquet", b"no parquet")
    lake.put(RUN, "residency.json", b"1")
    run = lake.archive.run(RUN)
    assert run
    assert {stage: metrics.seconds for stage, metrics in run.stages.items()} == {"featurize": 3}
    assert run.sample is None
    assert run.residency == {}
    assert {problem.split()[0] for problem in run.problems} == {
        "stages/publish.json",
        "sample.parquet",
        "residency.json",
    }


def test_a_file_that_is_not_as_the_verdict_judged_it_is_named(lake: Counted) -> None:
    metrics = {"featurize": b'{"seconds": 3}', "publish": b'{"published": true}'}
    digests = {f"stages/{stage}.json": hashlib.sha256(content).hexdigest() for stage, content in metrics.items()}
    lake.put(RUN, content={"state": "succeeded", "digests": digests | {"report.html": "0" * 64}})
    for stage, content in metrics.items():
        lake.put(RUN, f"stages/{stage}.json", content)
    judged = lake.archive.run(RUN)
    assert judged
    assert judged.changes == []
    lake.put(RUN, "stages/publish.json", b'{"published": false}')
    lake.put(RUN, "stages/load_images.json", {"seconds": 1})
    lake.put(RUN, "report.html", b"forged")
    forged = lake.archive.run(RUN)
    assert forged
    assert sorted(change.split()[0] for change in forged.changes) == [
        "report.html",
        "stages/load_images.json",
        "stages/publish.json",
    ]


@pytest.mark.parametrize(("host_region", "simulated"), [("local endpoint", True), ("eu-west-3", False)])
def test_the_place_of_a_run_that_goes_on_is_known_from_its_plan(
    lake: Counted, host_region: str, simulated: bool
) -> None:
    survey = {"cluster_region": "eu-west-3", "endpoint": {"service": "s3", "region": host_region}}
    lake.put(RUN, "residency.json", survey)
    run = lake.archive.run(RUN)
    assert run
    facts = {"run_id": RUN, "state": "running", "region": "eu-west-3", "simulated": simulated}
    assert record_of(run, "running") == facts


def test_a_sample_that_decodes_to_gigabytes_is_a_problem_of_the_page_alone(lake: Counted) -> None:
    lake.put(RUN)
    out = io.BytesIO()
    pq.write_table(pa.table({"label": ["a" * 400_000_000], "pc1": [1.0], "pc2": [1.0]}), out, compression="zstd")
    lake.put(RUN, "sample.parquet", out.getvalue())
    run = lake.archive.run(RUN)
    assert run
    assert run.sample is None
    assert "sample.parquet cannot be shown: it needs more than" in run.problems[0]


def test_a_run_that_has_only_begun_is_a_run_without_a_record(lake: Counted) -> None:
    lake.put(RUN, "listing.parquet", b"x")
    run = lake.archive.run(RUN)
    assert run
    assert not run.has_record
    assert lake.archive.run("manual__2026-01-01T00:00:00+00:00") is None


@pytest.mark.parametrize("name", ["..", ".", "", "../state", "a/b", "a\\b", "<b>", "a b", "a\n", "a" * 251])
def test_no_name_leads_out_of_the_folder_of_the_runs(name: str, lake: Counted) -> None:
    lake.requests.clear()
    assert lake.archive.run(name) is None
    assert lake.requests == {}


def test_a_bucket_that_is_not_there_is_an_error_and_no_empty_list(lake: Counted) -> None:
    with pytest.raises(ClientError, match="NoSuchBucket"):
        RunArchive(lake.s3, "no-such-bucket").run_ids()
