"""The service `check`: settings that are wrong are named before anything starts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.compose.stacks import REPOSITORY

BUCKETS = {"FRUITS_LAKE_BUCKET": "lake-of-the-laptop", "FRUITS_RAW_BUCKET": "photos-of-the-laptop"}


def check(**settings: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FRUITS_")}
    return subprocess.run(
        [sys.executable, "-m", "compose.check"],
        cwd=REPOSITORY,
        env={**kept, **BUCKETS, "PYTHONPATH": "plugins", "FRUITS_DEPLOYMENT_ID": "laptop", **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_settings_of_the_laptop_are_right():
    done = check()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("FRUITS_SCHEDULE", "nightly", "nightly"),
        ("FRUITS_DEPLOYMENT_ID", "t", "t"),
        ("FRUITS_REGION", "us-east-1", "us-east-1"),
        ("FRUITS_NO_SUCH", "1", "no such setting"),  # its value may be a secret, and is not printed
    ],
)
def test_a_wrong_setting_is_named_with_its_value(name, value, words):
    done = check(**{name: value})
    assert done.returncode == 1
    assert done.stderr == ""
    assert name.removeprefix("FRUITS_").lower() in done.stdout.lower()
    assert words in done.stdout
