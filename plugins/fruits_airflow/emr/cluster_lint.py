"""Rules that a body of RunJobFlow must keep, checked before a cluster exists.

EMR accepts most bodies that break a rule, and the cluster then costs money, fails overnight or leaks data. Hence the
rules are checked in tests, by `plan`, and by `create_cluster` right before the request. A rule is a function that
yields problems: the key, the value and the remedy. The rules for instances are in instance_rules.py.

Sources: the API reference of RunJobFlow and of its types, the EMR management guide (instance fleets, managed scaling,
v2 managed policies, security configurations).
"""

import re
from collections.abc import Callable
from datetime import datetime, timedelta

from fruits_airflow.config.errors import ClusterRefused, ConfigError, ResidencyError
from fruits_airflow.config.regions import require_eu_region
from fruits_airflow.config.releases import release
from fruits_airflow.emr.instance_rules import (
    application_masters,
    executors_fit,
    fleets,
    instance_types,
    managed_scaling,
    primary_on_demand,
    spot_falls_back,
)
from fruits_airflow.emr.lint_facts import Body, ClusterFacts, LintContext, Problems

POLICY_TAG = "for-use-with-amazon-emr-managed-policies"
REQUIRED_TAGS = ("project", "deployment", "dag", "run", "deadline", POLICY_TAG)
LONGEST_LIFE = timedelta(days=1)
_DEFAULT_ROLES = ("EMR_DefaultRole", "EMR_EC2_DefaultRole")
_LONGEST_LISTS = {"BootstrapActions": 16, "Steps": 256, "Tags": 50}


def require_sound(body: Body, context: LintContext) -> None:
    """Check a body of RunJobFlow.

    Raises:
        ResidencyError: The region is not in the European Union.
        ClusterRefused: The body breaks rules; the message names each.
    """
    require_eu_region(context.region)
    if problems := lint(body, context):
        raise ClusterRefused("the cluster is refused: " + "; ".join(problems))


def lint(body: Body, context: LintContext) -> list[str]:
    """Return every problem as `rule: key, value, remedy`."""
    cluster = ClusterFacts(body, context)
    return [f"{rule.__name__}: {problem}" for rule in RULES for problem in rule(cluster)]


def eu_region(cluster: ClusterFacts) -> Problems:
    """Require a region in a member state of the European Union."""
    try:
        require_eu_region(cluster.context.region)
    except ResidencyError as error:
        yield str(error)


def known_release(cluster: ClusterFacts) -> Problems:
    """Require a known, supported release that contains the applications."""
    label = cluster.body.get("ReleaseLabel", "")
    try:
        known = release(label)
    except ConfigError as error:
        yield str(error)
        return
    if known.end_of_support < cluster.context.now.date():
        yield f"ReleaseLabel {label} has no support since {known.end_of_support}; use a newer release"
    for application in cluster.body.get("Applications", []):
        if application["Name"] not in known.applications:
            yield f"Applications: {label} does not contain {application['Name']}; remove it"


def deadline(cluster: ClusterFacts) -> Problems:
    """Require a deadline, as a tag for the janitor and as an argument for the timer of the primary node."""
    tag, now = cluster.tags.get("deadline", ""), cluster.context.now
    try:
        moment = datetime.fromisoformat(tag)
    except ValueError:
        yield f"the tag deadline is {tag!r}, which is no time: the janitor could not end the cluster"
        return
    if moment.tzinfo is None or not now < moment <= now + LONGEST_LIFE:
        yield f"the tag deadline is {tag}, which is not within {LONGEST_LIFE} from {now:%Y-%m-%dT%H:%MZ}"
    if f"--deadline={tag}" not in cluster.bootstrap_arguments:
        yield "no bootstrap action has the argument --deadline with the time of the tag: the node would not end itself"


def idle_timeout(cluster: ClusterFacts) -> Problems:
    """Require that EMR ends an idle cluster."""
    seconds = cluster.body.get("AutoTerminationPolicy", {}).get("IdleTimeout")
    if not isinstance(seconds, int) or not 60 <= seconds <= 604_800:
        yield f"AutoTerminationPolicy.IdleTimeout is {seconds!r}; EMR accepts 60 to 604800 seconds"
    if cluster.body.get("Instances", {}).get("TerminationProtected"):
        yield "Instances.TerminationProtected is on: only a person could end the cluster; switch it off"


def roles(cluster: ClusterFacts) -> Problems:
    """Require the two roles of the stack."""
    service, nodes = cluster.body.get("ServiceRole"), cluster.body.get("JobFlowRole")
    for key, value in (("ServiceRole", service), ("JobFlowRole", nodes)):
        if not value:
            yield f"{key} is not set; set the output of include/stack.yaml"
        elif value in _DEFAULT_ROLES:
            yield f"{key} is {value}, EMR's old default, which allows nearly everything; set the output of the stack"
    if service and service == nodes:
        yield f"ServiceRole and JobFlowRole are both {service}: the nodes must not have EMR's permissions"


def network(cluster: ClusterFacts) -> Problems:
    """Require a subnet."""
    if not cluster.body.get("Instances", {}).get("Ec2SubnetIds"):
        yield (
            "Instances.Ec2SubnetIds is not set: EMR would use the account's default VPC, which lacks the tag "
            f"{POLICY_TAG} that its service role requires; set subnet_id to the stack's output SubnetId"
        )


