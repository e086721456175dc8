"""Translate a step's arguments for EMR's command-runner.jar to the command that runs on this machine.

Options that make sense only on a cluster (`--master yarn`, `--deploy-mode`) are translated. Everything else is passed
on in its order. The functions are pure but for `fetch`, a parameter that turns an `s3://` URI into a local path.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Fetch = Callable[[str], Path | str]

_S3_URI = re.compile(r"s3[an]?://")
# Options of spark-submit that take no value (SparkSubmitOptionParser.switches).
_SWITCHES = frozenset({"--help", "-h", "--verbose", "-v", "--version", "--usage-error", "--supervise"})
# Options and configuration keys whose value is a comma-separated list of files that Spark fetches itself. This
# machine has no S3 file system, so the files are fetched before.
_FILE_OPTIONS = frozenset({"--py-files", "--files", "--jars", "--archives", "--properties-file"})
_FILE_KEYS = frozenset({"spark.submit.pyFiles", "spark.files", "spark.jars", "spark.archives"})
# Configuration that refers to services of a cluster.
_CLUSTER_ONLY = re.compile(r"spark\.(eventLog|history|ui\.proxyBase|driver\.host)\b")
# The cores of the whole cluster; those of `local[n]` are Spark's own default.
_CLUSTER_SIZE = "spark.default.parallelism"
# Interpreters of the node; the interpreter that has pyspark replaces them.
_INTERPRETER_KEYS = frozenset(
    {"spark.pyspark.python", "spark.pyspark.driver.python", "spark.executorEnv.PYSPARK_PYTHON"}
)
_GLUE_CATALOG = re.compile(r"spark\.sql\.catalog\.(\w+)\.type")
YARN = "yarn"
COMMAND_RUNNER = "command-runner.jar"
SCRIPT_RUNNER = "script-runner.jar"


class StepNotRunnable(Exception):
    """A step that cannot be started here or on EMR; the message goes to its stderr and FailureDetails."""


@dataclass(frozen=True)
class SparkInstallation:
    """The Spark of this machine."""

    spark_submit: str  # path of the program
    python: str  # interpreter that has pyspark, in place of the interpreter in a cluster's configuration
    master: str  # Spark master
    ui_port: int  # `spark.ui.port`
    endpoint: str  # URL of this server
    region: str  # region of the cluster
    iceberg_jars: tuple[str, ...] = ()  # jars in place of EMR's built-in Iceberg; empty when not cached
    class_archive: str | None = None  # Java's shared archive (CDS) of the classes of a driver with just these jars
    defaults: Mapping[str, str] = field(default_factory=dict)  # Spark's configuration of a node, below the cluster's


@dataclass
class Command:
    """A command for this machine."""

    argv: list[str]  # program and arguments
    deploy_mode: str = "client"  # `client` or `cluster`, as the step requests; the command always runs as client
    notes: list[str] = field(default_factory=list)  # what was translated, for the controller log


def build(
    jar: str,
    args: Sequence[str],
    classifications: Sequence[Mapping[str, Any]],
    installation: SparkInstallation,
    fetch: Fetch,
) -> Command:
    """Return the local command of a step, from its `HadoopJarStep` and the cluster's `Configurations`.

    Raises:
        StepNotRunnable: The jar does not run here, or there is no command.
    """
    name = jar.rsplit("/", 1)[-1]
    if name not in (COMMAND_RUNNER, SCRIPT_RUNNER):
        raise StepNotRunnable(f"local_aws runs {COMMAND_RUNNER} and {SCRIPT_RUNNER} steps, not {jar!r}.")
    if not args:
        raise StepNotRunnable(f"{name} needs a command in Args.")
    if name == SCRIPT_RUNNER:
        return Command(["bash", str(fetch(args[0])), *args[1:]])
    if args[0] == "spark-submit":
        return _spark_submit(list(args[1:]), properties(classifications), installation, fetch)
    return Command(list(args))


def properties(classifications: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the properties of each classification of a cluster's `Configurations`."""
    return {str(item.get("Classification")): dict(item.get("Properties") or {}) for item in classifications}


