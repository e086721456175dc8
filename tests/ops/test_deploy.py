"""make deploy and make destroy, on an account that is this machine's."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from fruits_airflow.config.errors import ResidencyError

from ops import __main__ as command_line
from ops.certificates import KEY, ensure_certificate, expiry, make_certificate
from ops.removal import destroy, verify_removed
from ops.stack import AwsAccount, Declined, Deployment, DeploymentFailed
from ops.template import TEMPLATE, read_template
from tests.aws_keys import KEYS
from tests.emr_rules import TAG, add_rules, create_default_groups
from tests.ops.conftest import Account

Make = Callable[..., Deployment]
NETWORKS = read_template()["Parameters"]["CreateVpc"]["AllowedValues"]
PRIVATE = "private" if "private" in NETWORKS else "true"  # with interface endpoints


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def make(account: Account, deployment_id: str, lines: list[str]) -> Make:
    def create(answer: bool = True) -> Deployment:
        return Deployment(account, deployment_id, lines.append, lambda q: lines.append(q) or answer, poll_s=0.05)  # type: ignore[func-returns-value]

    return create


def stack_status(deployment: Deployment) -> str | None:
    stack = deployment.describe()
    return stack and str(stack["StackStatus"])


def test_a_stack_is_shown_asked_for_made_and_looked_up(make: Make, lines: list[str], databases: dict[str, str]) -> None:
    deployment = make()
    outputs = deployment.deploy({"AlarmEmail": "a@example.org", **databases})
    text = "\n".join(lines)
    assert lines.index(next(line for line in lines if "RawBucket" in line)) < lines.index(
        next(q for q in lines if "?" in q)
    )
    assert "Add     AnalystRole" in text
    assert "Add     InternetGateway" in text
    assert "KmsEndpoint" not in text  # it costs by the hour
    assert "each is as the template says" in text
    assert stack_status(deployment) == "CREATE_COMPLETE"
    content = deployment.account.client("s3").get_object(Bucket=outputs["LakeBucket"], Key=KEY)["Body"].read()
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    assert names == ["privateKey.pem", "certificateChain.pem", "trustedCertificates.pem"]


def test_a_second_time_changes_nothing(make: Make, lines: list[str], databases: dict[str, str]) -> None:
    make().deploy(databases)
    lines.clear()
    make(answer=False).deploy(databases)
    assert "as the template says already" in lines[0]
    assert not [line for line in lines if "?" in line]


def test_an_update_shows_only_what_changes_and_keeps_other_parameters(
    make: Make, lines: list[str], databases: dict[str, str]
) -> None:
    make().deploy(databases)
    lines.clear()
    deployment = make()
    deployment.deploy({"LogDays": "7"})
    changes = [line.split() for line in lines if line.startswith("  ")]
    assert [words[:2] for words in changes] == [["Modify", "LakeBucket"]]
    rules = deployment.account.client("s3").get_bucket_lifecycle_configuration(
        Bucket=deployment.outputs()["LakeBucket"]
    )
    assert {"Days": 7} in [rule.get("Expiration") for rule in rules["Rules"]]
    assert deployment.outputs()["NightlyDatabase"] == databases["NightlyDatabase"]


def test_the_endpoints_of_a_network_are_the_stacks_and_the_one_that_emr_adds(filled: Deployment) -> None:
    assert filled.interface_endpoints() == 3


def test_a_network_without_interface_endpoints_pays_none(make: Make, databases: dict[str, str]) -> None:
    deployment = make()
    deployment.deploy(databases)
    assert deployment.interface_endpoints() == 0


def test_a_no_changes_nothing(make: Make, databases: dict[str, str]) -> None:
    deployment = make(answer=False)
    with pytest.raises(Declined):
        deployment.deploy(databases)
    assert stack_status(deployment) is None


def test_a_stack_that_fails_names_the_reason_and_does_not_stand_in_the_way(
    make: Make, account: Account, deployment_id: str, databases: dict[str, str], tmp_path: Path
) -> None:
    template = tmp_path / "stack.yaml"
    policies = re.sub(r"DeletionPolicy: Retain\b", "DeletionPolicy: RetainExceptOnCreate", TEMPLATE.read_text())
    template.write_text(policies)
    taken = f"fruits-{deployment_id}-raw-123456789012-eu-west-1"
    account.server.make_bucket(taken)
    deployment = make()
    with pytest.raises(DeploymentFailed, match=r"RawBucket|BucketAlready"):
        deployment.deploy(databases, template)
    buckets = [bucket["Name"] for bucket in account.client("s3").list_buckets()["Buckets"]]
    assert [name for name in buckets if f"-{deployment_id}-" in name] == [taken]
    assert stack_status(deployment) == "ROLLBACK_COMPLETE"
    account.client("s3").delete_bucket(Bucket=taken)
    assert deployment.deploy(databases, template)["RawBucket"] == taken


def test_an_update_that_fails_is_not_taken_for_the_one_before(make: Make, databases: dict[str, str]) -> None:
    deployment = make()
    deployment.deploy(databases)
    deployment.deploy({"LogDays": "7"})
    assert stack_status(deployment) == "UPDATE_COMPLETE"
    deployment.account.client("s3").delete_bucket(Bucket=deployment.outputs()["RawBucket"])
    with pytest.raises(DeploymentFailed, match="NoSuchBucket"):
        deployment.deploy({"RawNoncurrentDays": "8"})


def test_the_state_before_a_deletion_is_not_its_end(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iter(["UPDATE_COMPLETE", "DELETE_IN_PROGRESS", None])
    states = (state and {"StackStatus": state} for state in seen)
    monkeypatch.setattr(Deployment, "describe", lambda _: next(states))
    make().wait_deleted()
    assert next(states, "all read") == "all read"


def test_what_is_not_as_the_template_says_fails_the_deployment(
    make: Make, monkeypatch: pytest.MonkeyPatch, databases: dict[str, str]
) -> None:
    monkeypatch.setattr("ops.stack.compare_stack", lambda *_: (25, ["Key.EnableKeyRotation: off"]))
    with pytest.raises(DeploymentFailed, match=r"Key\.EnableKeyRotation: off"):
        make().deploy(databases)


def test_a_region_outside_the_union_is_refused_before_any_call() -> None:
    with pytest.raises(ResidencyError, match="London"):
        AwsAccount("eu-west-2")


def test_a_certificate_is_kept_until_it_ends_soon(account: Account) -> None:
    bucket = account.server.make_bucket("certificates")
    s3, now = account.client("s3"), datetime.now(UTC)
    assert ensure_certificate(s3, bucket, "eu-west-1", now)
    assert not ensure_certificate(s3, bucket, "eu-west-1", now + timedelta(days=700))
    assert ensure_certificate(s3, bucket, "eu-west-1", now + timedelta(days=760))


def test_a_certificate_is_for_names_inside_the_region() -> None:
    from cryptography import x509

    content = make_certificate("eu-west-3", datetime(2026, 1, 1, tzinfo=UTC))
    assert expiry(content).year == 2028
    archive = zipfile.ZipFile(io.BytesIO(content))
    certificate = x509.load_pem_x509_certificate(archive.read("certificateChain.pem"))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["*.eu-west-3.compute.internal"]


# ---- and away with it ------------------------------------------------


@pytest.fixture
def filled(make: Make, databases: dict[str, str]) -> Deployment:
    """A whole deployment: versions, delete markers, an unfinished upload, a running cluster, a network."""
    deployment = make()
    outputs = deployment.deploy({"CreateVpc": PRIVATE, "AlarmEmail": "a@example.org", **databases})
    s3 = deployment.account.client("s3")
    for body in (b"1", b"2"):
        s3.put_object(Bucket=outputs["RawBucket"], Key="images/x.jpg", Body=body)
    s3.delete_object(Bucket=outputs["RawBucket"], Key="images/x.jpg")
    s3.put_object(Bucket=outputs["LakeBucket"], Key="tables/t", Body=b"t")
    s3.create_multipart_upload(Bucket=outputs["LakeBucket"], Key="models/half")
    deployment.account.server.run_job_flow(
        Name=f"fruits/{deployment.deployment_id}/fruits_pipeline/run",
        LogUri=f"s3://{outputs['LakeBucket']}/logs/",
        Instances={"TerminationProtected": True},
    )
    return deployment


def test_nothing_that_costs_is_left(filled: Deployment, lines: list[str]) -> None:
    with pytest.raises(DeploymentFailed, match="clusters: j-"):
        verify_removed(filled)
    removed = destroy(filled)
    assert "buckets: none" in removed
    assert len(removed) == 8
    assert stack_status(filled) is None
    assert any("3 objects and versions" in line for line in lines)
    with pytest.raises(ClientError):
        filled.account.client("s3").head_bucket(Bucket=f"fruits-{filled.deployment_id}-raw-123456789012-eu-west-1")


def tags(resource_type: str, **values: str) -> list[dict[str, Any]]:
    listed = [{"Key": key.replace("_", "-"), "Value": value} for key, value in values.items()]
    return [{"ResourceType": resource_type, "Tags": listed}]


@pytest.fixture
def leftovers(filled: Deployment) -> str:
    """What EMR leaves in a network: its endpoint, and groups whose rules refer to one another."""
    ec2 = filled.account.client("ec2")
    [vpc] = ec2.describe_vpcs(Filters=[{"Name": "tag:deployment", "Values": [filled.deployment_id]}])["Vpcs"]
    network = str(vpc["VpcId"])
    emrs = {TAG.replace("-", "_"): "true"}
    [subnet] = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [network]}])["Subnets"]
    ids = list(create_default_groups(ec2, network))
    outputs = filled.outputs()  # notebook clusters have run too
    add_rules(
        ec2,
        outputs["NotebookEmrManagedMasterSecurityGroup"],
        outputs["NotebookEmrManagedSlaveSecurityGroup"],
        outputs.get("NotebookServiceAccessSecurityGroup"),
    )
    ec2.create_vpc_endpoint(
        VpcId=network, VpcEndpointType="Interface", SubnetIds=[subnet["SubnetId"]], SecurityGroupIds=ids,
        ServiceName="com.amazonaws.eu-west-1.elasticmapreduce",
        TagSpecifications=tags("vpc-endpoint", Name="emr-service-vpce", **emrs),
    )  # fmt: skip
    return network


def test_what_emr_left_in_the_network_goes_with_it(filled: Deployment, leftovers: str, lines: list[str]) -> None:
    assert "networks: none" in destroy(filled)
    removed = [line for line in lines if "what EMR left" in line]
    assert removed[0].split(": ")[1].startswith("vpce-")
    assert removed[1].endswith("ElasticMapReduce-Primary, ElasticMapReduce-Core")
    with pytest.raises(ClientError, match="InvalidVpcID"):
        filled.account.client("ec2").describe_vpcs(VpcIds=[leftovers])


def test_what_a_person_made_in_the_network_is_left_alone(filled: Deployment, leftovers: str) -> None:
    ec2 = filled.account.client("ec2")
    own = ec2.create_security_group(GroupName="own", Description="own", VpcId=leftovers)["GroupId"]
    with pytest.raises(DeploymentFailed, match=f"DELETE_FAILED.*{own}"):
        destroy(filled)
    ec2.delete_security_group(GroupId=own)
    destroy(filled)


def test_a_no_removes_nothing(filled: Deployment, make: Make) -> None:
    with pytest.raises(Declined):
        destroy(make(answer=False))
    assert stack_status(filled) == "CREATE_COMPLETE"
    destroy(filled)


def test_an_interrupted_removal_goes_on(filled: Deployment) -> None:
    filled.account.client("cloudformation").delete_stack(StackName=filled.stack_name)
    assert "keys: none" in destroy(filled)


def test_where_there_is_nothing_nothing_is_asked(make: Make, lines: list[str]) -> None:
    destroy(make(answer=False))
    assert "There is nothing" in lines[0]


@pytest.mark.parametrize("kind", ["machines", "disks"])
def test_a_machine_that_is_left_is_told(make: Make, account: Account, deployment_id: str, kind: str) -> None:
    ec2 = account.client("ec2")
    tags = [{"Key": "deployment", "Value": deployment_id}]
    if kind == "disks":
        ec2.create_volume(
            AvailabilityZone="eu-west-1a", Size=1, TagSpecifications=[{"ResourceType": "volume", "Tags": tags}]
        )
    else:
        ec2.run_instances(
            ImageId=ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"], MinCount=1, MaxCount=1,
            InstanceType="m7g.xlarge", TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        )  # fmt: skip
    with pytest.raises(DeploymentFailed, match=kind):
        verify_removed(make())


# ---- as it is called ------------------------------------------------


@pytest.fixture
def environment(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": aws.endpoint, **KEYS.environment, "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setattr("ops.stack.Deployment.__init__.__defaults__", (0.05,))


@pytest.mark.usefixtures("environment")
def test_the_commands_one_after_the_other(
    deployment_id: str, databases: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["--deployment-id", deployment_id, "--region", "eu-north-1"]
    parameters = [f"--parameter={key}={value}" for key, value in databases.items()]
    assert command_line.main(["deploy", *call, "--yes", "--alarm-email", "none", *parameters]) == 0
    printed = capsys.readouterr().out
    assert f"FRUITS_LAKE_BUCKET=fruits-{deployment_id}-lake-123456789012-eu-north-1" in printed
    role = f"arn:aws:iam::123456789012:role/fruits-{deployment_id}-airflow-eu-north-1"
    assert f"FRUITS_AIRFLOW_ROLE={role}\n" in printed
    assert command_line.main(["verify", *call]) == 0
    assert "each is as include/stack.yaml says" in capsys.readouterr().out
    assert command_line.main(["destroy", *call, "--yes"]) == 0
    assert "Nothing that costs is left" in capsys.readouterr().out


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["deploy", "--yes"], "DEPLOYMENT_ID=name"),
        (["deploy", "--yes", "--deployment-id", "nobody"], "ALARM_EMAIL=address"),
        (["deploy", "--deployment-id", "nobody", "--alarm-email", "none"], "YES=1"),
        (["deploy", "--yes", "--deployment-id", "x", "--region", "us-east-1"], "us-east-1"),
        (["environment", "--upload", "--deployment-id", "nobody"], "run make deploy"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_told_and_changes_nothing(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FRUITS_DEPLOYMENT_ID", raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    monkeypatch.setattr(
        "ops.__main__.pack",
        lambda _: type("P", (), {"digest": "0", "path": TEMPLATE, "size_bytes": 0, "unpacked_bytes": 0}),
    )
    assert command_line.main(arguments) == 1
    assert message in capsys.readouterr().err
