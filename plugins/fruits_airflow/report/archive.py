"""The runs in the lake, as the page in Airflow reads them: few requests, short waits, nothing trusted."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from cachetools import LRUCache

from fruits_airflow.lake import MISSING, error_code, run_key
from fruits_airflow.stages import STAGES

if TYPE_CHECKING:
    import pyarrow as pa
    from mypy_boto3_s3 import S3Client

RECORD = "run.json"
MAX_RECORD_BYTES = 1_000_000  # of a JSON object; ours hold some 2 kB, a variance curve some 30 kB
MAX_SAMPLE_BYTES = 20_000_000
REQUESTS_AT_ONCE = 16
# What Airflow lets a run be called ([scheduler] allowed_run_id_pattern), so no slash, space or `<`.
RUN_ID = re.compile(r"[A-Za-z0-9_.~:+-]{1,250}")
_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)T(\d\d)[:-](\d\d)(?:[:-](\d\d)(?:\.\d+)?)?(Z|[+-]\d\d:?\d\d)?"
)  # as Airflow writes it, and with hyphens as the demo does
_UNCHANGED = frozenset({"304", "NotModified"})


@dataclass(frozen=True)
class StoredRun:
    """What is kept of a run.

    Attributes:
        run_id: the name of its folder, whatever it is.
        record: run.json; empty when there is none or it cannot be read.
        recorded: whether there is a run.json at all; a run that goes on has none yet.
        problems: what could not be read, and why.
        stages: the stages' metrics by stage name.
        sample: the sample of its images, None when there is none.
        residency: residency.json, empty when there is none.
    """

    run_id: str
    record: Mapping[str, Any]
    recorded: bool
    problems: list[str] = field(default_factory=list)
    stages: Mapping[str, Any] = field(default_factory=dict)
    sample: pa.Table | None = None
    residency: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Kept:
    etag: str
    record: Mapping[str, Any]
    problem: str | None


class RunArchive:
    """The folders below `runs/` in the lake.

    Remembers each run.json with its ETag, and asks S3 whether it still is the same.

    Args:
        client: S3 client in the bucket's region.
        bucket: the lake.
    """

    def __init__(self, client: S3Client, bucket: str) -> None:
        self.client = client
        self.bucket = bucket
        self._records: LRUCache[str, _Kept] = LRUCache(2000)
        self._begun: LRUCache[str, datetime] = LRUCache(10_000)
        self._lock = Lock()

    def run_ids(self) -> list[str]:
        """Every run, newest first by the date in its id; one request for a thousand runs.

        An id without a date is placed by the age of the first object in its folder.

        Raises:
            ClientError, BotoCoreError: the bucket is not there, refuses, or cannot be reached.
        """
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix="runs/", Delimiter="/"
        )
        prefixes = [found["Prefix"] for page in pages for found in page.get("CommonPrefixes", [])]
        ids = [prefix.removeprefix("runs/").removesuffix("/") for prefix in prefixes]
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            dated = list(zip(pool.map(self._when, ids), ids, strict=True))
        return [run_id for _, run_id in sorted(dated, reverse=True)]

    def records(self, run_ids: Iterable[str]) -> list[StoredRun]:
        """Only the run.json of these runs, in their order."""
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            return list(pool.map(self._recorded, run_ids))

    def run(self, run_id: str) -> StoredRun | None:
        """All that the lake holds of one run, None when it holds nothing or Airflow has no such names."""
        if not RUN_ID.fullmatch(run_id) or run_id in (".", ".."):
            return None
        problems: list[str] = []
        parts = {
            **{stage: self._json_reader(run_id, f"stages/{stage}.json", problems) for stage in STAGES},
            "residency": self._json_reader(run_id, "residency.json", problems),
            "sample": lambda: self._sample(run_id, problems),
            "record": lambda: self._recorded(run_id),
        }
        with ThreadPoolExecutor(len(parts)) as pool:
            found = dict(zip(parts, pool.map(lambda read: read(), parts.values()), strict=True))
        stored: StoredRun = found["record"]
        stages = {stage: found[stage] for stage in STAGES if found[stage]}
        if not stored.recorded and not stages and not self._has_folder(run_id):
            return None
        return StoredRun(
            run_id=run_id,
            record=stored.record,
            recorded=stored.recorded,
            problems=stored.problems + problems,
            stages=stages,
            sample=found["sample"],
            residency=found["residency"],
        )

    def _recorded(self, run_id: str) -> StoredRun:
        kept = self._kept(run_id)
        if kept is None:
            return StoredRun(run_id, {}, recorded=False)
        return StoredRun(run_id, kept.record, recorded=True, problems=[kept.problem] if kept.problem else [])

    def _kept(self, run_id: str) -> _Kept | None:
        with self._lock:
            known: _Kept | None = self._records.get(run_id)
        found = self._get(run_key(run_id, RECORD), MAX_RECORD_BYTES, known.etag if known else None)
        if found is _SAME:
            return known
        if found is None:
            return None
        record, problem = _parsed(RECORD, found.content)
        kept = _Kept(found.etag, record, problem)
        with self._lock:
            self._records[run_id] = kept
        return kept

    def _json_reader(self, run_id: str, name: str, problems: list[str]) -> Callable[[], Mapping[str, Any]]:
        def read() -> Mapping[str, Any]:
            found = self._get(run_key(run_id, name), MAX_RECORD_BYTES)
            content, problem = _parsed(name, found.content) if found else ({}, None)
            if problem:
                problems.append(problem)
            return content

        return read

    def _sample(self, run_id: str, problems: list[str]) -> pa.Table | None:
        found = self._get(run_key(run_id, "sample.parquet"), MAX_SAMPLE_BYTES)
        if found is None:
            return None
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.read_table(io.BytesIO(found.content))
        except (pa.ArrowInvalid, OSError) as error:
            problems.append(f"sample.parquet cannot be read: {error}")
            return None

    def _when(self, run_id: str) -> tuple[datetime, str]:
        """When the run was, and its id to settle a tie."""
        return (date_of(run_id) or self._first_object(run_id), run_id)

    def _first_object(self, run_id: str) -> datetime:
        with self._lock:
            known: datetime | None = self._begun.get(run_id)
        if known is None:
            found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=run_key(run_id) + "/", MaxKeys=1)
            objects = found.get("Contents", [])
            known = objects[0]["LastModified"] if objects else datetime.min.replace(tzinfo=UTC)
            with self._lock:
                self._begun[run_id] = known
        return known

    def _has_folder(self, run_id: str) -> bool:
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=run_key(run_id) + "/", MaxKeys=1)
        return bool(found.get("KeyCount", 0))

    def _get(self, key: str, limit: int, etag: str | None = None) -> _Found | None:
        """The object, cut at one byte above `limit`; None when there is none, _SAME when it still has `etag`."""
        condition: Any = {"IfNoneMatch": etag} if etag else {}
        try:
            reply = self.client.get_object(Bucket=self.bucket, Key=key, **condition)
        except ClientError as error:
            if error_code(error) in _UNCHANGED:
                return _SAME
            if error_code(error) in MISSING:
                return None
            raise
        return _Found(reply["ETag"], reply["Body"].read(limit + 1))


@dataclass(frozen=True)
class _Found:
    etag: str
    content: bytes


_SAME = _Found("", b"")


def date_of(run_id: str) -> datetime | None:
    """The date in a run's id, UTC unless it names an offset; None when there is none, or no such day."""
    match = _DATE.search(run_id)
    if match is None:
        return None
    day, hour, minute, second, offset = match.groups()
    try:
        found = datetime.fromisoformat(f"{day}T{hour}:{minute}:{second or '00'}{offset or '+00:00'}")
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _parsed(name: str, content: bytes) -> tuple[Mapping[str, Any], str | None]:
    """A JSON object and None, or nothing and why."""
    if len(content) > MAX_RECORD_BYTES:
        return {}, f"{name} is larger than {MAX_RECORD_BYTES:,} bytes, so it is not read"
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        return {}, f"{name} is no JSON: {error}"
    if not isinstance(found, dict):
        return {}, f"{name} holds a {type(found).__name__} where an object is meant"
    return found, None
