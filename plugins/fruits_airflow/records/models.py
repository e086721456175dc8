"""The records of a run, each with one schema: run.json, and the metrics that a stage writes.

The nodes of a cluster write the metrics, so that their content is untrusted: the models bound every number, text and
list. `read_stages` and `read_record` are the only readers of these files in the control plane, and `write_record` is
the only writer of run.json. Keys that the schema does not know are ignored.
"""

from __future__ import annotations

import hashlib
import logging
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fruits_airflow.config.errors import FruitsError
from fruits_airflow.emr.stage_steps import STAGES
from fruits_airflow.storage.lake import Lake, ObjectTooLarge, run_key

log = logging.getLogger(__name__)

RECORD = "run.json"
MAX_RECORD_BYTES = 1_000_000  # run.json and the metrics of a stage have some 30 kB each
MAX_REASON = 20_000
MAX_MESSAGE = 500

_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)T(\d\d)[:-](\d\d)(?:[:-](\d\d)(?:\.\d+)?)?(Z|[+-]\d\d:?\d\d)?"
)  # as Airflow writes it, and with hyphens as the demo does

State = Literal["succeeded", "failed", "skipped", "refused"]


class RecordError(FruitsError):
    """A record of a run is too large, is not JSON, or does not follow its schema."""


Count = Annotated[int, Field(ge=0, le=10**15)]
Number = Annotated[float, Field(ge=-1e12, le=1e12)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
Share = Annotated[float, Field(ge=-0.01, le=1.01)]  # sums of shares exceed 1 by rounding
Name = Annotated[str, Field(max_length=500)]
Label = Annotated[str, Field(max_length=1024)]  # part of a key of S3
Text = Annotated[str, Field(max_length=MAX_REASON)]
SqlName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_<>]{1,63}$")]  # of a table, a column or a type
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


_M = TypeVar("_M", bound=_Model)


class ClusterFacts(_Model):
    """The cluster of a run as EMR describes it; its stages give `engine` (Spark's master), `executors`, `hosts`."""

    id: Name | None = None
    name: Name | None = None
    state: Name | None = None
    release: Name | None = None
    vcpus: Count = 0
    engine: Name | None = None
    executors: Count = 0
    hosts: Count = 0


class ImageCounts(_Model):
    """What became of the listed photos."""

    seen: Count = 0
    new: Count = 0
    unchanged: Count = 0
    removed: Count = 0
    loaded: Count = 0
    rejected: Count = 0
    suppressed: Count = 0


class RejectExample(_Model):
    """A rejected photo."""

    image_id: Name | None = None
    source_key: Text | None = None
    error_code: Name | None = None
    detail: Text | None = None


class FeatureFacts(_Model):
    """The feature vectors, and the model that computed them."""

    rows: Count = 0
    computed: Count = 0
    model_id: Name | None = None
    network: Name | None = None
    dims: Count = 1280
    engine: Name | None = None
    weights: Name | None = None


class PcaFacts(_Model):
    """The PCA model; `explained_variance` is a share, 0 to 1."""

    pca_id: Name | None = None
    k: Count = 0
    explained_variance: Share = 0.0
    n: Count = 0


class Drift(_Model):
    """The distance between the run's PCA model and the published one; shares are 0 to 1."""

    angle_degrees: Number | None = None
    explained_variance_published_basis: Number | None = None
    variance_loss: Number | None = None
    limit_degrees: Number | None = None
    limit_variance_loss: Number | None = None
    new_basis: bool | None = None
    reason: Text | None = None
    fitted_on: Count | None = None


class Volumes(_Model):
    """Sizes in bytes."""

    input: Count = 0
    pixels: Count = 0
    features: Count = 0
    pca: Count = 0


class Check(_Model):
    """The outcome of a check of the quality gate."""

    ok: bool
    value: Number | Name | None = None
    limit: Number | Name | None = None


class Quality(_Model):
    """The quality gate: the accuracy of nearest neighbours (0 to 1), and its checks by name."""

    knn_accuracy_features: Share | None = None
    knn_accuracy_pca: Share | None = None
    checks: Annotated[dict[Name, Check], Field(max_length=100)] = {}

    @property
    def failed(self) -> list[str]:
        """The names of the checks that failed."""
        return [name for name, check in self.checks.items() if not check.ok]


