"""Settings of a deployment: include/settings.yaml, overridden by FRUITS_* environment variables.

Each setting is declared once, with its type, its default and what it may be. Secrets are not settings: they belong to
Airflow connections.
"""

import os
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, ValidationError, ValidationInfo
from pydantic.dataclasses import dataclass

from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.regions import require_eu_region
from fruits_airflow.config.releases import release
from fruits_airflow.config.strict_yaml import read_yaml_mapping
from fruits_airflow.config.validators import FOLDER_RULE, is_cron, is_folder, is_secret, is_timezone

REPOSITORY = Path(__file__).resolve().parents[3]
SETTINGS_FILE = REPOSITORY / "include" / "settings.yaml"
ENVIRONMENT_PREFIX = "FRUITS_"
OTHER_VARIABLES = frozenset({"FRUITS_SHARED"})  # where the tests look for photos and weights; not a setting
ENGINES = ("litert", "tensorflow")
MAX_LIMIT = 10**9  # of the parameter `limit`
CHANNELS = ("log", "mail", "slack", "webhook")
PREINSTALLED = "preinstalled"  # as node_environment: the image of the nodes has the libraries already

_SHA256 = "[0-9a-f]{64}"


def _refuse(key: str | None, value: object, remedy: str) -> typing.NoReturn:
    raise ConfigError(f"{key}: {value!r} is not allowed: {remedy}")


def _check(is_allowed: Callable[[Any], object], remedy: str) -> AfterValidator:
    """Refuse a value that is not None and not allowed; the error names the key, the value and the remedy."""

    def validate(value: Any, info: ValidationInfo) -> Any:
        if value is not None and not is_allowed(value):
            _refuse(info.field_name, value, remedy)
        return value

    return AfterValidator(validate)


def _matches(pattern: str, remedy: str) -> AfterValidator:
    return _check(re.compile(pattern, re.ASCII).fullmatch, remedy)


def _choice(*values: str) -> AfterValidator:
    return _check(values.__contains__, f"one of {', '.join(values)}")


def _between(low: float, high: float) -> AfterValidator:
    return _check(lambda number: low <= number <= high, f"at least {low} and at most {high}")


def _above(low: float, high: float) -> AfterValidator:
    return _check(lambda number: low < number <= high, f"above {low} and at most {high}")


_Bucket = Annotated[str, _matches(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "the name of a bucket, without s3://")]
_Database = Annotated[str, _matches(r"[a-z][a-z0-9_]{0,62}", "lower-case letters, digits and underscores")]
_Role = Annotated[str | None, _matches(r"(?s:.*/)?[\w+=,.@-]{1,64}", "a name or an ARN, from the outputs of the stack")]
_Share = Annotated[float, _between(0.0, 1.0)]
_Minutes = Annotated[int, _between(1, 10_080)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True))
class Settings:
    """Every value that a deployment may set; include/settings.yaml says what each is for.

    Units are in the names: `_s` seconds, `_minutes`, `_eur` euros.
    """

    deployment_id: Annotated[str, _matches("[a-z0-9][a-z0-9-]{1,19}", "2 to 20 lower-case letters, digits and hyphens")]
    raw_bucket: _Bucket
    lake_bucket: _Bucket
    raw_bucket_owner: Annotated[str | None, _matches("[0-9]{12}", "the 12 digits of an account, in quotes")] = None
    region: Annotated[str, AfterValidator(require_eu_region)] = "eu-west-1"
    raw_prefix: Annotated[str, _check(is_folder, FOLDER_RULE)] = "images/"
    database: _Database = "fruits"
    demo_database: _Database = "fruits_demo"
    notebook_database: _Database = "fruits_notebook"
    release_label: Annotated[str, _check(release, "a label in config/releases.py")] = "emr-spark-8.0.0"
    model_id: Annotated[str | None, _matches(_SHA256, "the 64 hex digits that make model prints")] = None
    engine: Annotated[str, _choice(*ENGINES)] = "litert"
    variance: Annotated[float, _above(0.0, 1.0)] = 0.95
    k: Annotated[int | None, _between(1, 1280)] = None
    batch_size: Annotated[int, _between(1, 256)] = 1
    max_cost_eur: Annotated[float, _above(0.0, 10_000.0)] = 5.0
    min_new_images: Annotated[int | None, _between(2, 1_000_000_000)] = None
    max_wait_days: Annotated[int | None, _between(1, 366)] = None
    max_removed_share: _Share = 0.1
    max_removed_rows: Annotated[int, _between(0, 1_000_000_000)] = 1000
    max_photo_mib: Annotated[int, _between(1, 256)] = 96
    max_photo_megapixels: Annotated[int, _between(1, 1000)] = 210
    max_reject_rate: _Share = 0.2
    min_explained_variance: _Share = 0.2
    min_agreement: _Share = 0.5
    max_drift_degrees: Annotated[float, _between(0.0, 90.0)] = 90.0
    max_variance_loss: _Share = 0.01
    classifier: Annotated[str, _choice("on", "off")] = "on"
    shrinkage: Annotated[float, _above(0.0, 1.0)] = 0.1
    held_out_share: Annotated[float, _above(0.0, 0.9)] = 0.3
    refit_share: _Share = 0.1
    max_accuracy_loss: _Share = 0.1
    unknown_error: Annotated[float, _above(0.0, 0.5)] = 0.1
    nightly_profile: str = "nightly"
    demo_profile: str = "demo"
    service_role: _Role = None
    instance_profile: _Role = None
    airflow_role: Annotated[str | None, _matches(r"arn:[^:]+:iam::\d{12}:role/.+", "the ARN of a role")] = None
    security_configuration: str | None = None
    subnet_id: Annotated[str | None, _matches("subnet-[0-9a-f]{8,17}", "an id such as subnet-0123456789abcdef0")] = None
    interface_endpoints: Annotated[int, _between(0, 100)] = 0
    node_environment: Annotated[
        str | None,
        _matches(f"{_SHA256}|{PREINSTALLED}", f"the 64 hex digits that make environment prints, or {PREINSTALLED}"),
    ] = None
    idle_timeout_s: Annotated[int, _between(60, 604_800)] = 900
    max_cluster_minutes: _Minutes = 480
    start_timeout_minutes: _Minutes = 30
    step_timeout_minutes: _Minutes = 240
    terminate_timeout_minutes: _Minutes = 15
    lock_wait_minutes: _Minutes = 120
    max_erased_photos: Annotated[int, _between(1, 1_000_000)] = 1000
    erasure_role: str | None = None
    publish_by_hour: Annotated[int | None, _between(0, 23)] = 8
    notify: Annotated[str, _choice(*CHANNELS)] = "log"
    notify_conn_id: str | None = None
    notify_to: str | None = None
    poll_s: Annotated[float, _between(0.1, 600)] = 30.0
    list_consistency_s: Annotated[float, _between(0, 600)] = 30.0
    log_wait_s: Annotated[float, _between(0, 3600)] = 360.0
    schedule: Annotated[str | None, _check(is_cron, "five fields of cron, such as '0 2 * * *', or nothing")] = (
        "0 2 * * *"
    )
    timezone: Annotated[str, _check(is_timezone, "a name of the tz database, such as Europe/Paris")] = "Europe/Paris"
    owner: str = "data-platform"
    aws_conn_id: str | None = None

    def __post_init__(self) -> None:
        """Check the settings against each other.

        Raises:
            ConfigError: Two settings contradict each other.
        """
        if self.raw_bucket == self.lake_bucket:
            _refuse("lake_bucket", self.lake_bucket, "the input is only read: name another bucket than raw_bucket")
        if self.database == self.demo_database:
            _refuse("demo_database", self.demo_database, "a demo must not write where the nightly run does")
        if self.notebook_database in (self.database, self.demo_database):
            _refuse("notebook_database", self.notebook_database, "a notebook drops all tables of its database")
        if (self.min_new_images is None) != (self.max_wait_days is None):
            _refuse("max_wait_days", self.max_wait_days, "set it together with min_new_images, or neither")
        if self.notify != "log" and not self.notify_conn_id:
            _refuse("notify_conn_id", self.notify_conn_id, f"{self.notify} needs the id of an Airflow connection")
        if self.notify == "mail" and not self.notify_to:
            _refuse("notify_to", self.notify_to, "mail needs an address, or several separated by commas")