def tags(cluster: ClusterFacts) -> Problems:
    """Require the tags that the janitor, the cost report and IAM conditions read."""
    for name in REQUIRED_TAGS:
        if not cluster.tags.get(name):
            yield f"the tag {name} is missing; the janitor, the cost report and IAM conditions read it"
    if (policy := cluster.tags.get(POLICY_TAG, "true")) != "true":
        yield f"the tag {POLICY_TAG} is {policy!r}; the v2 service role requires 'true'"


def encryption(cluster: ClusterFacts) -> Problems:
    """Require encryption of disks and traffic."""
    name, security = cluster.body.get("SecurityConfiguration"), cluster.context.security
    if not name:
        yield "SecurityConfiguration is not set: disks and traffic would not be encrypted; set the stack's output"
    if security is None:
        return
    settings = security.get("EncryptionConfiguration", {})
    disks = settings.get("AtRestEncryptionConfiguration", {}).get("LocalDiskEncryptionConfiguration", {})
    switches = {"EnableAtRestEncryption": settings, "EnableInTransitEncryption": settings}
    for key, holder in {**switches, "EnableEbsEncryption": disks}.items():
        if not holder.get(key):
            yield f"SecurityConfiguration {name}: {key} is off; switch it on"


def instance_metadata(cluster: ClusterFacts) -> Problems:
    """Require version 2 of the instance metadata service."""
    if cluster.context.security is None:
        return
    settings = cluster.context.security.get("InstanceMetadataServiceConfiguration", {})
    if settings.get("MinimumInstanceMetadataServiceVersion") != 2:
        yield (
            "SecurityConfiguration: MinimumInstanceMetadataServiceVersion is not 2: version 1 returns a node's "
            "credentials to any forged request; set 2"
        )


def log_uri(cluster: ClusterFacts) -> Problems:
    """Require the log folder whose objects expire and where the sensors look for step logs."""
    actual, required = cluster.body.get("LogUri"), f"s3://{cluster.context.lake_bucket}/logs/"
    if actual != required:
        yield f"LogUri is {actual!r}; set {required}, where objects expire and step logs are read"


def libraries(cluster: ClusterFacts) -> Problems:
    """Require libraries from the lake bucket, by digest."""
    if cluster.context.preinstalled:
        return
    environments = [a for a in cluster.bootstrap_arguments if a.startswith("--environment=")]
    bucket = re.escape(cluster.context.lake_bucket)
    pattern = rf"--environment=s3://{bucket}/env/[0-9a-f]{{64}}/environment\.tar\.gz"
    if len(environments) != 1 or not re.fullmatch(pattern, environments[0]):
        yield (
            f"node_environment: the nodes get {environments or 'no libraries'}; run make environment and set the "
            "digest that it prints, or 'preinstalled' if the image of the nodes contains them"
        )


def spark_settings(cluster: ClusterFacts) -> Problems:
    """Require the Spark settings that a run relies on."""
    properties = cluster.properties("spark-defaults")
    if (attempts := properties.get("spark.yarn.maxAppAttempts")) != "2":
        yield f"spark.yarn.maxAppAttempts is {attempts}: a lost application master would end the step; set 2"
    if "spark.pyspark.python" not in properties:
        yield "spark.pyspark.python is not set: executors would run the PATH's python3 without the libraries; set it"
    warehouse = f"s3://{cluster.context.lake_bucket}/tables"
    if properties.get("spark.sql.catalog.lake.warehouse") != warehouse:
        yield f"spark.sql.catalog.lake.warehouse is not {warehouse}; set it"


def step_failures(cluster: ClusterFacts) -> Problems:
    """Require steps in sequence."""
    level = cluster.body.get("StepConcurrencyLevel", 1)
    if not 1 <= level <= 256:
        yield f"StepConcurrencyLevel is {level}; EMR accepts 1 to 256"
    if level > 1:
        yield f"StepConcurrencyLevel is {level}: a stage reads what the previous stage committed; set 1"
        for step in cluster.body.get("Steps", []):
            if step.get("ActionOnFailure") != "CONTINUE":
                yield f"step {step.get('Name')}: ActionOnFailure must be CONTINUE with {level} concurrent steps"


def limits(cluster: ClusterFacts) -> Problems:
    """Require sizes and types within the limits of the API."""
    if not 0 < (length := len(cluster.body.get("Name", ""))) <= 256:
        yield f"Name has {length} characters; EMR accepts 1 to 256"
    for key, longest in _LONGEST_LISTS.items():
        if (count := len(cluster.body.get(key, []))) > longest:
            yield f"{key} has {count} entries; EMR accepts {longest}"
    for key, value in cluster.tags.items():
        if len(key) > 128 or len(value) > 256 or key.lower().startswith("aws:"):
            yield f"tag {key[:128]!r}: a key has up to 128 characters and no prefix aws:, a value up to 256"
    for configuration in cluster.body.get("Configurations", []):
        for key, value in configuration.get("Properties", {}).items():
            if not isinstance(value, str):
                yield f"Configurations {configuration['Classification']}: {key} is {value!r}; EMR accepts strings"


RULES: tuple[Callable[[ClusterFacts], Problems], ...] = (
    *(eu_region, known_release, deadline, idle_timeout, roles, tags, encryption, instance_metadata, log_uri),
    *(libraries, spark_settings, executors_fit, instance_types, fleets, primary_on_demand, spot_falls_back),
    *(managed_scaling, application_masters, step_failures, limits, network),
)
