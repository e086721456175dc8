"""One frozen set of values for a deployment: include/settings.yaml, then FRUITS_* environment variables.

Defaults live here and nowhere else. Secrets never do: they belong to Airflow connections.
"""

from __future__ import annotations

import math
import os
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.regions import require_eu_region
from fruits_airflow.config.releases import release
from fruits_airflow.config.strict_yaml import read_yaml_mapping
from fruits_airflow.config.validators import (
    FOLDER_RULE,
    is_cron,
    is_folder,
    is_secret,
    is_timezone,
)

REPOSITORY = Path(__file__).resolve().parents[3]
SETTINGS_FILE = REPOSITORY / "include" / "settings.yaml"
ENVIRONMENT_PREFIX = "FRUITS_"
OTHER_VARIABLES = frozenset({"FRUITS_SHARED"})  # where the tests find photos and weights; no setting
ENGINES = ("litert", "tensorflow")
CHANNELS = ("log", "mail", "slack", "webhook")
PREINSTALLED = "preinstalled"  # as node_environment: the image of the nodes has the libraries already

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ACCOUNT = re.compile(r"[0-9]{12}")
_DEPLOYMENT = re.compile(r"[a-z0-9][a-z0-9-]{1,19}")
_DATABASE = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MODEL = re.compile(r"[0-9a-f]{64}")
_SUBNET = re.compile(r"subnet-[0-9a-f]{8,17}")
_ROLE = re.compile(r"[\w+=,.@-]{1,64}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every value that a deployment may set; include/settings.yaml says what each is for.

    Units are in the names: `_s` seconds, `_minutes`, `_eur` euros.
    """

    deployment_id: str
    raw_bucket: str
    lake_bucket: str
    raw_bucket_owner: str | None = None
    region: str = "eu-west-1"
    raw_prefix: str = "images/"
    database: str = "fruits"
    demo_database: str = "fruits_demo"
    notebook_database: str = "fruits_notebook"
    release_label: str = "emr-spark-8.0.0"
    model_id: str | None = None
    engine: str = "litert"
    variance: float = 0.95
    k: int | None = None
    batch_size: int = 1
    max_cost_eur: float = 5.0
    max_removed_share: float = 0.1
    max_removed_rows: int = 1000
    max_photo_mib: int = 96
    max_photo_megapixels: int = 210
    max_reject_rate: float = 0.2
    min_explained_variance: float = 0.2
    min_agreement: float = 0.5
    max_drift_degrees: float = 90.0
    max_variance_loss: float = 0.01
    nightly_profile: str = "nightly"
    demo_profile: str = "demo"
    service_role: str | None = None
    instance_profile: str | None = None
    security_configuration: str | None = None
    subnet_id: str | None = None
    interface_endpoints: int = 0
    node_environment: str | None = None
    idle_timeout_s: int = 900
    max_cluster_minutes: int = 480
    start_timeout_minutes: int = 30
    step_timeout_minutes: int = 240
    terminate_timeout_minutes: int = 15
    lock_wait_minutes: int = 120
    max_erased_photos: int = 1000
    erasure_role: str | None = None
    publish_by_hour: int | None = 8
    notify: str = "log"
    notify_conn_id: str | None = None
    notify_to: str | None = None
    poll_s: float = 30.0
    list_consistency_s: float = 30.0
    log_wait_s: float = 360.0
    schedule: str | None = "0 2 * * *"
    timezone: str = "Europe/Paris"
    owner: str = "data-platform"
    aws_conn_id: str | None = None

    def __post_init__(self) -> None:
        """Checks what a type cannot say.

        Raises:
            ConfigError: a value is out of its range or form; names the key, the value and what is allowed.
            ResidencyError: the region is not in the European Union.
        """
        require_eu_region(self.region)
        release(self.release_label)
        _match(
            "deployment_id", self.deployment_id, _DEPLOYMENT, "2 to 20 lower-case letters, digits and hyphens"
        )
        for name in ("raw_bucket", "lake_bucket"):
            _match(name, getattr(self, name), _BUCKET, "the name of a bucket, without s3://")
        if self.raw_bucket_owner is not None:
            _match(
                "raw_bucket_owner", self.raw_bucket_owner, _ACCOUNT, "the 12 digits of an account, in quotes"
            )
        for name in ("database", "demo_database", "notebook_database"):
            _match(name, getattr(self, name), _DATABASE, "lower-case letters, digits and underscores")
        if self.model_id is not None:
            _match("model_id", self.model_id, _MODEL, "the 64 hex digits that make model prints")
        if self.node_environment not in (None, PREINSTALLED):
            _match(
                "node_environment",
                str(self.node_environment),
                _MODEL,
                f"the 64 hex digits that make environment prints, or {PREINSTALLED}",
            )
        if self.raw_bucket == self.lake_bucket:
            _fail(
                "lake_bucket", self.lake_bucket, "the input is only read: name another bucket than raw_bucket"
            )
        if self.database == self.demo_database:
            _fail("demo_database", self.demo_database, "a demo must not write where the nightly run does")
        if self.notebook_database in (self.database, self.demo_database):
            _fail("notebook_database", self.notebook_database, "a notebook drops all tables of its database")
        if not is_folder(self.raw_prefix):
            _fail("raw_prefix", self.raw_prefix, FOLDER_RULE)
        if self.subnet_id is not None:
            _match("subnet_id", self.subnet_id, _SUBNET, "an id such as subnet-0123456789abcdef0")
        for name in ("service_role", "instance_profile"):
            if (role := getattr(self, name)) is not None:
                _match(
                    name, role.rpartition("/")[2], _ROLE, "a name or an ARN, from the outputs of the stack"
                )
        if self.schedule is not None and not is_cron(self.schedule):
            _fail("schedule", self.schedule, "five fields of cron, such as '0 2 * * *', or nothing")
        if not is_timezone(self.timezone):
            _fail("timezone", self.timezone, "a name of the tz database, such as Europe/Paris")
        if self.engine not in ENGINES:
            _fail("engine", self.engine, f"one of {', '.join(ENGINES)}")
        _between("variance", self.variance, 0.0, 1.0)
        for share in (
            "max_removed_share",
            "max_reject_rate",
            "min_explained_variance",
            "min_agreement",
            "max_variance_loss",
        ):
            _between(share, getattr(self, share), 0.0, 1.0, closed=True)
        _between("max_erased_photos", self.max_erased_photos, 1, 1_000_000, closed=True)
        _between("max_drift_degrees", self.max_drift_degrees, 0.0, 90.0, closed=True)
        _between("max_cost_eur", self.max_cost_eur, 0.0, 10_000.0)
        _between("interface_endpoints", self.interface_endpoints, 0, 100, closed=True)
        _between("idle_timeout_s", self.idle_timeout_s, 60, 604_800, closed=True)
        _between("poll_s", self.poll_s, 0.1, 600, closed=True)
        _between("list_consistency_s", self.list_consistency_s, 0, 600, closed=True)
        _between("log_wait_s", self.log_wait_s, 0, 3600, closed=True)
        _between("max_removed_rows", self.max_removed_rows, 0, 1_000_000_000, closed=True)
        _between("max_photo_mib", self.max_photo_mib, 1, 256, closed=True)
        _between("max_photo_megapixels", self.max_photo_megapixels, 1, 1000, closed=True)
        _between("batch_size", self.batch_size, 1, 256, closed=True)
        for name in (
            "max_cluster_minutes",
            "start_timeout_minutes",
            "step_timeout_minutes",
            "terminate_timeout_minutes",
            "lock_wait_minutes",
        ):
            _between(name, getattr(self, name), 1, 10_080, closed=True)
        if self.publish_by_hour is not None:
            _between("publish_by_hour", self.publish_by_hour, 0, 23, closed=True)
        if self.notify not in CHANNELS:
            _fail("notify", self.notify, f"one of {', '.join(CHANNELS)}")
        if self.notify != "log" and not self.notify_conn_id:
            _fail(
                "notify_conn_id", self.notify_conn_id, f"{self.notify} needs the id of an Airflow connection"
            )
        if self.notify == "mail" and not self.notify_to:
            _fail("notify_to", self.notify_to, "mail needs an address, or several with commas between them")
        if self.k is not None:
            _between("k", self.k, 1, 1280, closed=True)


def load_settings(path: Path = SETTINGS_FILE, environment: Mapping[str, str] | None = None) -> Settings:
    """Reads the settings of this deployment.

    Args:
        path: the YAML file; a key absent there takes its default.
        environment: overrides, `FRUITS_<KEY>`; an empty value or `null` means none. Default: os.environ.

    Raises:
        ConfigError: an unknown, duplicate or missing key, a wrong type, or a value that is not allowed.
        ResidencyError: the region is not in the European Union.
    """
    kinds = typing.get_type_hints(Settings)
    values: dict[str, Any] = {}
    for key, value in read_yaml_mapping(path).items():
        if is_secret(key, value):
            raise ConfigError(
                f"{path.name}: {key} holds what looks like a secret; take it out and revoke it, make an Airflow "
                "connection, and name that one in aws_conn_id or notify_conn_id"
            )
        if key not in kinds:
            raise ConfigError(f"{path.name}: unknown key {key!r}; known are {', '.join(sorted(kinds))}")
        values[key] = _typed(key, value, kinds[key], path.name)
    for variable, text in (os.environ if environment is None else environment).items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in OTHER_VARIABLES:
            continue
        key = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if key not in kinds:
            raise ConfigError(f"{variable}: no such setting; known are {', '.join(sorted(kinds))}")
        values[key] = _parsed(variable, text, kinds[key])
    for field in fields(Settings):
        absent = field.name not in values and field.default is MISSING
        emptied = field.name in values and values[field.name] is None
        if absent or (emptied and type(None) not in _alternatives(kinds[field.name])):
            raise ConfigError(
                f"{field.name}: required and not set; set it in {path.name} "
                f"or as {ENVIRONMENT_PREFIX}{field.name.upper()}"
            )
    return Settings(**values)


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def _typed(key: str, value: Any, kind: Any, source: str) -> Any:
    allowed = _alternatives(kind)
    if isinstance(value, int) and not isinstance(value, bool) and float in allowed:
        return float(value)
    if type(value) in allowed or (value is None and type(None) not in allowed):
        return value  # a bare `key:` of a required key is reported as missing, with its remedy
    wanted = " or ".join("nothing" if a is type(None) else a.__name__ for a in allowed)
    remedy = "quote it" if str in allowed else "write a plain number"
    if isinstance(value, bool):
        remedy += " (YAML reads yes, no, on, off, true and false as booleans)"
    raise ConfigError(
        f"{source}: {key} is {value!r}, read as {type(value).__name__}; {wanted} is meant: {remedy}"
    )


def _parsed(variable: str, text: str, kind: Any) -> Any:
    allowed = _alternatives(kind)
    if text.strip() in ("", "null"):
        if type(None) in allowed:
            return None
        raise ConfigError(
            f"{variable}: {text!r} is empty, but the key is required; give it a value or unset it"
        )
    for number in (int, float):
        if number in allowed:
            try:
                return number(text)
            except ValueError:
                raise ConfigError(f"{variable}: {text!r} is no {number.__name__}; write a number") from None
    return text


def _fail(key: str, value: object, remedy: str) -> typing.NoReturn:
    raise ConfigError(f"{key}: {value!r} is not allowed: {remedy}")


def _match(key: str, value: str, pattern: re.Pattern[str], remedy: str) -> None:
    if not pattern.fullmatch(value):
        _fail(key, value, remedy)


def _between(key: str, value: float, low: float, high: float, closed: bool = False) -> None:
    inside = low <= value <= high if closed else low < value <= high
    if not math.isfinite(value) or not inside:
        _fail(key, value, f"{'at least' if closed else 'above'} {low} and at most {high}")