class Rate(_Model):
    """A share with its interval of 95 %, and the number of photos that it is of."""

    share: Share | None = None
    low: Share = 0.0
    high: Share = 1.0
    n: Count = 0


class LabelRates(_Model):
    """Of the photos with a name, those of this label; of the photos of a label, those with its name."""

    precision: Rate = Rate()
    recall: Rate = Rate()


class ClassifierFacts(_Model):
    """The classifier on photos held out, of which `near_equal` are left out, and what it named in this run.

    Rows are of `reliability`: photos of a bin, mean confidence, share of right names; of `by_confidence`: a least
    confidence, share of photos that reach it, share of right names among these; of `confusion`: label, most probable
    name, photos; of `examples`: id of a photo without a label, name (None: not known), confidence; of `robustness`,
    which no stage writes: alteration, strength, shares of right names, of answers and of wrong ones among them.
    """

    classifier_id: Name | None = None
    is_new: bool = False
    reason: Text | None = None
    failure: Text | None = None
    learned: Count = 0
    judged: Count = 0
    near_equal: Count = 0
    top1: Rate = Rate()
    top3: Rate = Rate()
    answered: Rate = Rate()
    wrong_answers: Rate = Rate()
    calibration_error: Share | None = None
    calibration_error_raw: Share | None = None
    reliability: Annotated[list[tuple[Count, Share, Share]], Field(max_length=100)] = []
    by_confidence: Annotated[list[tuple[Share, Share, Share | None]], Field(max_length=100)] = []
    labels: Annotated[dict[Name, LabelRates], Field(max_length=100)] = {}
    labels_left_out: Count = 0
    confusion: Annotated[list[tuple[Name, Name, Count]], Field(max_length=400)] = []
    confusion_left_out: Count = 0
    examples: Annotated[list[tuple[Name, Label | None, Share]], Field(max_length=100)] = []
    robustness: Annotated[list[tuple[Name, Name, Share, Share, Share | None]], Field(max_length=100)] = []


class StageSeconds(_Model):
    """Seconds of the whole run and of its parts."""

    total: Seconds = 0
    cluster_start: Seconds = 0
    load_images: Seconds = 0
    featurize: Seconds = 0
    reduce_pca: Seconds = 0
    publish: Seconds = 0
    terminate: Seconds = 0


class Cost(_Model):
    """Euros; `difference_eur` is the estimate less the forecast of the same parts."""

    forecast_eur: Number = 0.0
    ceiling_eur: Number = 0.0
    estimate_eur: Number = 0.0
    difference_eur: Number = 0.0
    forecast_parts: Annotated[dict[Name, Number], Field(max_length=50)] = {}
    estimate_parts: Annotated[dict[Name, Number], Field(max_length=50)] = {}


class Endpoint(_Model):
    """An endpoint that a job called."""

    client: Name
    service: Name
    host: Name
    region: Name


RejectCounts = Annotated[dict[Name, Count], Field(max_length=100)]


class _Measured(_Model):
    """What a stage measured, and a run in all of its stages."""

    cluster: ClusterFacts = ClusterFacts()
    images: ImageCounts = ImageCounts()
    rejects_by_code: RejectCounts = {}
    metadata_stripped: Count = 0
    features: FeatureFacts = FeatureFacts()
    pca: PcaFacts = PcaFacts()
    drift: Drift = Drift()
    bytes: Volumes = Volumes()
    quality: Quality = Quality()
    classifier: ClassifierFacts = ClassifierFacts()


class StageMetrics(_Measured):
    """What a stage measured: `stages/<stage>.json`. Each stage writes the parts that it knows.

    Attributes:
        seconds: The job itself, without the start of Spark.
        variance_curve: The cumulative share of the variance by number of components.
        published: Whether `publish` published; None from the other stages.
        reads: The tables whose rows became rows of others.
        writes: The tables that it wrote: of each column its name, its type, and whether it is required.
        sha256: The digest of the file, which the reader sets.
    """

    seconds: Seconds = 0
    endpoints: Annotated[list[Endpoint], Field(max_length=100)] = []
    reject_examples: Annotated[list[RejectExample], Field(max_length=100)] = []
    variance_curve: Annotated[list[Share], Field(max_length=10_000)] = []
    published: bool | None = None
    reads: Annotated[list[SqlName], Field(max_length=20)] = []
    writes: Annotated[dict[SqlName, list[tuple[SqlName, tuple[SqlName, bool]]]], Field(max_length=20)] = {}
    sha256: str = Field(default="", exclude=True)

    def parts(self, *names: str) -> dict[str, Any]:
        """Return the named parts that the stage wrote, as JSON has them."""
        return self.model_dump(include=set(names), exclude_unset=True)


