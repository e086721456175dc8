"""The settings of the server, and its command line."""

import argparse
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


class SettingsError(Exception):
    """A setting that cannot work; the message says which and what to do."""


def _option(default: Any, meaning: str, kind: type | None = None) -> Any:
    return field(default=default, metadata={"meaning": meaning, "kind": kind or type(default)})


@dataclass(frozen=True)
class Settings:
    """The settings; each is an option of the command line.

    Raises:
        SettingsError: The host is not a loopback address, or a number is out of range.
    """

    host: str = _option("127.0.0.1", "loopback address to listen on")
    port: int = _option(5600, "TCP port; 0 takes any free port")
    state_dir: Path = _option(Path("build/aws"), "logs and scratch space, for one server at a time")
    spark_python: Path = _option(Path(".venv-node/bin/python"), "Python that has pyspark; runs the steps")
    spark_submit: Path | None = _option(
        None, "program for the steps' spark-submit calls, for tests; None: beside --spark-python", Path
    )
    java_home: Path | None = _option(None, "JDK 17 or 21 for Spark; None: the java on the PATH", Path)
    jars_dir: Path = _option(Path(".cache/jars"), "the Iceberg jars and the archive of their classes")
    master: str = _option("local[2]", "Spark master of the steps; yarn: a cluster of YARN on this machine")
    ui_port: int = _option(4040, "spark.ui.port of each step")
    start_seconds: float = _option(2.0, "how long a cluster is STARTING")
    bootstrap_seconds: float = _option(1.0, "how long a cluster is BOOTSTRAPPING")
    terminate_seconds: float = _option(1.0, "how long a cluster is TERMINATING after the end of its steps")
    kill_seconds: float = _option(5.0, "how long a step may take to end after SIGTERM")
    idle_scale: float = _option(1.0, "factor on idle timeouts, for tests")
    threads: int = _option(16, "threads that answer requests")
    vcpus: float = _option(64.0, "EC2's quota of vCPUs, on demand and spot each; a new account of AWS has 5")

    def __post_init__(self) -> None:
        if not is_loopback(self.host):
            raise SettingsError(
                f"--host {self.host}: local_aws listens on loopback only, because its steps run any command "
                "they are given. Use 127.0.0.1, ::1 or localhost."
            )
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"--port {self.port}: not a TCP port (0 to 65535; 0 takes any free one).")
        for name in ("start_seconds", "bootstrap_seconds", "terminate_seconds", "kill_seconds", "idle_scale"):
            if getattr(self, name) < 0:
                raise SettingsError(f"--{name.replace('_', '-')} {getattr(self, name)}: must not be negative.")


def is_loopback(host: str) -> bool:
    """Whether a host name or address (no port) can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def parse_command_line(argv: Sequence[str] | None = None) -> Settings:
    """Return the settings of a command line, by default of `sys.argv`.

    Raises:
        SettingsError: A value cannot work.
        SystemExit: argparse refuses an argument, or `--help`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m local_aws",
        description="S3, EMR, IAM, STS, Glue, KMS, EC2 and CloudFormation for this machine only. "
        "EMR steps run as processes of this machine. Nothing survives a restart.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for option in fields(Settings):
        name, meaning, kind = option.name.replace("_", "-"), option.metadata["meaning"], option.metadata["kind"]
        parser.add_argument(f"--{name}", type=kind, default=option.default, help=meaning)
    values = vars(parser.parse_args(argv))
    for name, value in values.items():
        if isinstance(value, Path):
            # absolute, not resolved: a virtual environment's python is a link, and following it leaves it
            values[name] = value.absolute()
    return Settings(**values)