def exports(classifications: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return what `spark-env` exports, without interpreters and JDK, which are those of this machine."""
    variables: dict[str, str] = {}
    for item in classifications:
        if item.get("Classification") == "spark-env":
            variables |= properties(item.get("Configurations") or []).get("export", {})
    return {key: value for key, value in variables.items() if "PYTHON" not in key and key != "JAVA_HOME"}


def _spark_submit(
    args: list[str], configured: dict[str, dict[str, str]], installation: SparkInstallation, fetch: Fetch
) -> Command:
    options, application = _split(args)
    command = Command([])
    conf = {**installation.defaults, **configured.get("spark-defaults", {})}
    if installation.master == YARN:
        fetch = str  # Spark has an S3 file system there
    passed: list[str] = []
    class_path: list[str] = []
    for name, value in options:
        if name == "--master":
            command.notes.append(f"--master {value} runs as {installation.master}")
        elif name == "--deploy-mode":
            command.deploy_mode = value or ""
            command.notes.append(f"--deploy-mode {value} runs as client")
        elif name in ("--conf", "-c"):
            key, _, setting = (value or "").partition("=")
            conf[key] = setting
        elif name == "--driver-class-path":
            class_path.append(value or "")
        elif name in _FILE_OPTIONS:
            passed += [name, _localize(value or "", fetch)]
        else:
            passed += [name] if value is None else [name, value]
    if configured.get("iceberg-defaults", {}).get("iceberg.enabled", "").lower() == "true":
        if not installation.iceberg_jars:
            raise StepNotRunnable(
                "iceberg.enabled=true, but the Iceberg jars are not in the jars folder: run make setup."
            )
        class_path += installation.iceberg_jars
    if application:
        application = [
            str(fetch(application[0])) if _S3_URI.match(application[0]) else application[0],
            *application[1:],
        ]
    conf = _local_conf(conf, installation, command.notes, fetch)
    if node_class_path := conf.pop("spark.driver.extraClassPath", ""):
        class_path.append(node_class_path)
    if installation.class_archive and class_path == list(installation.iceberg_jars):
        options_before = conf.get("spark.driver.defaultJavaOptions", "")
        shared = f'-Xlog:cds*=error -XX:SharedArchiveFile="{installation.class_archive}"'
        conf["spark.driver.defaultJavaOptions"] = f"{options_before} {shared}".strip()
    command.argv = [installation.spark_submit, "--master", installation.master]
    for key, setting in conf.items():
        command.argv += ["--conf", f"{key}={setting}"]
    if class_path:
        command.argv += ["--driver-class-path", ":".join(class_path)]
    command.argv += [*passed, *application]
    return command


def _split(args: list[str]) -> tuple[list[tuple[str, str | None]], list[str]]:
    """Split spark-submit's arguments into its options and the application with its own arguments."""
    options: list[tuple[str, str | None]] = []
    at = 0
    while at < len(args) and args[at].startswith("-"):
        name, equals, value = args[at].partition("=")
        if name in _SWITCHES:
            options.append((args[at], None))
        elif equals and name.startswith("--"):
            options.append((name, value))
        else:
            at += 1
            options.append((args[at - 1], args[at] if at < len(args) else None))
        at += 1
    return options, args[at:]


def _localize(value: str, fetch: Fetch) -> str:
    """Replace each S3 URI of a comma-separated list of files by its local copy; `#alias` stays."""
    parts = []
    for part in value.split(","):
        uri, hash_sign, alias = part.partition("#")
        parts.append(f"{fetch(uri)}{hash_sign}{alias}" if _S3_URI.match(uri) else part)
    return ",".join(parts)


def _local_conf(
    conf: dict[str, str], installation: SparkInstallation, notes: list[str], fetch: Fetch
) -> dict[str, str]:
    local = {
        key: _localize(value, fetch) if key in _FILE_KEYS else value
        for key, value in conf.items()
        if not _CLUSTER_ONLY.match(key) and not (key == _CLUSTER_SIZE and installation.master.startswith("local["))
    }
    if dropped := sorted(conf.keys() - local.keys()):
        notes.append(f"only on a cluster, left out: {', '.join(dropped)}")
    for name in ("spark.master", "spark.submit.deployMode"):
        local.pop(name, None)
    local |= dict.fromkeys(_INTERPRETER_KEYS & local.keys(), installation.python)
    for key, value in conf.items():
        catalog = _GLUE_CATALOG.fullmatch(key)
        if catalog and value == "glue":
            prefix = f"spark.sql.catalog.{catalog[1]}"
            local |= {
                f"{prefix}.glue.endpoint": installation.endpoint,
                f"{prefix}.s3.endpoint": installation.endpoint,
                f"{prefix}.s3.path-style-access": "true",
                # the catalog may be in another region than the cluster
                f"{prefix}.client.region": conf.get(f"{prefix}.client.region", installation.region),
            }
    return {
        "spark.ui.port": str(installation.ui_port),
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        # other users of this machine reach the driver's port, whose messages are Java objects
        "spark.authenticate": "true",
        "spark.ui.killEnabled": "false",
        # in short jobs on few cores the second compiler and a parallel collector take half of the processor time
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        **local,
    }
