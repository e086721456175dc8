"""The digests of a run's files: `verdict` records what it judged, and a later difference shows as tampering.

A node of a cluster may write the files of its stages in any run's folder, because IAM cannot tell runs apart. The
digests are in run.json, which no node may write. See docs/adr/0016.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from typing import IO

from botocore.exceptions import ClientError

from fruits_airflow.emr.stage_steps import STAGES
from fruits_airflow.records.models import MAX_RECORD_BYTES, RECORD, RunRecord, stage_file
from fruits_airflow.records.sample import SAMPLE
from fruits_airflow.storage.lake import MISSING, Lake, ObjectTooLarge, error_code, run_key

EVIDENCE = "residency.json"
REPORT = "report.html"
CARDS = ("model_card.md", "datasheet.md")
NODE_FILES = (*(stage_file(stage) for stage in STAGES), SAMPLE, "pca.parquet", "pca_model.npz")
CONTROL_FILES = ("listing.parquet", EVIDENCE, REPORT, *CARDS)


def digest_files(lake: Lake, run_id: str, names: Iterable[str]) -> dict[str, str]:
    """Compute the SHA-256 of files in a run's folder, by name; files that do not exist are left out."""
    digests = {}
    for name in names:
        try:
            body = lake.client.get_object(Bucket=lake.bucket, Key=run_key(run_id, name))["Body"]
        except ClientError as error:
            if error_code(error) in MISSING:
                continue
            raise
        digests[name] = hashlib.file_digest(body, "sha256").hexdigest()  # type: ignore[arg-type]
    return digests


def changes(record: RunRecord | None, digests: Mapping[str, str]) -> dict[str, str]:
    """Say what is wrong with each file that is not as the verdict judged it, by name, from the present digests.

    A file of the control plane that has no recorded digest is right: no node can have written it.
    """
    recorded = record.digests if record else {}
    wrong = {}
    for name, digest in digests.items():
        judged = recorded.get(name)
        if judged is None and name in NODE_FILES:
            when = "was written after the verdict" if recorded else "was never judged"
            wrong[name] = f"{name} {when}: {RECORD} records no digest of it"
        elif judged not in (None, digest):
            wrong[name] = f"{name} has changed since the verdict: its SHA-256 is {digest}, {RECORD} records {judged}"
    return wrong


def record_digest(lake: Lake, key: str, content: bytes | IO[bytes] | None) -> None:
    """Record the digest of what replaces a file of a run on purpose, as an erasure does. Call it before the write.

    The digest is recorded first, so that an erasure that dies in between does the file again. A file that was not as
    the verdict judged it keeps its recorded digest: it stays marked as changed. `content` is a file at its start, or
    None when the object is about to be removed.
    """
    folder, _, rest = key.partition("/")
    run_id, _, name = rest.partition("/")
    if folder != "runs" or name not in NODE_FILES + CONTROL_FILES:
        return
    try:
        record = json.loads(lake.read(run_key(run_id, RECORD), MAX_RECORD_BYTES) or b"null")
        recorded = record["digests"][name]
    except (KeyError, ObjectTooLarge, RecursionError, TypeError, ValueError):
        return  # no record, or none of this file: there is nothing to keep true
    if digest_files(lake, run_id, [name]) != {name: recorded}:
        return
    if content is None:
        del record["digests"][name]
    else:
        file = io.BytesIO(content) if isinstance(content, bytes) else content
        record["digests"][name] = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        file.seek(0)
    lake.write_json(run_key(run_id, RECORD), record)
