from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools import class_archive

JARS = Path(__file__).parents[2] / ".cache" / "jars"
OLD = b"of yesterday's Spark"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / class_archive.FILE_NAME).write_bytes(OLD)
    return tmp_path


def starts(options: list[str]) -> subprocess.CompletedProcess[str]:
    """What a driver does that must start from the archive which `options` name."""
    return class_archive._submit(*options, "--conf", "spark.driver.extraJavaOptions=-Xshare:on", "--version")


@pytest.mark.spark
def test_a_driver_starts_from_the_archive_that_set_up_made():
    options = class_archive.options(JARS)
    assert f"spark.driver.defaultJavaOptions=-XX:SharedArchiveFile={JARS}/spark.jsa" in options
    assert starts(options).returncode == 0
    assert "mismatch" in starts([*options, "--driver-class-path", "/other.jar"]).stdout


def test_without_an_archive_the_jars_are_all_there_is(tmp_path):
    assert class_archive.options(tmp_path) == ["--driver-class-path", class_archive.options(tmp_path)[1]]


@pytest.mark.spark
def test_a_job_that_fails_is_said_and_leaves_what_was_there(folder, monkeypatch):
    job = folder / "job.py"
    job.write_text("raise RuntimeError('no room')")
    monkeypatch.setattr(class_archive, "_TYPICAL_JOB", job)
    monkeypatch.setattr("sys.argv", ["class_archive.py", "--folder", str(folder)])
    with pytest.raises(SystemExit, match=r"(?s)no room.*ERROR: Spark did not run.*JAVA_HOME"):
        class_archive.main()
    assert {path.name for path in folder.iterdir()} == {"job.py", class_archive.FILE_NAME}
    assert (folder / class_archive.FILE_NAME).read_bytes() == OLD


def test_a_java_that_keeps_no_archive_leaves_none_of_another_java(folder, monkeypatch, capsys):
    monkeypatch.setattr(class_archive, "_submit", lambda *_: subprocess.CompletedProcess([], 0))
    monkeypatch.setattr("sys.argv", ["class_archive.py", "--folder", str(folder)])
    class_archive.main()
    assert "keeps no archive" in capsys.readouterr().out
    assert list(folder.iterdir()) == []
