from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dev import class_archive

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
    assert f'-XX:SharedArchiveFile="{JARS}/spark.jsa"' in options[-1]
    assert starts(options).returncode == 0
    other = [*options, "--driver-class-path", "/other.jar"]
    assert "mismatch" in starts(other).stdout
    # Where nobody insists, it starts without a word about the archive.
    without = class_archive._submit(*other, "--version")
    assert without.returncode == 0
    assert "cds" not in without.stdout


@pytest.mark.spark
@pytest.mark.parametrize("name", ["SPARK_HOME", "SPARK_CONF_DIR", "SPARK_DIST_CLASSPATH"])
def test_what_the_user_set_for_another_spark_does_not_matter(tmp_path, monkeypatch, name):
    (tmp_path / "spark-defaults.conf").touch()
    monkeypatch.setenv(name, str(tmp_path))
    assert starts(class_archive.options(JARS)).returncode == 0


@pytest.mark.spark
def test_the_archive_may_lie_behind_a_space(tmp_path):
    folder = tmp_path / "my code"
    folder.symlink_to(JARS)
    done = class_archive._submit(*class_archive.options(folder), "--version")
    assert (done.returncode, "version 4" in done.stdout) == (0, True)


def test_without_an_archive_the_jars_are_all_there_is(tmp_path):
    jars = f"{tmp_path}/iceberg-spark-runtime-4.0_2.13-1.10.1.jar:{tmp_path}/iceberg-aws-bundle-1.10.1.jar"
    assert class_archive.options(tmp_path) == ["--driver-class-path", jars]


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


def test_a_folder_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["class_archive.py", "--folder", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match=r"(?s)none.*ERROR: .*jars in .*none"):
        class_archive.main()


def test_a_java_that_keeps_no_archive_leaves_none_of_another_java(folder, monkeypatch, capsys):
    monkeypatch.setattr(class_archive, "_submit", lambda *_: subprocess.CompletedProcess([], 0))
    monkeypatch.setattr("sys.argv", ["class_archive.py", "--folder", str(folder)])
    class_archive.main()
    assert "keeps no archive" in capsys.readouterr().out
    assert list(folder.iterdir()) == []
