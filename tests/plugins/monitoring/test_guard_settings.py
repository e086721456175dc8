"""A mistake in settings.yaml stops the pipeline, not the DAGs that watch it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.settings import load_settings
from fruits_airflow.monitoring.guard_settings import load_guard_settings

from tests.plugins.laptop import REPOSITORY

RIGHT = {
    "deployment_id": "prod",
    "raw_bucket": "raw-bucket",
    "lake_bucket": "lake-bucket",
    "region": "eu-west-3",
    "publish_by_hour": "9",
    "notify": "mail",
    "notify_conn_id": "alarm",
    "notify_to": "a@example.org",
}
MISTAKES = {
    "unknown key": "max_cost: 5",
    "key twice": "region: eu-west-1",
    "no YAML": "variance: [0.9",
    "no mapping": "- variance",
    "wrong type": "max_cost_eur: five",
    "out of range": "variance: 7",
    "another line's colon": "owner: data: platform",
}


def settings_file(folder: Path, *more: str, **changed: str) -> Path:
    path = folder / "settings.yaml"
    lines = [f"{key}: {value}" for key, value in (RIGHT | changed).items()]
    path.write_text("\n".join([*lines, *more]) + "\n")
    return path


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_elsewhere_leaves_a_guard_its_settings(
    tmp_path: Path, mistake: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = settings_file(tmp_path, mistake)
    with pytest.raises(ConfigError):
        load_settings(path, {})
    settings = load_guard_settings(path, {})
    assert (settings.deployment_id, settings.lake_bucket) == ("prod", "lake-bucket")
    assert (settings.publish_by_hour, settings.notify, settings.notify_to) == (9, "mail", "a@example.org")
    assert "the pipeline cannot run" in caplog.text


@pytest.mark.parametrize(("key", "value"), [("notify", "pigeon"), ("publish_by_hour", "25"), ("region", "us-east-1")])
def test_a_guard_takes_the_default_of_its_own_setting_that_is_wrong(tmp_path: Path, key: str, value: str) -> None:
    settings = load_guard_settings(settings_file(tmp_path, **{key: value}), {})
    defaults = {"notify": "log", "publish_by_hour": 8, "region": "eu-west-1"}
    assert getattr(settings, key) == defaults[key]
    assert settings.deployment_id == "prod"


def test_the_environment_goes_before_the_file_and_may_be_wrong_too(tmp_path: Path) -> None:
    environment = {"FRUITS_DEPLOYMENT_ID": "other", "FRUITS_VARIANCE": "much", "FRUITS_NOTIFY": "log"}
    settings = load_guard_settings(settings_file(tmp_path), environment)
    assert (settings.deployment_id, settings.notify, settings.region) == ("other", "log", "eu-west-3")


@pytest.mark.parametrize("key", ["deployment_id", "lake_bucket"])
def test_without_what_names_its_deployment_a_guard_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        load_guard_settings(settings_file(tmp_path, **{key: "A B"}), {})


def test_right_settings_are_read_as_everywhere(tmp_path: Path) -> None:
    path = settings_file(tmp_path)
    assert load_guard_settings(path, {}) == load_settings(path, {})


def test_the_guards_are_parsed_with_a_typo_in_the_settings_and_the_pipeline_is_not(tmp_path: Path) -> None:
    for folder in ("dags", "plugins", "include"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    settings_file(tmp_path / "include", "max_cost_eur 5")
    outside = {name: value for name, value in os.environ.items() if not name.startswith("FRUITS_")}

    def parse(dag: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(tmp_path / "dags" / f"{dag}.py")],
            env=outside | {"PYTHONPATH": str(tmp_path / "plugins")},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    for guard in ("cluster_janitor", "publication_check"):
        done = parse(guard)
        assert done.returncode == 0, done.stderr
    assert "ConfigError" in parse("fruits_pipeline").stderr
