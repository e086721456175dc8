"""The values `local_aws` runs with, and the command line that sets them."""

from __future__ import annotations

import argparse
import ipaddress
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class SettingsError(Exception):
    """A value that `local_aws` cannot run with; the message says which and what to do."""


@dataclass(frozen=True)
class Settings:
    """What `local_aws` runs with.

    Attributes:
        host: a loopback address; anything else is refused.
        port: TCP port; 0 takes any free one.
        state_dir: logs, scratch space and large objects; one server at a time.
        spark_python: the interpreter of the environment that has pyspark; steps run with it.
        spark_submit: what runs a step's spark-submit; None takes the one beside spark_python.
        faults: whether a test may arm faults over HTTP.
        java_home: a JDK for Spark; None takes the `java` on the PATH.
        jars_dir: where the two Iceberg jars are cached, and the archive of classes that belongs to them.
        master: Spark master that stands for YARN.
        ui_port: `spark.ui.port` of each step, so that its progress can be read.
        start_seconds: how long a cluster is STARTING.
        bootstrap_seconds: how long a cluster is BOOTSTRAPPING.
        terminate_seconds: how long a cluster is TERMINATING, once its steps have ended.
        kill_seconds: what a step gets to end by itself after SIGTERM, before SIGKILL.
        idle_scale: factor on the IdleTimeout of auto-termination policies (tests do not wait a minute).
        threads: threads that answer requests.
    """

    host: str = "127.0.0.1"
    port: int = 5600
    state_dir: Path = Path("build/aws")
    spark_python: Path = Path(".venv-node/bin/python")
    spark_submit: Path | None = None
    faults: bool = False
    java_home: Path | None = None
    jars_dir: Path = Path(".cache/jars")
    master: str = "local[2]"
    ui_port: int = 4040
    start_seconds: float = 2.0
    bootstrap_seconds: float = 1.0
    terminate_seconds: float = 1.0
    kill_seconds: float = 5.0
    idle_scale: float = 1.0
    threads: int = 16

    def __post_init__(self) -> None:
        """Refuses what cannot work.

        Raises:
            SettingsError: the host is not a loopback address, or a number is out of range.
        """
        if not is_loopback(self.host):
            raise SettingsError(
                f"--host {self.host}: local_aws listens on loopback only, because its steps run any command "
                "they are given. Use 127.0.0.1, ::1 or localhost."
            )
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"--port {self.port}: not a TCP port (0 to 65535; 0 takes any free one).")
        for name in ("start_seconds", "bootstrap_seconds", "terminate_seconds", "kill_seconds", "idle_scale"):
            if getattr(self, name) < 0:
                raise SettingsError(
                    f"--{name.replace('_', '-')} {getattr(self, name)}: must not be negative."
                )


def is_loopback(host: str) -> bool:
    """Whether a host name or address (no port) can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def parse_command_line(argv: Sequence[str] | None = None) -> Settings:
    """Settings from the command line.

    Args:
        argv: arguments without the program's name; None takes `sys.argv`.

    Raises:
        SettingsError: a value that cannot work.
        SystemExit: an argument that argparse refuses, or `--help`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m local_aws",
        description="S3, EMR, IAM, STS, Glue, KMS, EC2 and CloudFormation for this machine only. "
        "EMR steps really run, as processes of this machine. Nothing survives a restart.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    default = Settings()
    parser.add_argument("--host", default=default.host, help="loopback address to listen on")
    parser.add_argument("--port", type=int, default=default.port, help="port; 0 takes any free one")
    parser.add_argument("--state-dir", type=Path, default=default.state_dir, help="logs and scratch space")
    parser.add_argument(
        "--spark-python",
        type=Path,
        default=default.spark_python,
        help="Python that has pyspark; runs the steps",
    )
    parser.add_argument(
        "--spark-submit",
        type=Path,
        default=default.spark_submit,
        help="program that gets the steps' spark-submit calls, for tests",
    )
    parser.add_argument(
        "--faults", action="store_true", help="let a test arm faults (local_aws/faults); for tests only"
    )
    parser.add_argument("--java-home", type=Path, default=default.java_home, help="JDK 17 or 21 for Spark")
    parser.add_argument(
        "--jars-dir", type=Path, default=default.jars_dir, help="the Iceberg jars and their classes"
    )
    parser.add_argument("--master", default=default.master, help="Spark master that stands for YARN")
    parser.add_argument("--ui-port", type=int, default=default.ui_port, help="port of a step's Spark UI")
    parser.add_argument("--threads", type=int, default=default.threads, help="threads that answer requests")
    for name, what in (
        ("start", "a cluster is STARTING"),
        ("bootstrap", "a cluster is BOOTSTRAPPING"),
        ("terminate", "a cluster is TERMINATING"),
        ("kill", "a step may take to end after SIGTERM"),
    ):
        parser.add_argument(
            f"--{name}-seconds",
            type=float,
            default=getattr(default, f"{name}_seconds"),
            help=f"how long {what}",
        )
    parser.add_argument(
        "--idle-scale", type=float, default=default.idle_scale, help="factor on idle timeouts, for tests"
    )
    arguments = vars(parser.parse_args(argv))
    for name in ("state_dir", "spark_python", "spark_submit", "java_home", "jars_dir"):
        if arguments[name] is not None:
            # absolute, not resolved: a virtual environment's python is a link, and following it leaves it
            arguments[name] = arguments[name].absolute()
    return Settings(**arguments)


def find_java(settings: Settings) -> Path | None:
    """The `java` that Spark will run, or None when there is none."""
    if settings.java_home is not None:
        java = settings.java_home / "bin" / "java"
        return java if java.exists() else None
    found = shutil.which("java")
    return Path(found) if found else None
