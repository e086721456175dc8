"""The same code has the same digest everywhere, is uploaded once, and is checked before use."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
from fruits_airflow.config.errors import CodeMismatch, ConfigError
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.code_bundle import build_bundle, upload_bundle, verify_code
from fruits_airflow.emr.stage_steps import JOBS
from fruits_airflow.storage.lake import Lake

from tests.plugins import laptop


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("spark_jobs/fruits/__pycache__", "include"):
        (tmp_path / name).mkdir(parents=True)
    for job in JOBS:
        (tmp_path / "spark_jobs" / f"{job}.py").write_text(job)
    (tmp_path / "spark_jobs" / "fruits" / "keys.py").write_text("keys")
    (tmp_path / "include" / "bootstrap.sh").write_text("bootstrap")
    return tmp_path


@pytest.fixture
def lake(account: Settings) -> Lake:
    return Lake(laptop.client("s3"), account.lake_bucket)


def test_what_lies_in_this_repository_can_be_packed() -> None:
    files = build_bundle().files
    assert set(files) == {*(f"{job}.py" for job in JOBS), "bootstrap.sh", "fruits.zip"}
    assert "fruits/__init__.py" in zipfile.ZipFile(io.BytesIO(files["fruits.zip"])).namelist()


def test_times_and_caches_do_not_change_the_digest(repository: Path) -> None:
    first = build_bundle(repository).digest
    os.utime(repository / "spark_jobs/fruits/keys.py", (0, 0))
    (repository / "spark_jobs/fruits/__pycache__/keys.cpython-311.pyc").write_bytes(b"x")
    assert build_bundle(repository).digest == first


@pytest.mark.parametrize("path", ["spark_jobs/fruits/keys.py", "spark_jobs/publish.py", "include/bootstrap.sh"])
def test_any_change_of_code_changes_the_digest(repository: Path, path: str) -> None:
    first = build_bundle(repository).digest
    (repository / path).write_text("changed")
    assert build_bundle(repository).digest != first


@pytest.mark.parametrize("path", ["spark_jobs/publish.py", "include/bootstrap.sh"])
def test_a_missing_file_is_named(repository: Path, path: str) -> None:
    (repository / path).unlink()
    with pytest.raises(ConfigError, match=path):
        build_bundle(repository)


def test_code_is_uploaded_once(repository: Path, lake: Lake) -> None:
    bundle = build_bundle(repository)
    assert upload_bundle(bundle, lake) == len(bundle.files)
    assert upload_bundle(bundle, lake) == 0
    assert lake.read(f"code/{bundle.digest}/publish.py") == b"publish"


def test_changed_code_is_noticed_and_not_overwritten(repository: Path, lake: Lake) -> None:
    bundle = build_bundle(repository)
    upload_bundle(bundle, lake)
    lake.write(f"code/{bundle.digest}/publish.py", b"something else")
    with pytest.raises(CodeMismatch, match=bundle.digest):
        upload_bundle(bundle, lake)
    assert lake.read(f"code/{bundle.digest}/publish.py") == b"something else"


def test_missing_code_is_noticed(repository: Path, lake: Lake) -> None:
    bundle = build_bundle(repository)
    upload_bundle(bundle, lake)
    lake.remove(f"code/{bundle.digest}/fruits.zip")
    with pytest.raises(CodeMismatch, match=r"lacks fruits\.zip"):
        verify_code(lake, bundle.digest)
