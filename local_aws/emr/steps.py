"""A step: what was asked for, what became of it, and the process that runs it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from local_aws.emr.execution import command
from local_aws.emr.ids import new_id

if TYPE_CHECKING:
    from local_aws.emr.cluster import Cluster

ACTIVE = ("PENDING", "RUNNING", "CANCEL_PENDING")
_ERROR_LINE = re.compile(r"(Exception in thread|ERROR \w+:|[\w.]*(Error|Exception)\b)")


@dataclass
class Step:
    """One step of a cluster, in the words of EMR's API.

    Attributes:
        config: `StepConfig` as it was sent.
        id: `s-…`.
        state: PENDING, RUNNING, CANCEL_PENDING, COMPLETED, FAILED or CANCELLED.
        message: `StateChangeReason.Message`.
        failure: `FailureDetails` of a FAILED step.
    """

    config: dict[str, Any]
    id: str = field(default_factory=lambda: new_id("s"))
    state: str = "PENDING"
    message: str = ""
    failure: dict[str, str] | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: datetime | None = None
    ended: datetime | None = None
    execution: Execution | None = None

    @property
    def action_on_failure(self) -> str:
        """What a failure of this step does to the cluster."""
        return str(self.config.get("ActionOnFailure") or "TERMINATE_CLUSTER")

    def end(self, state: str, message: str = "") -> None:
        """Sets a final state."""
        self.state, self.message, self.ended = state, message, datetime.now(UTC)

    def describe(self) -> dict[str, Any]:
        """`Step` as DescribeStep and ListSteps give it."""
        jar: dict[str, Any] = self.config["HadoopJarStep"]
        status: dict[str, Any] = {
            "State": self.state,
            "StateChangeReason": {"Message": self.message} if self.message else {},
            "Timeline": {
                "CreationDateTime": self.created,
                "StartDateTime": self.started,
                "EndDateTime": self.ended,
            },
        }
        if self.failure:
            status["FailureDetails"] = self.failure
        return {
            "Id": self.id,
            "Name": self.config["Name"],
            "Config": {
                "Jar": jar.get("Jar"),
                "Properties": {one["Key"]: one["Value"] for one in jar.get("Properties") or []},
                "MainClass": jar.get("MainClass"),
                "Args": list(jar.get("Args") or []),
            },
            "ActionOnFailure": self.action_on_failure,
            "Status": status,
        }


class Execution:
    """A running step: its files, its process, and the thread that waits for it.

    Args:
        cluster: the cluster it runs on.
        step: the step.
        done: called in the waiting thread with the exit status (None when nothing was started) and what to say about
            a failure.
    """

    def __init__(self, cluster: Cluster, step: Step, done: Callable[[int | None, str], None]) -> None:
        self._cluster = cluster
        self._step = step
        self._done = done
        self._folder = cluster.folder / "steps" / step.id
        self._scratch = cluster.settings.state_dir / "tmp" / step.id
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stop_asked = False
        self._deploy_mode = "client"
        self._thread = threading.Thread(target=self._run, name=step.id, daemon=True)

    def start(self) -> None:
        """Starts the step; returns at once."""
        self._thread.start()

    def stop(self, *, at_once: bool = False) -> None:
        """Ends the step and its children: SIGTERM, then SIGKILL; only SIGKILL if `at_once`. Returns at once."""
        with self._lock:
            self._stop_asked = True
            if self._process is not None and self._process.stdin is not None:
                with contextlib.suppress(BrokenPipeError, ValueError):
                    if at_once:
                        self._process.stdin.write(b"K")
                    self._process.stdin.close()

    def join(self, timeout: float) -> None:
        """Waits until nothing of the step is left."""
        self._thread.join(timeout)

    def _run(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._scratch.mkdir(parents=True, exist_ok=True)
        status, why = None, ""
        try:
            with (self._folder / "controller").open("w", encoding="utf-8") as controller:
                status, why = self._execute(lambda line: _log(controller, line))
            if status:
                why = self._last_error()
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)
            late = self._cluster.hooks.log_seconds(self._cluster, self._step)
            if not late:
                self._ship_logs()
            self._done(status, why)
            if late:
                time.sleep(late)
                self._ship_logs()

    def _execute(self, log: Callable[[str], None]) -> tuple[int | None, str]:
        jar = self._step.config["HadoopJarStep"]
        log(f"INFO startExec '{jar.get('Jar')} {' '.join(jar.get('Args') or [])}'")
        try:
            local = command.build(
                jar.get("Jar") or "",
                jar.get("Args") or [],
                self._cluster.classifications,
                self._cluster.place,
                self._fetch,
            )
        except (command.StepNotRunnable, ClientError, BotoCoreError, OSError) as error:
            log(f"ERROR {error}")
            (self._folder / "stderr").write_text(f"{error}\n", encoding="utf-8")
            return None, str(error)
        for note in local.notes:
            log(f"INFO local_aws: {note}")
        log(f"INFO local_aws: {local.argv}")
        self._deploy_mode = local.deploy_mode
        with (self._folder / "stdout").open("wb") as out, (self._folder / "stderr").open("wb") as err:
            with self._lock:
                if self._stop_asked:
                    return None, "cancelled before it was started"
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-I",
                        str(Path(__file__).parent / "execution" / "supervisor.py"),
                        str(self._cluster.settings.kill_seconds),
                        *self._cluster.hooks.step_command(self._cluster, self._step, local.argv),
                    ],
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=err,
                    cwd=self._scratch,
                    env=self._environment(),
                    start_new_session=True,
                )
            log(f"INFO ProcessRunner started child process {self._process.pid}")
            status = self._process.wait()
        log(f"INFO Process exited with status {status}")
        return status, ""

    def _fetch(self, uri: str) -> Path:
        """Brings an object of S3 here, as `aws s3 cp` on the primary node.

        Raises:
            StepNotRunnable: it is not there.
        """
        bucket, _, key = uri.partition("://")[2].partition("/")
        # one folder per object: two objects may have one file name
        path = (
            self._scratch
            / "files"
            / f"{len(list(self._scratch.glob('files/*')))}"
            / (key.rsplit("/", 1)[-1] or "object")
        )
        path.parent.mkdir(parents=True)
        try:
            self._cluster.s3.download_file(bucket, key, str(path))
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NoSuchBucket"):
                raise command.StepNotRunnable(
                    f"Exception in thread \"main\" java.io.FileNotFoundException: No such file or directory '{uri}'"
                ) from None
            raise
        return path

    def _environment(self) -> dict[str, str]:
        """What the step sees: this AWS, this machine's Python and Java, and nothing else of our environment."""
        settings, cluster = self._cluster.settings, self._cluster
        python = str(settings.spark_python)
        path = [str(settings.spark_python.parent), os.environ.get("PATH", os.defpath)]
        java: dict[str, str] = {}
        if settings.java_home is not None:
            java = {"JAVA_HOME": str(settings.java_home)}
            path.insert(0, str(settings.java_home / "bin"))
        elif "JAVA_HOME" in os.environ:
            java = {"JAVA_HOME": os.environ["JAVA_HOME"]}
        kept = {
            name: os.environ[name] for name in ("HOME", "USER", "LANG", "LC_ALL", "TZ") if name in os.environ
        }
        return {
            **kept,
            **command.exports(cluster.classifications),
            **java,
            "PATH": os.pathsep.join(path),
            "TMPDIR": str(self._scratch),
            "SPARK_LOCAL_DIRS": str(self._scratch),
            # the JVM does not look at TMPDIR
            "SPARK_SUBMIT_OPTS": f'"-Djava.io.tmpdir={self._scratch}"',
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYSPARK_PYTHON": python,
            "PYSPARK_DRIVER_PYTHON": python,
            "AWS_ENDPOINT_URL": cluster.endpoint,
            "AWS_ALLOW_HTTP": "true",
            **cluster.credentials.environment,
            "AWS_REGION": cluster.region,
            "AWS_DEFAULT_REGION": cluster.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "EMR_CLUSTER_ID": cluster.id,
            "EMR_STEP_ID": self._step.id,
        }

    def _last_error(self) -> str:
        """The last line of stderr or stdout that names an error (client mode: the driver writes to both)."""
        for name in ("stderr", "stdout"):
            path = self._folder / name
            if path.exists():
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                found = next((line for line in reversed(lines) if _ERROR_LINE.match(line)), None)
                if found:
                    return found[:10_000]
        return ""

    def _ship_logs(self) -> None:
        files = {name: self._folder / name for name in ("controller", "stdout", "stderr")}
        if self._deploy_mode == "cluster":
            number = self._step.id[2:].lower()
            container = f"containers/application_{number}/container_{number}_01_000001"
            self._cluster.logs.ship(container, {name: files.pop(name) for name in ("stdout", "stderr")})
        if problem := self._cluster.logs.ship(f"steps/{self._step.id}", files):
            with files["controller"].open("a", encoding="utf-8") as controller:
                _log(controller, f"ERROR {problem}")


def _log(file: Any, line: str) -> None:
    file.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}\n")
    file.flush()
