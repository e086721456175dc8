"""The runs in the lake, as the page in Airflow reads them: few requests, short waits, nothing trusted."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError
from cachetools import LRUCache

from fruits_airflow.config.errors import FruitsError
from fruits_airflow.emr.stage_steps import STAGES
from fruits_airflow.records.digests import EVIDENCE, REPORT, changes
from fruits_airflow.records.models import (
    MAX_RECORD_BYTES,
    RECORD,
    RecordError,
    RunRecord,
    StageMetrics,
    date_of,
    parse_metrics,
    parse_record,
    stage_file,
)
from fruits_airflow.records.sample import MAX_SAMPLE_BYTES, SAMPLE, decode_sample
from fruits_airflow.storage.lake import (
    MISSING,
    Lake,
    ObjectTooLarge,
    error_code,
    run_key,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from mypy_boto3_s3 import S3Client

MAX_BYTES = {SAMPLE: MAX_SAMPLE_BYTES, REPORT: 10_000_000}
REQUESTS_AT_ONCE = 16
# What Airflow lets a run be called ([scheduler] allowed_run_id_pattern), so no slash, space or `<`.
RUN_ID = re.compile(r"[A-Za-z0-9_.~:+-]{1,250}")
T = TypeVar("T")
_UNCHANGED = frozenset({"304", "NotModified"})


@dataclass(frozen=True)
class StoredRun:
    """What is kept of a run.

    Attributes:
        run_id: the name of its folder, whatever it is.
        record: run.json; None when there is none or it cannot be used.
        recorded: whether there is a run.json at all; a run that goes on has none yet.
        problems: what could not be read, and why.
        changed: what is not as the verdict judged it.
        stages: the stages' metrics by stage name.
        sample: the sample of its images, None when there is none.
        residency: residency.json, empty when there is none.
    """

    run_id: str
    record: RunRecord | None
    recorded: bool
    problems: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    stages: Mapping[str, StageMetrics] = field(default_factory=dict)
    sample: pa.Table | None = None
    residency: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Kept:
    etag: str
    record: RunRecord | None
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
        ids = Lake(self.client, self.bucket).run_ids()
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
        # report.html is not shown, only compared with what the verdict judged.
        names = (*map(stage_file, STAGES), EVIDENCE, SAMPLE, REPORT)
        with ThreadPoolExecutor(len(names) + 1) as pool:
            recorded = pool.submit(self._recorded, run_id)
            found = dict(zip(names, pool.map(lambda name: self._file(run_id, name), names), strict=True))
        files = {name: content for name, content in found.items() if isinstance(content, bytes)}
        stored, problems = (
            recorded.result(),
            [str(error) for error in found.values() if isinstance(error, FruitsError)],
        )
        stages = {}
        for stage in STAGES:
            if (name := stage_file(stage)) in files and (
                metrics := _usable(partial(parse_metrics, files[name], name), problems)
            ):
                stages[stage] = metrics
        if not stored.recorded and not stages and not self._has_folder(run_id):
            return None
        record = stored.record
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        return replace(
            stored,
            # A record of before there were digests says nothing about its files.
            changed=list(changes(record, digests).values()) if record and record.digests else [],
            stages=stages,
            sample=_usable(partial(decode_sample, files[SAMPLE]), problems) if SAMPLE in files else None,
            residency=_usable(partial(_evidence, files[EVIDENCE]), problems) or {}
            if EVIDENCE in files
            else {},
            problems=stored.problems + problems,
        )

    def _recorded(self, run_id: str) -> StoredRun:
        kept = self._kept(run_id)
        if kept is None:
            return StoredRun(run_id, None, recorded=False)
        return StoredRun(run_id, kept.record, recorded=True, problems=[kept.problem] if kept.problem else [])

    def _kept(self, run_id: str) -> _Kept | None:
        with self._lock:
            known: _Kept | None = self._records.get(run_id)
        try:
            found = self._get(run_key(run_id, RECORD), MAX_RECORD_BYTES, known.etag if known else None)
        except ObjectTooLarge as error:
            return _Kept("", None, str(error))
        if found is _SAME:
            return known
        if found is None:
            return None
        problems = list[str]()
        record = _usable(partial(parse_record, found.content, run_id), problems)
        problem = problems[0] if problems else None
        kept = _Kept(found.etag, record, problem)
        with self._lock:
            self._records[run_id] = kept
        return kept

    def _file(self, run_id: str, name: str) -> bytes | ObjectTooLarge | None:
        """The content of a file of a run; None when there is none, the error when it is too large."""
        try:
            found = self._get(run_key(run_id, name), MAX_BYTES.get(name, MAX_RECORD_BYTES))
        except ObjectTooLarge as error:
            return error
        return found.content if found else None

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
        """The object; None when there is none, _SAME when it still has `etag`.

        Raises:
            ObjectTooLarge: it has more than `limit` bytes.
        """
        condition: Any = {"IfNoneMatch": etag} if etag else {}
        try:
            reply = self.client.get_object(Bucket=self.bucket, Key=key, **condition)
        except ClientError as error:
            if error_code(error) in _UNCHANGED:
                return _SAME
            if error_code(error) in MISSING:
                return None
            raise
        if reply["ContentLength"] > limit:
            reply["Body"].close()
            raise ObjectTooLarge(
                f"{key} has {reply['ContentLength']:,} bytes, and at most {limit:,} are read"
            )
        return _Found(reply["ETag"], reply["Body"].read())


@dataclass(frozen=True)
class _Found:
    etag: str
    content: bytes


_SAME = _Found("", b"")


def _evidence(content: bytes) -> Mapping[str, Any]:
    """Parse residency.json.

    Raises:
        RecordError: it is no JSON object.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{EVIDENCE} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise RecordError(f"{EVIDENCE} holds a {type(found).__name__} where an object is meant")
    return found


def _usable(read: Callable[[], T], problems: list[str]) -> T | None:
    """What `read` returns; None when it cannot, and the reason in `problems`."""
    try:
        return read()
    except FruitsError as error:
        problems.append(str(error))
        return None
