"""Which endpoints a job tells that its clients were opened with."""

from __future__ import annotations

import pytest
from fruits.base import objects
from fruits.job import client_endpoints

CATALOG = {"spark.sql.catalog.lake.type": "glue", "spark.sql.catalog.lake.client.region": "eu-west-3"}


@pytest.fixture
def s3(monkeypatch):
    """S3 of a region, not yet asked for."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_GLUE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    objects.find_s3.cache_clear()
    yield
    objects.find_s3.cache_clear()


@pytest.mark.usefixtures("s3")
def test_a_client_that_was_not_opened_is_not_told():
    assert client_endpoints.list_endpoints({"spark.sql.catalog.lake.type": "hadoop"}, "lake", "/runs/r") == []


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(("opened", "record"), [(True, "/runs/r"), (False, "s3://lake/runs/r")])
def test_obstore_is_told_with_the_endpoint_that_it_was_given_or_will_write_the_record_to(opened, record):
    if opened:
        objects.find_s3()
    assert client_endpoints.list_endpoints({}, "lake", record) == [
        {"client": "obstore", "service": "s3", "host": "s3.eu-north-1.amazonaws.com", "region": "eu-north-1"}
    ]


@pytest.mark.usefixtures("s3")
def test_iceberg_is_told_with_the_catalogs_own_region():
    endpoints = {
        endpoint["client"]: (endpoint["host"], endpoint["region"])
        for endpoint in client_endpoints.list_endpoints(CATALOG, "lake", "/runs/r")
    }
    assert endpoints == {
        "Iceberg's catalog": ("glue.eu-west-3.amazonaws.com", "eu-west-3"),
        "Iceberg's files": ("s3.eu-west-3.amazonaws.com", "eu-west-3"),
    }


@pytest.mark.usefixtures("s3")
def test_an_endpoint_that_was_set_is_told_and_a_region_that_was_not_is_unknown():
    conf = CATALOG | {"spark.sql.catalog.lake.glue.endpoint": "http://elsewhere:5000"}
    assert client_endpoints.list_endpoints(conf, "lake", "/runs/r")[0]["host"] == "elsewhere"
    del conf["spark.sql.catalog.lake.client.region"]
    assert [endpoint["region"] for endpoint in client_endpoints.list_endpoints(conf, "lake", "/runs/r")] == [
        "unknown",
        "unknown",
    ]