def load_settings(path: Path = SETTINGS_FILE, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings of this deployment from a YAML file and from `environment`, which overrides it.

    The environment is os.environ by default. There `FRUITS_<KEY>` overrides a key; empty or `null`, it means none.
    A key that is in neither takes its default.

    Raises:
        ConfigError: A key is unknown, duplicate or missing, or its value has the wrong type or is not allowed.
        ResidencyError: The region is not in the European Union.
    """
    kinds = {key: typing.get_args(kind) or (kind,) for key, kind in typing.get_type_hints(Settings).items()}
    values = read_yaml_mapping(path)
    for key, value in values.items():
        if is_secret(key, value):
            raise ConfigError(
                f"{path.name}: {key} holds what looks like a secret; take it out and revoke it, make an Airflow "
                "connection, and name that one in aws_conn_id or notify_conn_id"
            )
        if key not in kinds:
            raise ConfigError(f"{path.name}: unknown key {key!r}; known are {', '.join(sorted(kinds))}")
    for variable, text in (os.environ if environment is None else environment).items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in OTHER_VARIABLES:
            continue
        key = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if key not in kinds:
            raise ConfigError(f"{variable}: no such setting; known are {', '.join(sorted(kinds))}")
        values[key] = _parse(variable, text, kinds[key])
    try:
        return Settings(**values)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        raise _type_error(key, values.get(key), kinds[key], path.name) from None


def _parse(variable: str, text: str, kinds: tuple[Any, ...]) -> Any:
    if text.strip() in ("", "null"):
        return None
    number = next((kind for kind in (int, float) if kind in kinds), None)
    try:
        return number(text) if number else text
    except ValueError:
        raise ConfigError(f"{variable}: {text!r} is not a number; write digits") from None


def _type_error(key: str, value: object, kinds: tuple[Any, ...], source: str) -> ConfigError:
    if value is None:
        variable = f"{ENVIRONMENT_PREFIX}{key.upper()}"
        return ConfigError(f"{key}: required and not set; set it in {source} or as {variable}")
    types = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in kinds)
    remedy = "quote it" if str in kinds else "write a plain number"
    if isinstance(value, bool):
        remedy += " (YAML reads yes, no, on, off, true and false as booleans)"
    return ConfigError(f"{source}: {key} is {value!r}, read as {type(value).__name__}; {types} is meant: {remedy}")
