"""The environment of the processes that this folder starts: the variables of an allow-list, and no other."""

import os
import sys
from pathlib import Path

_LIST = Path(__file__).with_name("environment.mk").read_text()
"""The Makefile's own list, of which every process gets the line PROCESS."""


def inherited() -> dict[str, str]:
    """Return the caller's variables that every process gets; the locale's encoding is always UTF-8."""
    names = _LIST.split("PROCESS := ")[1].splitlines()[0].split()
    return {name: os.environ[name] for name in names if name in os.environ} | {"LC_ALL": "C.UTF-8"}


def for_spark(python: Path = Path(sys.executable)) -> dict[str, str]:
    """Return the environment of a Spark driver on this machine whose workers run `python`."""
    return inherited() | {"PYSPARK_PYTHON": str(python), "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONUNBUFFERED": "1"}


def spark_submit(python: Path = Path(sys.executable)) -> str:
    """Return the spark-submit that lies beside the jars of the PySpark of `python`, and so needs no SPARK_HOME."""
    return str(next(python.parents[1].glob("lib/python3*/site-packages/pyspark/bin/spark-submit")))
