"""Links that expire: to what, for how long, and from where."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import urllib.request
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from fruits_airflow.config.errors import ConfigError, ResidencyError
from fruits_airflow.config.settings import Settings
from fruits_airflow.records.models import RunRecord, write_record
from fruits_airflow.records.sharing import share_run
from fruits_airflow.storage.lake import Lake, run_key

from tests.plugins import laptop

RUN = "scheduled__2026-01-01T02:00:00+00:00"

SHARED = ("report.html", "pca.parquet", "model_card.md", "datasheet.md")


@pytest.fixture
def lake(account: Settings) -> Lake:
    lake_of_run = Lake(laptop.client("s3"), account.lake_bucket)
    for name in (*SHARED, "presentation.pdf", "listing.parquet", "sample.parquet"):
        lake_of_run.write(run_key(RUN, name), name.encode())
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in SHARED}
    write_record(lake_of_run, RunRecord(run_id=RUN, state="succeeded", digests=digests))
    return lake_of_run


@pytest.mark.parametrize("name", SHARED)
def test_no_link_is_made_while_a_file_differs_from_what_the_verdict_judged(lake: Lake, name: str) -> None:
    lake.write(run_key(RUN, name), b"<script>forged</script>")
    with pytest.raises(ConfigError, match=f"{name} has changed since the verdict"):
        share_run(lake.client, lake.bucket, RUN, 1)


def test_a_nodes_file_without_a_recorded_digest_is_not_shared(lake: Lake) -> None:
    write_record(lake, RunRecord(run_id=RUN, state="succeeded"))
    with pytest.raises(ConfigError, match=r"pca\.parquet was never judged"):
        share_run(lake.client, lake.bucket, RUN, 1)
    lake.remove(run_key(RUN, "pca.parquet"))
    rest = {*SHARED, "presentation.pdf"} - {"pca.parquet"}
    assert {link.name for link in share_run(lake.client, lake.bucket, RUN, 1)} == rest


def test_report_export_and_pdf_can_be_opened_and_nothing_else_is_given(lake: Lake) -> None:
    links = share_run(lake.client, lake.bucket, RUN, 1)
    assert {link.name for link in links} == {*SHARED, "presentation.pdf"}
    for link in links:
        with urllib.request.urlopen(link.url, timeout=10) as reply:
            assert reply.read().decode() == link.name


def test_a_link_lasts_as_long_as_was_said(lake: Lake) -> None:
    (link, *_) = share_run(lake.client, lake.bucket, RUN, 1.5)
    query = parse_qs(urlsplit(link.url).query)
    assert (query.get("X-Amz-Expires") or [""])[0] == "5400" or "Expires" in query


@pytest.mark.parametrize("hours", [0, -1, 169, float("nan")])
def test_a_time_that_no_signature_lasts_is_refused(lake: Lake, hours: float) -> None:
    with pytest.raises(ConfigError, match="HOURS"):
        share_run(lake.client, lake.bucket, RUN, hours)


@pytest.mark.parametrize("run_id", ["../models", "nobody__2026", "", "a/b"])
def test_another_folder_is_not_shared(lake: Lake, run_id: str) -> None:
    with pytest.raises(ConfigError, match="RUN"):
        share_run(lake.client, lake.bucket, run_id, 1)


def test_a_link_out_of_the_union_is_refused(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    virginia = boto3.client("s3", region_name="us-east-1")
    monkeypatch.setattr(lake.client, "generate_presigned_url", virginia.generate_presigned_url)
    with pytest.raises(ResidencyError, match="endpoint"):
        share_run(lake.client, lake.bucket, RUN, 1)


def share(settings: Settings, run_id: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": str(laptop.REPOSITORY / "plugins"),
        "FRUITS_DEPLOYMENT_ID": settings.deployment_id,
        "FRUITS_RAW_BUCKET": settings.raw_bucket,
        "FRUITS_LAKE_BUCKET": settings.lake_bucket,
    }
    command = [sys.executable, "-m", "ops", "share", "--run", run_id]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_prints_links_that_open(lake: Lake, account: Settings) -> None:
    done = share(account, RUN)
    assert done.returncode == 0, done.stderr
    urls = [line.strip() for line in done.stdout.splitlines() if line.startswith("  http")]
    with urllib.request.urlopen(urls[0], timeout=10) as reply:
        assert reply.status == 200
    assert "X-Amz-Expires=86400" in urls[0]
    assert share(account, "nobody").stderr.startswith("ERROR: RUN")
