"""What is wrong with a cluster before it exists: the rules that a body of RunJobFlow must keep.

EMR takes most of these bodies and then costs money, loses a night or leaks data; so they are checked here, in tests,
by `plan`, and once more by `create_cluster` right before the request. Each rule is one function named for what it
wants, that gives sentences with the key, the value and the remedy; those for the machines are in machine_rules.py.

Sources: the API reference of RunJobFlow and of its types, the EMR management guide (instance fleets, managed scaling,
v2 managed policies, security configurations).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta

from fruits_airflow.config.errors import ClusterRefused, ConfigError, ResidencyError
from fruits_airflow.config.regions import require_eu_region
from fruits_airflow.config.releases import release
from fruits_airflow.emr.instance_rules import (
    application_masters,
    configured,
    executors_fit,
    fleets,
    instance_types,
    managed_scaling,
    primary_on_demand,
    spot_falls_back,
)
from fruits_airflow.emr.lint_types import Body, Found, Surroundings

POLICY_TAG = "for-use-with-amazon-emr-managed-policies"
REQUIRED_TAGS = ("project", "deployment", "dag", "run", "deadline", POLICY_TAG)
LONGEST_LIFE = timedelta(days=1)


def require_sound(body: Body, around: Surroundings) -> None:
    """Checks a body of RunJobFlow.

    Raises:
        ResidencyError: the region is not in the European Union.
        ClusterRefused: it breaks rules; the message names each.
    """
    require_eu_region(around.region)
    if found := lint(body, around):
        raise ClusterRefused("the cluster is refused: " + "; ".join(found))


def lint(body: Body, around: Surroundings) -> list[str]:
    """Every broken rule, as `rule: what, value, remedy`."""
    return [f"{rule.__name__}: {sentence}" for rule in RULES for sentence in rule(body, around)]


# ---- where, and until when ------------------------------------------------------------------------------------------


def eu_region(_body: Body, around: Surroundings) -> Found:
    """Data is processed in EU member states only."""
    try:
        require_eu_region(around.region)
    except ResidencyError as error:
        yield str(error)


def known_release(body: Body, around: Surroundings) -> Found:
    """A release that is known and supported, with the applications asked for."""
    try:
        known = release(body.get("ReleaseLabel", ""))
    except ConfigError as error:
        yield str(error)
        return
    if known.end_of_support < around.now.date():
        yield (
            f"ReleaseLabel {body['ReleaseLabel']} has no support since {known.end_of_support}; take a "
            "newer one"
        )
    for application in body.get("Applications", []):
        if application["Name"] not in known.applications:
            yield f"Applications: {body['ReleaseLabel']} has no {application['Name']}; leave it out"


def deadline(body: Body, around: Surroundings) -> Found:
    """A deadline that the janitor reads from a tag and the primary node's timer has armed."""
    tagged = _tags(body).get("deadline", "")
    try:
        moment = datetime.fromisoformat(tagged)
    except ValueError:
        yield f"the tag deadline is {tagged!r}, no time; the janitor could not end the cluster"
        return
    if moment.tzinfo is None or not around.now < moment <= around.now + LONGEST_LIFE:
        yield f"the tag deadline is {tagged}, not within {LONGEST_LIFE} from {around.now:%Y-%m-%dT%H:%MZ}"
    if f"--deadline={tagged}" not in _bootstrap_arguments(body):
        yield (
            "no bootstrap action arms --deadline with the time of the tag; the node's own timer would "
            "not end it"
        )


def idle_timeout(body: Body, _around: Surroundings) -> Found:
    """EMR itself ends what does nothing."""
    seconds = body.get("AutoTerminationPolicy", {}).get("IdleTimeout")
    if not isinstance(seconds, int) or not 60 <= seconds <= 604_800:
        yield f"AutoTerminationPolicy.IdleTimeout is {seconds!r}; EMR takes 60 to 604800 seconds"
    if body.get("Instances", {}).get("TerminationProtected"):
        yield (
            "Instances.TerminationProtected is on: nothing but a person could end the cluster; switch it off"
        )


# ---- who may do what ------------------------------------------------------------------------------------------------


def roles(body: Body, _around: Surroundings) -> Found:
    """The stack's two roles, not EMR's old defaults."""
    service, nodes = body.get("ServiceRole"), body.get("JobFlowRole")
    for key, value in (("ServiceRole", service), ("JobFlowRole", nodes)):
        if not value:
            yield f"{key} is not set; take it from the outputs of include/stack.yaml"
        elif value in ("EMR_DefaultRole", "EMR_EC2_DefaultRole"):
            yield f"{key} is {value}, EMR's first default, which may nearly everything; take the stack's"
    if service and service == nodes:
        yield f"ServiceRole and JobFlowRole are both {service}: the nodes must not have EMR's rights"


def network(body: Body, _around: Surroundings) -> Found:
    """A subnet, since EMR takes the account's default VPC otherwise."""
    if not body.get("Instances", {}).get("Ec2SubnetIds"):
        yield (
            f"Instances.Ec2SubnetIds is not set: EMR would take the account's default VPC, which lacks the tag "
            f"{POLICY_TAG} that its service role requires; set subnet_id to the stack's output SubnetId"
        )


def tags(body: Body, _around: Surroundings) -> Found:
    """What janitor, bill and IAM conditions go by."""
    present = _tags(body)
    for name in REQUIRED_TAGS:
        if not present.get(name):
            yield f"the tag {name} is missing; janitor, cost report and IAM conditions go by it"
    if present.get(POLICY_TAG, "true") != "true":
        yield f"the tag {POLICY_TAG} is {present[POLICY_TAG]!r}; the v2 service role acts only on 'true'"


