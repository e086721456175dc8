"""The digests of a run's files: recorded by the verdict, kept true by what replaces a file on purpose."""

from __future__ import annotations

import hashlib
import io

import pytest
from airflow.sdk.exceptions import AirflowFailException
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.stage_steps import STAGES
from fruits_airflow.records.digests import NODE_FILES, changes, digest_files, record_digest
from fruits_airflow.records.models import RunRecord, read_record, stage_file, write_record
from fruits_airflow.runs import verdict
from fruits_airflow.runs.run_context import RunContext
from fruits_airflow.runs.run_status import WORK_TASKS
from fruits_airflow.runs.verdict import judge_run
from fruits_airflow.storage.lake import Lake, run_key

from tests.plugins import laptop
from tests.plugins.airflow_context import context_of
from tests.plugins.measured import PUBLISHED, measure

RUN = "scheduled__2026-01-01T02:00:00+00:00"
DONE = dict.fromkeys(WORK_TASKS, "success")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def lake(account: Settings) -> Lake:
    return Lake(laptop.client("s3"), account.lake_bucket)


@pytest.fixture
def record(lake: Lake) -> RunRecord:
    """Judge a run with a sample and a page."""
    names = {"sample.parquet": b"sample", "report.html": b"page"}
    for name, content in names.items():
        lake.write(run_key(RUN, name), content)
    digests = {name: sha256(content) for name, content in names.items()}
    judged = RunRecord(run_id=RUN, state="succeeded", digests=digests)
    write_record(lake, judged)
    return judged


def present(lake: Lake) -> dict[str, str]:
    return digest_files(lake, RUN, (*NODE_FILES, "report.html"))


def test_files_as_they_were_judged_have_not_changed(lake: Lake, record: RunRecord) -> None:
    assert present(lake) == record.digests
    assert changes(record, present(lake)) == {}


def test_a_file_that_differs_or_was_added_since_is_named(lake: Lake, record: RunRecord) -> None:
    lake.write(run_key(RUN, "sample.parquet"), b"forged")
    lake.write(run_key(RUN, "pca.parquet"), b"added")
    wrong = changes(record, present(lake))
    assert set(wrong) == {"sample.parquet", "pca.parquet"}
    assert f"has changed since the verdict: its SHA-256 is {sha256(b'forged')}" in wrong["sample.parquet"]
    assert "was written after the verdict" in wrong["pca.parquet"]


def replace(lake: Lake, name: str, content: bytes | None) -> None:
    """Replace a file as an erasure does."""
    record_digest(lake, run_key(RUN, name), content if content is None else io.BytesIO(content))
    if content is None:
        lake.remove(run_key(RUN, name))
    else:
        lake.write(run_key(RUN, name), content)


def test_an_erasure_keeps_the_digests_true(lake: Lake, record: RunRecord) -> None:
    replace(lake, "sample.parquet", b"without a photo")
    replace(lake, "report.html", None)
    judged = read_record(lake, RUN)
    assert judged
    assert judged.digests == {"sample.parquet": sha256(b"without a photo")} == present(lake)


def test_an_erasure_does_not_bless_a_forged_file(lake: Lake, record: RunRecord) -> None:
    lake.write(run_key(RUN, "sample.parquet"), b"forged")
    replace(lake, "sample.parquet", b"forged, without a photo")
    assert set(changes(read_record(lake, RUN), present(lake))) == {"sample.parquet"}


def test_an_erasure_that_died_before_its_write_ends_with_a_true_digest(lake: Lake, record: RunRecord) -> None:
    record_digest(lake, run_key(RUN, "sample.parquet"), b"clean")
    assert set(changes(read_record(lake, RUN), present(lake))) == {"sample.parquet"}
    replace(lake, "sample.parquet", b"clean")
    assert changes(read_record(lake, RUN), present(lake)) == {}


@pytest.mark.parametrize("key", ["logs/j-1/stderr.gz", f"runs/{RUN}/journal/last_failure.json", "runs/x/run.json"])
def test_what_has_no_recorded_digest_gets_none(lake: Lake, record: RunRecord, key: str) -> None:
    record_digest(lake, key, b"after")
    assert read_record(lake, RUN) == record


def test_the_verdict_records_what_it_judged_and_the_page_that_it_left(run: RunContext) -> None:
    measure(run)
    run_id = run.identity.run_id
    run.lake.write(run_key(run_id, "pca.parquet"), b"export")
    judge_run(run.settings, context_of(run, DONE))
    record = read_record(run.lake, run_id)
    assert record
    assert record.state == "succeeded"
    assert record.digests["pca.parquet"] == sha256(b"export")
    files = {"pca.parquet", "report.html", "model_card.md", "datasheet.md"}
    assert set(record.digests) == files | {stage_file(stage) for stage in STAGES}
    assert changes(record, digest_files(run.lake, run_id, record.digests)) == {}


def red_reason(run: RunContext) -> str:
    with pytest.raises(AirflowFailException):
        judge_run(run.settings, context_of(run, DONE))
    record = read_record(run.lake, run.identity.run_id)
    assert record
    assert record.state == "failed"
    return record.reason


def test_metrics_that_change_while_they_are_judged_make_the_run_red(
    run: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(run)

    def forge(_: RunContext) -> list[str]:
        run.lake.write_json(run_key(run.identity.run_id, "stages/publish.json"), PUBLISHED | {"seconds": 9})
        return []

    monkeypatch.setattr(verdict, "residency_problems", forge)
    assert "stages/publish.json changed while the run was judged" in red_reason(run)


def test_metrics_that_cannot_be_used_make_the_run_red_and_say_why(run: RunContext) -> None:
    measure(run)
    run.lake.write_json(run_key(run.identity.run_id, "stages/featurize.json"), {"features": {"rows": "<b>"}})
    reason = red_reason(run)
    assert "featurize left no metrics" in reason
    assert "stages/featurize.json does not follow its schema: features.rows" in reason
    page = run.lake.read(run_key(run.identity.run_id, "report.html"))
    assert page is not None
    assert b"features.rows" in page


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"digests": ' * 100_000, b" " * 1_000_001, b"[[]]", b"null"])
def test_no_form_of_a_record_stops_an_erasure(lake: Lake, content: bytes) -> None:
    lake.write(run_key(RUN, "sample.parquet"), b"sample")
    lake.write(run_key(RUN, "run.json"), content)
    replace(lake, "sample.parquet", b"without a photo")
    assert lake.read(run_key(RUN, "run.json")) == content
