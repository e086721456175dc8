"""The lakes that the tests read, and the Spark that writes them."""

from __future__ import annotations

from tests.lakes import endpoint as endpoint
from tests.lakes import glue as glue
from tests.lakes import local as local
from tests.spark_jobs.conftest import _no_kept_credentials as _no_kept_credentials
from tests.spark_jobs.conftest import model as model
from tests.spark_jobs.conftest import models as models
from tests.spark_jobs.conftest import nights as nights
from tests.spark_jobs.conftest import spark as spark