def encryption(body: Body, around: Surroundings) -> Found:
    """Disks and traffic are encrypted."""
    if not body.get("SecurityConfiguration"):
        yield (
            "SecurityConfiguration is not set: disks and traffic would not be encrypted; take the "
            "stack's output"
        )
    if around.security is None:
        return
    wanted = around.security.get("EncryptionConfiguration", {})
    for key in ("EnableAtRestEncryption", "EnableInTransitEncryption"):
        if not wanted.get(key):
            yield f"SecurityConfiguration {body.get('SecurityConfiguration')}: {key} is off; switch it on"
    disks = wanted.get("AtRestEncryptionConfiguration", {}).get("LocalDiskEncryptionConfiguration", {})
    if wanted.get("EnableAtRestEncryption") and not disks.get("EnableEbsEncryption"):
        yield (
            "SecurityConfiguration: EnableEbsEncryption is off: root volumes would not be encrypted; "
            "switch it on"
        )


def instance_metadata(_body: Body, around: Surroundings) -> Found:
    """Version 2 of the metadata service only."""
    if around.security is None:
        return
    settings = around.security.get("InstanceMetadataServiceConfiguration", {})
    if settings.get("MinimumInstanceMetadataServiceVersion") != 2:
        yield (
            "SecurityConfiguration: MinimumInstanceMetadataServiceVersion is not 2; version 1 gives a "
            "node's keys to any forged request"
        )


# ---- what is kept and shipped ------------------------------------------------------------------------------------


def log_uri(body: Body, around: Surroundings) -> Found:
    """Logs lie where they are looked for, and expire."""
    if body.get("LogUri") != (wanted := f"s3://{around.lake_bucket}/logs/"):
        yield (
            f"LogUri is {body.get('LogUri')!r}; {wanted} is what expires, and where step logs are looked for"
        )


def libraries(body: Body, around: Surroundings) -> Found:
    """Libraries come from our bucket, by digest."""
    environments = [a for a in _bootstrap_arguments(body) if a.startswith("--environment=")]
    if around.preinstalled:
        return
    pattern = rf"--environment=s3://{re.escape(around.lake_bucket)}/env/[0-9a-f]{{64}}/environment\.tar\.gz"
    if len(environments) != 1 or not re.fullmatch(pattern, environments[0]):
        yield (
            f"node_environment: the nodes get {environments or 'no libraries'}; run make environment and set the "
            "digest that it prints, or 'preinstalled' where the image of the nodes has them"
        )


def spark_settings(body: Body, around: Surroundings) -> Found:
    """The Spark settings that a run relies on."""
    properties = configured(body, "spark-defaults")
    if (attempts := properties.get("spark.yarn.maxAppAttempts")) != "2":
        yield f"spark.yarn.maxAppAttempts is {attempts}: a lost application master would end the step; set 2"
    if "spark.pyspark.python" not in properties:
        yield "spark.pyspark.python is not set: workers would take the PATH's python3, without our libraries"
    if properties.get("spark.sql.catalog.lake.warehouse") != f"s3://{around.lake_bucket}/tables":
        yield f"spark.sql.catalog.lake.warehouse is not s3://{around.lake_bucket}/tables"


# ---- EMR's own limits -----------------------------------------------------------------------------------------------


def step_failures(body: Body, _around: Surroundings) -> Found:
    """Steps run one by one, or go on beside a failed one."""
    level = body.get("StepConcurrencyLevel", 1)
    if not 1 <= level <= 256:
        yield f"StepConcurrencyLevel is {level}; EMR takes 1 to 256"
    for step in body.get("Steps", []):
        if level > 1 and step.get("ActionOnFailure") != "CONTINUE":
            yield f"step {step.get('Name')}: ActionOnFailure must be CONTINUE with {level} steps at once"
    if level > 1:
        yield (
            f"StepConcurrencyLevel is {level}: a stage reads what the one before committed, and our steps "
            "cancel the next"
        )


def limits(body: Body, _around: Surroundings) -> Found:
    """EMR's own limits on names and numbers."""
    if not 0 < len(body.get("Name", "")) <= 256:
        yield f"Name has {len(body.get('Name', ''))} characters; EMR takes 1 to 256"
    if len(body.get("BootstrapActions", [])) > 16:
        yield f"{len(body['BootstrapActions'])} bootstrap actions; EMR takes 16"
    if len(body.get("Steps", [])) > 256:
        yield f"{len(body['Steps'])} steps; EMR takes 256"
    if len(body.get("Tags", [])) > 50:
        yield f"{len(body['Tags'])} tags; AWS takes 50"
    for tag in body.get("Tags", []):
        if len(tag["Key"]) > 128 or len(tag["Value"]) > 256 or tag["Key"].lower().startswith("aws:"):
            yield (
                f"tag {tag['Key'][:128]!r}: 128 characters for a key that does not begin with aws:, 256 "
                "for a value"
            )
    for configuration in body.get("Configurations", []):
        for key, value in configuration.get("Properties", {}).items():
            if not isinstance(value, str):
                yield (
                    f"Configurations {configuration['Classification']}: {key} is {value!r}; EMR takes strings"
                )


RULES: tuple[Callable[[Body, Surroundings], Found], ...] = (
    *(eu_region, known_release, deadline, idle_timeout, roles, tags, encryption, instance_metadata, log_uri),
    *(libraries, spark_settings, executors_fit, instance_types, fleets, primary_on_demand, spot_falls_back),
    *(managed_scaling, application_masters, step_failures, limits),
    network,
)


def _tags(body: Body) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in body.get("Tags", [])}


def _bootstrap_arguments(body: Body) -> list[str]:
    actions = [action["ScriptBootstrapAction"] for action in body.get("BootstrapActions", [])]
    return [argument for action in actions for argument in action.get("Args", [])]
