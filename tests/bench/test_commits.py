"""Figures are published of a commit that others can look up, and of nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numpy")
pytest.importorskip("psutil")

from bench import __main__ as main
from bench import commits

pytestmark = pytest.mark.slow


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit."""
    monkeypatch.setattr(commits, "REPOSITORY", tmp_path)
    git(tmp_path, "init", "-q")
    (tmp_path / "bench").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "bench" / "suite.py").write_text("1\n")
    commit(tmp_path)
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def commit(folder: Path, *more: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "bench: measure", *more)


def test_a_clean_tree_is_its_commit_and_may_be_published(history: Path) -> None:
    assert len(commits.here()) == 12
    commits.check([commits.here()])


@pytest.mark.parametrize("name", ["bench/suite.py", "bench/new.py"])
def test_a_changed_or_new_file_of_what_is_measured_is_refused(history: Path, name: str) -> None:
    (history / name).write_text("2\n")
    assert commits.here().endswith("+")
    with pytest.raises(commits.NotPublishable, match="Commit them"):
        commits.check([commits.here()])


@pytest.mark.parametrize("name", [*commits.WRITTEN, "docs/scale.md"])
def test_what_publishing_writes_is_no_other_measurement(history: Path, name: str) -> None:
    (history / name).write_text("written\n")
    commits.check([commits.here()])


def test_a_commit_that_was_amended_away_is_refused(history: Path) -> None:
    measured = commits.here()
    (history / "bench" / "suite.py").write_text("2\n")
    commit(history, "--amend")
    assert commits.git("merge-base", "--is-ancestor", measured, "HEAD")[0] != 0
    with pytest.raises(commits.NotPublishable, match="make bench PUBLISH=1"):
        commits.check([measured])


def test_a_later_commit_keeps_the_earlier_one_publishable(history: Path) -> None:
    measured = commits.here()
    (history / "bench" / "suite.py").write_text("2\n")
    commit(history)
    commits.check([measured])


def test_publishing_from_a_changed_tree_is_refused_before_anything_is_run(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (history / "bench" / "suite.py").write_text("2\n")
    monkeypatch.setattr(sys, "argv", ["bench", "--publish", "--out", str(tmp_path / "out")])
    monkeypatch.setattr(main, "Suite", lambda *_: pytest.fail("it began to measure"))
    assert main.main() == 1
    assert "Commit them" in capsys.readouterr().err
