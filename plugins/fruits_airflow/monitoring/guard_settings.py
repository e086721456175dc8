"""The settings of the guards, the DAGs that watch the pipeline: a mistake in settings.yaml does not stop them.

A guard needs a few of the settings. `load_settings` refuses a file with any mistake, which is right for a run and wrong
for a guard: it would be gone while clusters are alive.
"""

from __future__ import annotations

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
    *(
        "region",
        "database",
        "demo_database",
        "aws_conn_id",
        "schedule",
        "timezone",
        "publish_by_hour",
        "owner",
    ),
    *("notify_conn_id", "notify_to", "notify", "poll_s", "list_consistency_s", "terminate_timeout_minutes"),
)
_UNREAD = {f"{ENVIRONMENT_PREFIX}RAW_BUCKET": "no-guard-reads-it"}  # required of every Settings


def load_guard_settings(path: Path = SETTINGS_FILE, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; where they are wrong, read only those of the guards and log the rest.

    Raises:
        ConfigError: A required setting is missing or wrong; a guard cannot work without it.
    """
    environment = os.environ if environment is None else environment
    try:
        return load_settings(path, environment)
    except FruitsError as error:
        log.error("The settings are wrong, and the pipeline cannot run: %s", error)
    values = dict(_lines_of(path))
    values |= {
        key.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for key, value in environment.items()
        if key.startswith(ENVIRONMENT_PREFIX)
    }
    accepted = _UNREAD | {_variable(key): values[key] for key in _REQUIRED if key in values}
    settings = _load(accepted)
    for key in _OPTIONAL:
        if key in values:
            try:
                settings = _load(accepted | {_variable(key): values[key]})
                accepted[_variable(key)] = values[key]
            except FruitsError as error:
                log.warning("A guard takes the default of %s: %s", key, error)
    return settings


def _load(environment: Mapping[str, str]) -> Settings:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as empty:
        empty.write("{}")
        empty.flush()
        return load_settings(Path(empty.name), environment)


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
