"""What a wrong configuration gets: it stops before any call that changes something, naming key, value and remedy.

Each case is a deployment as it should be with one thing wrong: a line of settings.yaml, a variable, a parameter of the
run, or the account itself. It goes the way of a real run: settings, the form's schemas, `make_plan`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowException
from fruits_airflow.config.errors import FruitsError
from fruits_airflow.config.run_parameters import parameter_schemas, resolve_parameters
from fruits_airflow.config.settings import Settings, load_settings
from fruits_airflow.runs.plan import RunPlan
from fruits_airflow.runs.planning import make_plan

from tests.plugins import laptop
from tests.plugins.conftest import MODEL_ID

READS = ("Get", "List", "Head", "Describe")


@dataclass(frozen=True)
class Wrong:
    """One wrong thing, and what is said of it.

    Attributes:
        says: words that the message must hold: the key, the value, and what to do.
        lines: of settings.yaml, after those that are right.
        env: variables beside those that are right.
        params: of the run.
        conf: what the trigger passed.
        account: changes the account before the run.
    """

    says: tuple[str, ...]
    lines: str = ""
    env: dict[str, str] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    conf: dict[str, Any] = field(default_factory=dict)
    account: Callable[[Settings], None] = lambda _: None


def s3() -> Any:
    return laptop.client("s3")


def public(settings: Settings) -> None:
    s3().delete_public_access_block(Bucket=settings.raw_bucket)


def key_in_virginia(settings: Settings) -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/1"
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    rules = {"Rules": [rule]}
    s3().put_bucket_encryption(Bucket=settings.lake_bucket, ServerSideEncryptionConfiguration=rules)


def without_weights(settings: Settings) -> None:
    s3().delete_object(Bucket=settings.lake_bucket, Key=f"models/{MODEL_ID}/model.tflite")


def london(settings: Settings) -> None:
    laptop.make_bucket("london-wrong", "eu-west-2")


CASES: dict[str, Wrong] = {
    # settings.yaml
    "unknown key": Wrong(("max_costs", "known are", "max_cost_eur"), lines="max_costs: 5"),
    "key twice": Wrong(("variance", "written twice", "keep one"), lines="variance: 0.9\nvariance: 0.95"),
    "yaml boolean": Wrong(("region", "False", "quote it", "booleans"), lines="region: no"),
    "number as text": Wrong(("batch_size", "'8'", "plain number"), lines="batch_size: '8'"),
    "required key empty": Wrong(("deployment_id", "required", "FRUITS_DEPLOYMENT_ID"), lines="deployment_id:"),
    "access key in yaml": Wrong(
        ("owner", "looks like a secret", "Airflow connection"), lines="owner: AKIAIOSFODNN7EXAMPLE"
    ),
    "secret by name": Wrong(("aws_secret_access_key", "revoke", "connection"), lines="aws_secret_access_key: abc"),
    "password in an address": Wrong(("notify_to", "secret", "revoke"), lines="notify_to: https://me:pw@host/"),
    "region outside": Wrong(("region", "'us-east-1'", "choose one of eu-west-1"), lines="region: us-east-1"),
    "london": Wrong(("region", "'eu-west-2'", "United Kingdom", "choose one of"), lines="region: eu-west-2"),
    "zurich": Wrong(("region", "'eu-central-2'", "Switzerland", "choose one of"), lines="region: eu-central-2"),
    "release without spark 4": Wrong(
        ("release_label", "'emr-7.10.0'", "use one of emr-spark-8.0.0"), lines="release_label: emr-7.10.0"
    ),
    "k too large": Wrong(("k", "1281", "at most 1280"), lines="k: 1281"),
    "batch too large": Wrong(("batch_size", "100000", "at most 256"), lines="batch_size: 100000"),
    "no variance": Wrong(("variance", "0.0", "above 0"), lines="variance: 0"),
    "not a number": Wrong(("max_cost_eur", "nan", "above 0"), lines="max_cost_eur: .nan"),
    "idle too short": Wrong(("idle_timeout_s", "59", "at least 60"), lines="idle_timeout_s: 59"),
    "minutes for a month": Wrong(("max_cluster_minutes", "99999", "at most 10080"), lines="max_cluster_minutes: 99999"),
    "lake is the input": Wrong(("lake_bucket", "{raw}", "another bucket"), env={"FRUITS_LAKE_BUCKET": "{raw}"}),
    "bucket as uri": Wrong(("raw_bucket", "'s3://raw'", "without s3://"), env={"FRUITS_RAW_BUCKET": "s3://raw"}),
    "demo over production": Wrong(("demo_database", "'fruits'", "must not write"), lines="demo_database: fruits"),
    "database of another shape": Wrong(("database", "'a; drop'", "letters"), lines="database: a; drop"),
    "prefix upwards": Wrong(
        ("raw_prefix", "'images/../lake/'", "begins with a dot"), lines="raw_prefix: images/../lake/"
    ),
    "prefix of a shell": Wrong(("raw_prefix", "$(id)", "nothing a shell reads"), lines="raw_prefix: images/$(id)/"),
    "prefix with an empty part": Wrong(("raw_prefix", "images//x/", "no empty part"), lines="raw_prefix: images//x/"),
    "no cron": Wrong(("schedule", "'every night'", "five fields"), lines="schedule: every night"),
    "no timezone": Wrong(("timezone", "'Paris'", "Europe/Paris"), lines="timezone: Paris"),
    "no subnet": Wrong(("subnet_id", "'vpc-1'", "subnet-"), env={"FRUITS_SUBNET_ID": "vpc-1"}),
    "no such engine": Wrong(("engine", "'keras'", "litert"), lines="engine: keras"),
    "variable misspelt": Wrong(("FRUITS_REGOIN", "no such setting", "known are"), env={"FRUITS_REGOIN": "eu-west-1"}),
    # the form
    "unknown parameter": Wrong(("conf", "varience", "a run takes"), conf={"varience": 0.9}),
    "parameter upwards": Wrong(("input_prefix", "../", "pattern"), params={"input_prefix": "images/../../x/"}),
    "parameter of a shell": Wrong(("input_prefix", "`id`", "pattern"), params={"input_prefix": "images/`id`/"}),
    "limit of nothing": Wrong(("limit", "0", "minimum"), params={"limit": 0}),
    "model by nickname": Wrong(("model_id", "latest", "pattern"), params={"model_id": "latest"}),
    "run in london": Wrong(("region", "eu-west-2", "eu-west-1"), params={"region": "eu-west-2"}),
    # the account
    "public bucket": Wrong(("raw_bucket", "{raw}", "block all public access"), account=public),
    "bucket in london": Wrong(
        ("lake_bucket", "london-wrong", "United Kingdom"), env={"FRUITS_LAKE_BUCKET": "london-wrong"}, account=london
    ),
    "key in virginia": Wrong(("lake_bucket", "us-east-1", "choose one of"), account=key_in_virginia),
    "no such bucket": Wrong(
        ("raw_bucket", "nowhere", "deploy include/stack.yaml"), env={"FRUITS_RAW_BUCKET": "nowhere"}
    ),
    "half a model": Wrong(("model_id", "models/", "upload what it wrote"), account=without_weights),
    "no model": Wrong(("model_id", "not set", "make model"), env={"FRUITS_MODEL_ID": ""}),
    "no role": Wrong(("service_role", "not set", "outputs of the stack"), env={"FRUITS_SERVICE_ROLE": ""}),
    "no network": Wrong(("Ec2SubnetIds", "not set", "output SubnetId"), env={"FRUITS_SUBNET_ID": ""}),
    "no such profile": Wrong(("profile", "'huge'", "demo"), lines="nightly_profile: huge"),
    "no encryption": Wrong(("SecurityConfiguration", "not set", "stack"), env={"FRUITS_SECURITY_CONFIGURATION": ""}),
    "ceiling of a cent": Wrong(("max_cost_eur", "0.01", "raise it"), lines="max_cost_eur: 0.01"),
}


@pytest.fixture
def right(account: Settings) -> dict[str, str]:
    """The variables of a deployment that plans well."""
    laptop.put_photos(account.raw_bucket, ["images/a.jpg"])
    return {
        "FRUITS_DEPLOYMENT_ID": account.deployment_id,
        "FRUITS_RAW_BUCKET": account.raw_bucket,
        "FRUITS_LAKE_BUCKET": account.lake_bucket,
        "FRUITS_MODEL_ID": MODEL_ID,
        "FRUITS_SERVICE_ROLE": str(account.service_role),
        "FRUITS_INSTANCE_PROFILE": str(account.instance_profile),
        "FRUITS_SECURITY_CONFIGURATION": str(account.security_configuration),
        "FRUITS_SUBNET_ID": str(account.subnet_id),
        "FRUITS_NODE_ENVIRONMENT": str(account.node_environment),
    }


def plan(environment: dict[str, str], wrong: Wrong, folder: Path, calls: list[str]) -> RunPlan:
    """Plans a run as a real one is planned; notes the name of every call."""
    path = folder / "settings.yaml"
    if wrong.lines.startswith("deployment_id"):
        environment.pop("FRUITS_DEPLOYMENT_ID")
    path.write_text(wrong.lines or "{}")
    settings = load_settings(path, environment)
    schemas = parameter_schemas(settings)
    values = {name: schema["default"] for name, schema in schemas.items()} | wrong.params
    params = {}
    for name, value in values.items():
        try:
            params[name] = Param(**schemas[name]).resolve(value)
        except (AirflowException, ValueError) as error:
            raise FruitsError(f"{name}: {error}") from error  # Airflow names the parameter, too
    parameters = resolve_parameters(settings, params, wrong.conf, schemas)
    client = boto3.client("s3", region_name=settings.region)
    client.meta.events.register("before-call", lambda model, **_: calls.append(model.name))
    return make_plan(settings, parameters, "r1", client, kms_of=laptop.kms_of)


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_by_key_value_and_remedy_and_nothing_is_changed(
    right: dict[str, str], account: Settings, tmp_path: Path, case: str
) -> None:
    def filled(text: str) -> str:
        return text.replace("{raw}", account.raw_bucket)

    wrong, calls = CASES[case], list[str]()
    wrong.account(account)
    environment = right | {name: filled(value) for name, value in wrong.env.items()}
    with pytest.raises(FruitsError) as caught:
        plan(environment, wrong, tmp_path, calls)
    missing = [words for words in map(filled, wrong.says) if words not in str(caught.value)]
    assert not missing, f"{caught.value} does not say {missing}"
    assert [name for name in calls if not name.startswith(READS)] == []


def test_without_anything_wrong_the_same_way_leads_to_a_plan(right: dict[str, str], tmp_path: Path) -> None:
    calls: list[str] = []
    assert plan(right, Wrong(()), tmp_path, calls).images.seen == 1
    assert "PutObject" in calls, "the recorder must see what changes something"
