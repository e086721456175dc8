from __future__ import annotations

import os
import sys

import pytest

from dev.demo.account import Account, AccountFailed, make_model, start_account
from dev.demo.processes import ProcessEnded, Processes
from tests.aws_keys import FOR_CLIENT
from tests.local_aws.server import REGION, Server


@pytest.fixture
def processes(tmp_path):
    running = Processes(tmp_path)
    yield running
    running.stop()


def python(code):
    return [sys.executable, "-uc", code]


def test_the_endpoint_is_the_one_that_says_it_is_ready(processes):
    speaking = python("print('local_aws ready on http://127.0.0.1:1'); import time; time.sleep(60)")
    account = start_account(processes, speaking, os.environ, "eu-west-3")
    assert (account.endpoint, account.region) == ("http://127.0.0.1:1", "eu-west-3")
    assert account.env["AWS_ENDPOINT_URL"] == account.endpoint


def test_each_endpoint_gets_a_key_pair_of_its_own_that_the_tasks_are_handed(processes):
    telling = python(
        "import os, time; print(os.environ['LOCAL_AWS_SECRET_ACCESS_KEY']); print('ready on x'); time.sleep(60)"
    )
    accounts = [start_account(processes, telling, os.environ, "eu-west-3") for _ in range(2)]
    secrets = [account.env["AWS_SECRET_ACCESS_KEY"] for account in accounts]
    assert secrets[0] != secrets[1]
    assert secrets[0] in processes.log_path("local_aws").read_text()
    assert secrets[0] not in repr(accounts)


def test_the_lake_is_left_as_a_catalog_in_a_folder_without_what_has_gone(tmp_path):
    server = Server(tmp_path / "aws")
    try:
        keys = {name.upper(): value for name, value in FOR_CLIENT.items()}
        account = Account(server.endpoint, REGION, keys)
        s3, glue = account.client("s3"), account.client("glue")
        s3.create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": REGION})
        glue.create_database(DatabaseInput={"Name": "fruits_demo"})
        keys = ("data/a.parquet", "metadata/00000-a.metadata.json", "metadata/00001-b.metadata.json")
        for key in ("runs/demo__1/run.json", "logs/j-1", *(f"tables/fruits_demo.db/pca/{key}" for key in keys)):
            s3.put_object(Bucket="lake", Key=key, Body=key.encode())
        current = "s3://lake/tables/fruits_demo.db/pca/metadata/00001-b.metadata.json"
        table = {"Name": "pca", "Parameters": {"table_type": "ICEBERG", "metadata_location": current}}
        glue.create_table(DatabaseName="fruits_demo", TableInput=table)
        folder = tmp_path / "lake"
        (folder / "runs" / "erased").mkdir(parents=True)
        account.download_lake("lake", "fruits_demo", folder)
    finally:
        server.stop()
    pca = folder / "tables" / "fruits_demo" / "pca"
    hint = (pca / "metadata" / "version-hint.text").read_text()
    assert (pca / "metadata" / f"v{hint}.metadata.json").read_bytes() == current.removeprefix("s3://lake/").encode()
    assert (pca / "data" / "a.parquet").is_file()
    assert [str(path.relative_to(folder)) for path in (folder / "runs").rglob("*")] == [
        "runs/demo__1",
        "runs/demo__1/run.json",
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["runs", "tables"]


def test_an_endpoint_that_ends_is_said_with_its_last_words(processes):
    with pytest.raises(ProcessEnded, match="port is taken"):
        start_account(processes, python("raise SystemExit('port is taken')"), os.environ, "eu-west-1")


def test_an_endpoint_that_says_nothing_is_not_waited_for_for_ever(processes, monkeypatch):
    monkeypatch.setattr("dev.demo.account.READY_SECONDS", 0)
    with pytest.raises(AccountFailed, match="not ready after 0 s"):
        start_account(processes, python("import time; time.sleep(60)"), os.environ, "eu-west-1")


def converter(tmp_path, monkeypatch, code):
    """Makes `make_model` run that code instead of TensorFlow's converter."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "make_model.py").write_text(f"import sys\n{code}\n")
    monkeypatch.setattr("dev.demo.account.REPOSITORY", tmp_path)
    warned = []

    def convert():
        return make_model(sys.executable, tmp_path, None, tmp_path / "log", warned.append)

    return convert, warned


def test_weights_that_do_not_fit_are_said_in_the_converters_words(tmp_path, monkeypatch):
    code = "print('at work', file=sys.stderr); sys.exit('ERROR WeightsError: 3 arrays, not 260')"
    convert, _ = converter(tmp_path, monkeypatch, code)
    with pytest.raises(AccountFailed, match=r"^WeightsError: 3 arrays, not 260$"):
        convert()


def test_a_converter_that_dies_without_a_word_is_said_with_its_status(tmp_path, monkeypatch):
    convert, _ = converter(tmp_path, monkeypatch, "sys.exit(9)")
    with pytest.raises(AccountFailed, match="ended with 9"):
        convert()


@pytest.mark.parametrize(("origin", "warnings"), [("random", 2), ("path", 0)])
def test_random_weights_are_warned_of(tmp_path, monkeypatch, origin, warnings):
    convert, warned = converter(tmp_path, monkeypatch, f"print('noise'); print('{{\"weights\": \"{origin}\"}}')")
    assert convert() == {"weights": origin}
    assert len(warned) == warnings
