"""The settings of the guards, the DAGs that watch the pipeline: a mistake in settings.yaml does not stop them.

`load_settings` refuses a file with any mistake. That is right for a run, and wrong for a guard: clusters may be alive.
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from fruits_airflow.config.errors import FruitsError
from fruits_airflow.config.settings import ENVIRONMENT_PREFIX, SETTINGS_FILE, Settings, load_settings

log = logging.getLogger(__name__)

_REQUIRED = ("deployment_id", "lake_bucket")
# A key comes after those that it needs: `notify` is refused without its connection.
_OPTIONAL = (
    *("region", "database", "demo_database", "aws_conn_id", "schedule", "timezone", "publish_by_hour", "owner"),
    *("notify_conn_id", "notify_to", "notify", "poll_s", "list_consistency_s", "terminate_timeout_minutes"),
)


def load_guard_settings(path: Path = SETTINGS_FILE, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; where they are wrong, read only those that a guard needs.

    Raises:
        ConfigError: A required setting is missing or wrong; a guard cannot work without it.
    """
    environment = os.environ if environment is None else environment
    try:
        return load_settings(path, environment)
    except FruitsError as error:
        log.error("The settings are wrong, and the pipeline cannot run: %s", error)
    values = {_variable(key): value for key, value in _lines_of(path)} | dict(environment)
    accepted = {_variable("raw_bucket"): "no-guard-reads-it"}  # no Settings without one
    accepted |= {name: values[name] for name in map(_variable, _REQUIRED) if name in values}
    settings = _load(accepted)
    for name in map(_variable, _OPTIONAL):
        if name in values:
            try:
                settings = _load(accepted | {name: values[name]})
                accepted[name] = values[name]
            except FruitsError as error:
                log.warning("The guards use the default: %s", error)
    return settings


def _load(environment: Mapping[str, str]) -> Settings:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as no_settings:
        no_settings.write("{}")
        no_settings.flush()
        return load_settings(Path(no_settings.name), environment)


def _variable(key: str) -> str:
    return f"{ENVIRONMENT_PREFIX}{key.upper()}"


def _lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield keys and values of the lines that are YAML by themselves, as an environment variable has them."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            content = yaml.safe_load(line)
        except yaml.YAMLError:
            continue
        if isinstance(content, dict):
            yield from ((str(key), "" if value is None else str(value)) for key, value in content.items())
