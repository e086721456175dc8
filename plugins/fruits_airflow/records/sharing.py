"""Links to the results of a run that anybody can open for a limited time: report, PCA export, cards, PDFs.

A link is signed with the caller's own key and names the bucket's regional endpoint, so that the data comes from the EU.
Who opens it, and from where, is the responsibility of the person who shares it.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from fruits_airflow.aws.endpoints import place_of
from fruits_airflow.config.aws_types import S3Client
from fruits_airflow.config.errors import ConfigError
from fruits_airflow.records.digests import CARDS, REPORT, changes, digest_files
from fruits_airflow.records.models import read_record
from fruits_airflow.storage.lake import Lake, run_key

LONGEST_HOURS = 7 * 24  # of a signature of version 4; with a role, no longer than its session
_SHARED = (REPORT, "pca.parquet", *CARDS)


@dataclass(frozen=True)
class Link:
    """One link."""

    name: str
    url: str


def share_run(client: S3Client, lake_bucket: str, run_id: str, hours: float) -> list[Link]:
    """Create links to the results of a run, which expire after `hours`; `client` is of the bucket's region.

    Raises:
        ConfigError: There is no such run or no result, `hours` is too long for a signature, or a file is not as the
            run's verdict judged it.
        RecordError: The run's run.json cannot be used.
        ResidencyError: The links would lead out of the European Union.
    """
    if not 0 < hours <= LONGEST_HOURS:
        raise ConfigError(f"HOURS: {hours:g} is not allowed: above 0 and at most {LONGEST_HOURS}, as a signature lasts")
    lake, folder = Lake(client, lake_bucket), run_key(run_id, "")
    names = [key.removeprefix(f"{folder}/") for key in lake.keys(f"{folder}/")]
    shared = [name for name in names if name in _SHARED or name.endswith(".pdf")]
    if not shared:
        raise ConfigError(f"RUN: {lake.uri(folder)}/ holds no report, PCA export or PDF; check the name of the run")
    wrong = changes(read_record(lake, run_id), digest_files(lake, run_id, shared))
    if wrong:
        raise ConfigError(
            f"RUN: {'; '.join(wrong.values())}. No link is made: look at who has written it, and trigger a new run"
        )
    links = []
    for name in shared:
        request = {"Bucket": lake.bucket, "Key": run_key(run_id, name)}
        url = client.generate_presigned_url("get_object", Params=request, ExpiresIn=int(hours * 3600))
        place_of(urlsplit(url).hostname or "")
        links.append(Link(name, url))
    return links
