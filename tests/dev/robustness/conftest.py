"""The Spark and the model of the lake that the tests measure."""

from __future__ import annotations

from tests.spark_jobs.conftest import _no_kept_credentials as _no_kept_credentials
from tests.spark_jobs.conftest import spark as spark