class RunRecord(_Measured):
    """run.json.

    Attributes:
        run_id: The name of the run's folder.
        state: How the run ended.
        reason: Why the run is red, refused or skipped; empty when it succeeded.
        simulated: Whether an emulator of AWS ran the cluster, so that nothing was billed and nothing was in a region.
        digests: The SHA-256 of each file in the run's folder as the verdict judged it, by name.
    """

    run_id: Name = ""
    state: State
    # A long cause must not prevent run.json from being written.
    reason: Annotated[Text, BeforeValidator(lambda text: text[:MAX_REASON] if isinstance(text, str) else text)] = ""
    mode: Name = ""
    region: Name | None = None
    simulated: bool = False
    seconds: StageSeconds = StageSeconds()
    cost: Cost = Cost()
    digests: Annotated[dict[Name, Sha256], Field(max_length=50)] = {}

    def ended(self, state: State, reason: str) -> RunRecord:
        """Return the record with its final state."""
        return self.model_copy(update={"state": state, "reason": reason[:MAX_REASON]})


def parse_record(content: bytes, run_id: str) -> RunRecord:
    """Parse the run.json of the folder `run_id`.

    Raises:
        RecordError: The content does not follow the schema, or names another run.
    """
    record = _parse(RunRecord, content, f"{RECORD} of {run_id}")
    if record.run_id not in ("", run_id):
        raise RecordError(f"{RECORD} of {run_id} names another run: {record.run_id[:MAX_MESSAGE]!r}")
    return record


def parse_metrics(content: bytes, name: str) -> StageMetrics:
    """Parse the metrics of a stage, which errors call `name`.

    Raises:
        RecordError: The content does not follow the schema.
    """
    metrics = _parse(StageMetrics, content, name)
    return metrics.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})


def read_record(lake: Lake, run_id: str) -> RunRecord | None:
    """Read the run.json of a run; None when there is none.

    Raises:
        RecordError: It cannot be used.
    """
    content = _read(lake, run_key(run_id, RECORD))
    return None if content is None else parse_record(content, run_id)


def write_record(lake: Lake, record: RunRecord) -> None:
    """Write run.json."""
    lake.write_json(run_key(record.run_id, RECORD), record.model_dump())


def read_stages(lake: Lake, run_id: str, problems: list[str] | None = None) -> dict[str, StageMetrics]:
    """Read the metrics that the stages of a run have written, by stage.

    A file that cannot be used counts as not written, so that its stage is not done; the log and `problems` say why.
    """
    stages = {}
    for stage in STAGES:
        name = stage_file(stage)
        try:
            content = _read(lake, run_key(run_id, name))
            if content is not None:
                stages[stage] = parse_metrics(content, name)
        except RecordError as error:
            log.warning("Run %s: %s", run_id, error)
            if problems is not None:
                problems.append(str(error))
    return stages


def stage_file(stage: str) -> str:
    """Return the name of a stage's metrics in the run's folder."""
    return f"stages/{stage}.json"


def date_of(run_id: str) -> datetime | None:
    """Read the date in a run's id, UTC unless it names an offset; None when there is none, or no such day."""
    match = _DATE.search(run_id)
    if match is None:
        return None
    day, hour, minute, second, offset = match.groups()
    try:
        date = datetime.fromisoformat(f"{day}T{hour}:{minute}:{second or '00'}{offset or '+00:00'}")
        return date.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _read(lake: Lake, key: str) -> bytes | None:
    try:
        return lake.read(key, MAX_RECORD_BYTES)
    except ObjectTooLarge as error:
        raise RecordError(str(error)) from error


def _parse(model: type[_M], content: bytes, name: str) -> _M:
    if len(content) > MAX_RECORD_BYTES:
        raise RecordError(f"{name} is larger than {MAX_RECORD_BYTES:,} bytes, so it is not read")
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        value = f" (it is {str(first['input'])[:80]!r})" if first["loc"] else ""
        message = f"{name} does not follow its schema: {place}: {first['msg']}{value}"
        raise RecordError(message[:MAX_MESSAGE]) from error
