from __future__ import annotations

import hashlib
from pathlib import Path

import pyspark
import pytest

from dev import fetch_jars

GOOD = b"as pinned"
COORDINATE = "group:thing:1.0"


@pytest.fixture
def _pinned(monkeypatch):
    monkeypatch.setattr(fetch_jars, "JARS", {COORDINATE: hashlib.sha256(GOOD).hexdigest()})


def resolver_that_fetches(content, calls):
    def resolve(coordinates, ivy):
        calls.append(coordinates)
        (ivy / "jars").mkdir()
        (ivy / "jars" / "group_thing-1.0.jar").write_bytes(content)

    return resolve


@pytest.mark.usefixtures("_pinned")
def test_a_pinned_jar_is_fetched_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(fetch_jars, "resolve", resolver_that_fetches(GOOD, calls))
    fetch_jars.fetch(tmp_path, fetch_jars.JARS)
    fetch_jars.fetch(tmp_path, fetch_jars.JARS)
    assert [path.name for path in tmp_path.iterdir()] == ["thing-1.0.jar"]
    assert calls == [[COORDINATE]]


@pytest.mark.usefixtures("_pinned")
def test_a_jar_other_than_the_pinned_one_is_refused_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_jars, "resolve", resolver_that_fetches(b"tampered", []))
    with pytest.raises(fetch_jars.JarMismatch, match=COORDINATE):
        fetch_jars.fetch(tmp_path, fetch_jars.JARS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_pinned")
def test_a_jar_damaged_in_the_cache_is_fetched_again(tmp_path, monkeypatch):
    (tmp_path / "thing-1.0.jar").write_bytes(b"half")
    monkeypatch.setattr(fetch_jars, "resolve", resolver_that_fetches(GOOD, []))
    fetch_jars.fetch(tmp_path, fetch_jars.JARS)
    assert (tmp_path / "thing-1.0.jar").read_bytes() == GOOD


@pytest.mark.usefixtures("_pinned")
def test_no_way_to_the_jars_is_said_with_the_resolvers_words_and_the_remedy(tmp_path, monkeypatch):
    def resolve(_coordinates, _ivy):
        raise fetch_jars.ResolverFailed("UNRESOLVED DEPENDENCY: thing")

    monkeypatch.setattr(fetch_jars, "resolve", resolve)
    monkeypatch.setattr("sys.argv", ["fetch_jars.py", "--folder", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"(?s)UNRESOLVED.*ERROR: .*put these jars into .*thing-1\.0\.jar"):
        fetch_jars.main()


@pytest.mark.usefixtures("_pinned")
def test_the_resolver_never_sees_brackets_of_the_folder_which_it_reads_as_a_pattern(tmp_path, monkeypatch):
    folders = []

    def resolve(coordinates, ivy):
        folders.append(str(ivy))
        resolver_that_fetches(GOOD, [])(coordinates, ivy)

    monkeypatch.setattr(fetch_jars, "resolve", resolve)
    fetch_jars.fetch(tmp_path / "mes fruits (été) [1]", fetch_jars.JARS)
    assert not set("()[]").intersection(*folders)
    assert [path.name for path in (tmp_path / "mes fruits (été) [1]").iterdir()] == ["thing-1.0.jar"]


def test_java_is_told_the_proxies_of_the_environment():
    proxies = {"https": "http://user:word@proxy.example:8080", "http": "http://proxy.example", "no": "localhost"}
    assert fetch_jars._proxy_options(proxies).split() == [
        *("-Dhttp.proxyHost=proxy.example", "-Dhttp.proxyPort=80"),
        *("-Dhttps.proxyHost=proxy.example", "-Dhttps.proxyPort=8080"),
    ]
    assert fetch_jars._proxy_options({}) == ""


def test_the_jars_of_yarn_have_the_version_of_sparks_own_hadoop(tmp_path, monkeypatch):
    fetched = {}
    monkeypatch.setattr(fetch_jars, "fetch", lambda folder, jars: fetched.update({folder: jars}))
    monkeypatch.setattr("sys.argv", ["fetch_jars.py", "--folder", str(tmp_path), "--yarn"])
    fetch_jars.main()
    (jars,) = fetched.values()
    assert list(fetched) == [tmp_path / "yarn"]
    assert all(len(digest) == 64 for digest in jars.values())
    (hadoop,) = Path(pyspark.__file__).parent.glob("jars/hadoop-client-api-*.jar")
    version = hadoop.stem.rpartition("-")[2]
    assert {coordinate for coordinate in jars if "hadoop" in coordinate} == {
        f"org.apache.hadoop:hadoop-client-minicluster:{version}",
        f"org.apache.hadoop:hadoop-aws:{version}",
    }
