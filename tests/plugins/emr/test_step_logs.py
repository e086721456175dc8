"""The end of a step's output, when a log is late, missing, truncated or full of Spark's INFO lines."""

from __future__ import annotations

import gzip
import threading
import time
import tracemalloc
import zlib

import pytest
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr import step_logs
from fruits_airflow.emr.step_logs import MAX_LINE, TAIL_LINES, read_tails, step_log_prefix

from tests.plugins import laptop


@pytest.fixture
def put(account: Settings):
    def put(name: str, content: bytes) -> None:
        key = f"logs/j-1/steps/s-1/{name}"
        laptop.client("s3").put_object(Bucket=account.lake_bucket, Key=key, Body=content)

    return put


def tails(account: Settings, wait_s: float = 0.0) -> dict[str, list[str]]:
    uri = f"s3n://{account.lake_bucket}/logs/"
    return dict(read_tails(laptop.client("s3"), uri, "j-1", "s-1", wait_s, 0.1))


@pytest.mark.parametrize("uri", ["s3://b/logs/", "s3n://b/logs", "s3a://b/logs/"])
def test_the_uri_may_be_written_as_the_console_does(uri: str) -> None:
    assert step_log_prefix(uri, "j-1", "s-1") == ("b", "logs/j-1/steps/s-1/")


def test_only_the_end_is_kept(account: Settings, put) -> None:
    put("stderr.gz", gzip.compress("\n".join(map(str, range(1000))).encode()))
    put("stdout.gz", gzip.compress(b"hello\n"))
    logs = tails(account)
    assert logs["stderr"] == [str(n) for n in range(1000 - TAIL_LINES, 1000)]
    assert logs["stdout"] == ["hello"]


def test_info_lines_of_spark_do_not_push_the_error_out(account: Settings, put) -> None:
    info_lines = b"26/11/23 02:15:46 INFO ShutdownHookManager: bye\n" * 100
    put("stderr.gz", gzip.compress(b"ERROR WeightsMismatch: other weights\n" + info_lines))
    assert tails(account)["stderr"] == ["ERROR WeightsMismatch: other weights"]


def test_a_log_cut_short_gives_what_is_readable(account: Settings, put) -> None:
    text = "".join(f"line {n * 7919 % 10007}\n" for n in range(5000)).encode()
    put("stderr.gz", gzip.compress(text)[:-2000])
    assert tails(account)["stderr"][0].startswith("line ")


def gzipped(text: bytes, end: bytes | None = None) -> bytes:
    """Return a log whose compression stops after `text`, followed by `end`."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(text) + (packer.flush() if end is None else packer.flush(zlib.Z_FULL_FLUSH) + end)


NO_BLOCK = b"\xff" * 64  # deflate has no blocks of this type
LINES = "".join(f"line {n * 7919 % 10007}\n" for n in range(5000)).encode()


@pytest.mark.parametrize(
    ("content", "shown"),
    [(gzipped(b"", NO_BLOCK), False), (gzipped(LINES, NO_BLOCK), True), (gzipped(LINES)[:-8] + b"checksum", True)],
    ids=["from its begin", "in its midst", "in its checksum"],
)
def test_a_corrupt_log_gives_what_is_readable_and_is_no_error(
    account: Settings, put, content: bytes, shown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    put("stderr.gz", content)
    assert [line.startswith("line ") for line in tails(account)["stderr"][:1]] == [True] * shown
    assert "truncated, corrupt" in caplog.text


def test_a_log_that_inflates_without_end_is_shown_from_its_readable_part_in_little_memory(
    account: Settings, put, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(step_logs, "MAX_LOG_BYTES", 20_000_000)
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b"x" * 1_000_000) for _ in range(100)) + packer.flush()
    put("stderr.gz", bomb)
    tracemalloc.start()
    try:
        (line,) = tails(account)["stderr"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert line == "x" * MAX_LINE
    assert peak < 10_000_000
    assert "too large" in caplog.text


def test_a_late_log_is_waited_for(account: Settings, put) -> None:
    put("stdout", b"in time")
    threading.Timer(0.5, put, ("stderr", b"late")).start()
    assert tails(account, wait_s=20)["stderr"] == ["late"]


def test_what_a_step_printed_may_come_a_little_later_than_its_errors(account: Settings, put) -> None:
    put("stderr", b"in time")
    threading.Timer(0.5, put, ("stdout", b"late")).start()
    assert tails(account, wait_s=20) == {"stdout": ["late"], "stderr": ["in time"]}


def test_a_step_that_printed_nothing_is_not_waited_for_as_long_as_one_without_logs(
    account: Settings, put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_logs, "STDOUT_WAIT_S", 0.3)
    put("stderr", b"in time")
    begun = time.monotonic()
    assert tails(account, wait_s=60) == {"stderr": ["in time"]}
    assert time.monotonic() - begun < 10


def test_a_log_that_never_comes_is_no_error(account: Settings) -> None:
    begun = time.monotonic()
    assert tails(account, wait_s=0.3) == {}
    assert time.monotonic() - begun < 10


def test_a_cluster_without_logs_is_no_error() -> None:
    assert read_tails(None, "", "j-1", "s-1", 5, 1) == {}  # type: ignore[arg-type]
