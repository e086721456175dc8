"""Variables of the command line that no target reads are refused."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("variable", ["images=photos", "IMAGE=photos", "weights=w.h5"])
def test_a_variable_that_no_target_reads_is_refused(variable):
    refused = make("help", variable)
    assert refused.returncode == 2
    assert f"{variable.partition('=')[0]}= is no variable of this Makefile" in refused.stderr


def test_every_variable_that_make_help_names_is_accepted():
    names = sorted(set(re.findall(r"\b([A-Z_]+)=", make("help").stdout)))
    assert {"IMAGES", "WEIGHTS", "K", "SEED"} <= set(names)
    accepted = make("help", *(f"{name}=1" for name in names), "FRUITS_POLL_S=1", "AIRFLOW_PORT=1", "https_proxy=x")
    assert accepted.returncode == 0, accepted.stderr


@pytest.mark.parametrize(
    ("variable", "words"),
    [("IMAGES=/no/such/folder", "IMAGES=/no/such/folder is not a folder"), ("WEIGHTS=/no.h5", "WEIGHTS=/no.h5 is not")],
)
def test_the_notebook_refuses_a_missing_input_before_anything_else(variable, words):
    recipe = make("-n", "notebook", variable).stdout
    check = next(line for line in recipe.splitlines() if "dev.demo.preflight" in line)
    name, _, value = variable.partition("=")
    refused = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", check.partition(";")[0]],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"ERROR: {words}")
