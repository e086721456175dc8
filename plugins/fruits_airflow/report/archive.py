"""Read the runs in the lake for the pages in Airflow, with few requests and short waits, and without trusting them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from botocore.exceptions import ClientError
from cachetools import LRUCache
from pydantic import TypeAdapter, ValidationError

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
from fruits_airflow.storage.lake import MISSING, Lake, ObjectTooLarge, error_code, run_key

if TYPE_CHECKING:
    import pyarrow as pa
    from mypy_boto3_s3 import S3Client

MAX_BYTES = {SAMPLE: MAX_SAMPLE_BYTES, REPORT: 10_000_000}
MAX_REQUESTS = 16  # at the same time
# What Airflow lets a run be called ([scheduler] allowed_run_id_pattern), so no slash, space or `<`.
RUN_ID = re.compile(r"[A-Za-z0-9_.~:+-]{1,250}")
_OBJECT = TypeAdapter(dict[str, Any])
_UNMODIFIED_CODES = frozenset({"304", "NotModified"})
_T = TypeVar("_T")


@dataclass(frozen=True)
class StoredRun:
    """What the lake stores of a run."""

    run_id: str  # name of its folder, whatever it is
    record: RunRecord | None  # run.json; None when there is none or it cannot be used
    has_record: bool  # whether there is a run.json at all; a run that goes on has none yet
    problems: list[str] = field(default_factory=list)  # what cannot be read, and why
    changes: list[str] = field(default_factory=list)  # what differs from what the final check judged
    stages: Mapping[str, StageMetrics] = field(default_factory=dict)  # the stages' metrics by stage name
    sample: pa.Table | None = None  # the sample of its images, None when there is none
    residency: Mapping[str, Any] = field(default_factory=dict)  # residency.json, empty when there is none

    @property
    def may_go_on(self) -> bool:
        """Whether Airflow must be asked: a run without a record, or a failed one, which may have been cleared."""
        return not self.has_record or (self.record is not None and self.record.state == "failed")


class _StoredFile(NamedTuple):
    etag: str
    content: bytes


_UNMODIFIED = _StoredFile("", b"")


class RunArchive:
    """The folders below `runs/` in the lake.

    Remembers each run.json with its ETag, and asks S3 whether it is still the same. `client` is of the bucket's region.
    """

    def __init__(self, client: S3Client, bucket: str) -> None:
        self.client = client
        self.bucket = bucket
        self._records: LRUCache[str, tuple[str, StoredRun]] = LRUCache(2000)  # with their ETags
        self._first_writes: LRUCache[str, datetime] = LRUCache(10_000)
        self._lock = Lock()

    def run_ids(self) -> list[str]:
        """Return every run, newest first by the date in its id; takes one request for a thousand runs.

        The age of the first object in its folder dates an id without a date.

        Raises:
            ClientError, BotoCoreError: The bucket does not exist, refuses, or cannot be reached.
        """
        ids = Lake(self.client, self.bucket).run_ids()
        with ThreadPoolExecutor(MAX_REQUESTS) as pool:
            dates = pool.map(lambda run_id: date_of(run_id) or self._first_write(run_id), ids)
            return [run_id for _, run_id in sorted(zip(dates, ids, strict=True), reverse=True)]

    def records(self, run_ids: Iterable[str]) -> list[StoredRun]:
        """Return these runs in their order, with nothing but their run.json."""
        with ThreadPoolExecutor(MAX_REQUESTS) as pool:
            return list(pool.map(self._record, run_ids))

    def run(self, run_id: str) -> StoredRun | None:
        """Return all that the lake holds of a run; None when it holds nothing or Airflow allows no such name."""
        if not RUN_ID.fullmatch(run_id) or run_id in (".", ".."):
            return None
        # report.html is not shown; its digest is compared.
        names = (*map(stage_file, STAGES), EVIDENCE, SAMPLE, REPORT)
        with ThreadPoolExecutor(len(names) + 1) as pool:
            pending = pool.submit(self._record, run_id)
            contents = dict(zip(names, pool.map(partial(self._file, run_id), names), strict=True))
        stored = pending.result()
        problems = [*stored.problems, *(str(c) for c in contents.values() if isinstance(c, ObjectTooLarge))]
        files = {name: content for name, content in contents.items() if isinstance(content, bytes)}

        def parse(name: str, parser: Callable[[bytes], _T]) -> _T | None:
            try:
                return parser(files[name]) if name in files else None
            except FruitsError as error:
                problems.append(str(error))
                return None

        stages = {
            stage: metrics
            for stage in STAGES
            if (metrics := parse(stage_file(stage), partial(parse_metrics, name=stage_file(stage))))
        }
        sample, residency = parse(SAMPLE, decode_sample), parse(EVIDENCE, _parse_evidence)
        if not stored.has_record and not stages and self._first_object(run_id) is None:
            return None
        record = stored.record
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        return replace(
            stored,
            # A record from before there were digests says nothing about its files.
            changes=list(changes(record, digests).values()) if record and record.digests else [],
            stages=stages,
            sample=sample,
            residency=residency or {},
            problems=problems,
        )

    def _record(self, run_id: str) -> StoredRun:
        with self._lock:
            etag, known = self._records.get(run_id, (None, StoredRun(run_id, None, has_record=False)))
        try:
            file = self._get(run_key(run_id, RECORD), MAX_RECORD_BYTES, etag)
        except ObjectTooLarge as error:
            return StoredRun(run_id, None, has_record=True, problems=[str(error)])
        if file is _UNMODIFIED:
            return known
        if file is None:
            return StoredRun(run_id, None, has_record=False)
        try:
            stored = StoredRun(run_id, parse_record(file.content, run_id), has_record=True)
        except FruitsError as error:
            stored = StoredRun(run_id, None, has_record=True, problems=[str(error)])
        with self._lock:
            self._records[run_id] = (file.etag, stored)
        return stored

    def _file(self, run_id: str, name: str) -> bytes | ObjectTooLarge | None:
        """Return the content of a file of a run; None when there is none, the error when it is too large."""
        try:
            file = self._get(run_key(run_id, name), MAX_BYTES.get(name, MAX_RECORD_BYTES))
        except ObjectTooLarge as error:
            return error
        return file and file.content

    def _first_write(self, run_id: str) -> datetime:
        with self._lock:
            known: datetime | None = self._first_writes.get(run_id)
        if known is None:
            known = self._first_object(run_id) or datetime.min.replace(tzinfo=UTC)
            with self._lock:
                self._first_writes[run_id] = known
        return known

    def _first_object(self, run_id: str) -> datetime | None:
        """Return when the first object in a run's folder was written; None when there is no object."""
        page = self.client.list_objects_v2(Bucket=self.bucket, Prefix=run_key(run_id) + "/", MaxKeys=1)
        return next((entry["LastModified"] for entry in page.get("Contents", [])), None)

    def _get(self, key: str, limit: int, etag: str | None = None) -> _StoredFile | None:
        """Return the object; None when there is none, _UNMODIFIED when it still has `etag`.

        Raises:
            ObjectTooLarge: It has more than `limit` bytes.
        """
        condition: Any = {"IfNoneMatch": etag} if etag else {}
        try:
            reply = self.client.get_object(Bucket=self.bucket, Key=key, **condition)
        except ClientError as error:
            if error_code(error) in _UNMODIFIED_CODES:
                return _UNMODIFIED
            if error_code(error) in MISSING:
                return None
            raise
        if reply["ContentLength"] > limit:
            reply["Body"].close()
            raise ObjectTooLarge(f"{key} has {reply['ContentLength']:,} bytes, and at most {limit:,} are read")
        return _StoredFile(reply["ETag"], reply["Body"].read())


def _parse_evidence(content: bytes) -> Mapping[str, Any]:
    """Parse residency.json.

    Raises:
        RecordError: It is no JSON object.
    """
    try:
        return _OBJECT.validate_json(content)
    except ValidationError as error:
        raise RecordError(f"{EVIDENCE} is no JSON object: {error.errors()[0]['msg']}") from error
