"""The process of a step, its files, and the thread that waits for it."""

import contextlib
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from botocore.exceptions import BotoCoreError, ClientError

from local_aws.emr.execution import command, supervisor
from local_aws.emr.execution.runtime import Node, StepDone
from local_aws.emr.steps import Step

_ERROR_LINE = re.compile(r"(Exception in thread|ERROR \w+:|[\w.]*(Error|Exception)\b)")
_NOT_FOUND = ("404", "NoSuchKey", "NoSuchBucket")


class SupervisedStep:
    """Runs a step below the supervisor, which leaves none of its processes behind; starts it at once."""

    def __init__(self, node: Node, step: Step, done: StepDone) -> None:
        self._node = node
        self._step = step
        self._done = done
        self._folder = node.folder(step.id)
        self._scratch = node.scratch(step.id)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False
        self._deploy_mode = "client"
        self._thread = threading.Thread(target=self._run, name=step.id, daemon=True)
        self._thread.start()

    def stop(self, *, at_once: bool) -> None:
        """End the step without waiting for its end: SIGTERM, then SIGKILL; only SIGKILL if `at_once`."""
        with self._lock:
            self._is_stopped = True
            if self._process is not None and self._process.stdin is not None:
                with contextlib.suppress(BrokenPipeError, ValueError):
                    if at_once:
                        self._process.stdin.write(supervisor.KILL_AT_ONCE)
                    self._process.stdin.close()

    def join(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until no process of the step is left."""
        self._thread.join(timeout)

    def _run(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._scratch.mkdir(parents=True, exist_ok=True)
        status, reason = None, ""
        try:
            with (self._folder / "controller").open("w", encoding="utf-8") as controller:
                status, reason = self._execute(lambda line: _log(controller, line))
            if status:
                reason = self._last_error()
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)
            delay = self._node.runtime.hooks.log_seconds(self._node.cluster_name, self._step)
            if not delay:
                self._ship_logs()
            self._done(status, reason)
            if delay:
                time.sleep(delay)
                self._ship_logs()

    def _execute(self, log: Callable[[str], None]) -> tuple[int | None, str]:
        jar = self._step.config["HadoopJarStep"]
        name, args = jar.get("Jar") or "", jar.get("Args") or []
        log(f"INFO startExec '{name} {' '.join(args)}'")
        try:
            local = command.build(name, args, self._node.classifications, self._node.spark(), self._fetch)
        except (command.StepNotRunnable, ClientError, BotoCoreError, OSError) as error:
            log(f"ERROR {error}")
            (self._folder / "stderr").write_text(f"{error}\n", encoding="utf-8")
            return None, str(error)
        for note in (*local.notes, local.argv):
            log(f"INFO local_aws: {note}")
        self._deploy_mode = local.deploy_mode
        with (self._folder / "stdout").open("wb") as stdout, (self._folder / "stderr").open("wb") as stderr:
            with self._lock:
                if self._is_stopped:
                    return None, "cancelled before it was started"
                self._process = self._start(local.argv, stdout, stderr)
            started = time.monotonic()
            log(f"INFO ProcessRunner started child process {self._process.pid}")
            status = self._process.wait()
        outcome = "WARN Step failed" if status else "INFO Step succeeded"
        log(f"{outcome} with exitCode {status} and took {time.monotonic() - started:.0f} seconds")
        return status, ""

    def _start(self, argv: list[str], stdout: IO[bytes], stderr: IO[bytes]) -> subprocess.Popen[bytes]:
        runtime = self._node.runtime
        return subprocess.Popen(
            [
                *(sys.executable, "-I", supervisor.__file__, str(runtime.settings.kill_seconds)),
                *runtime.hooks.step_command(self._node.cluster_name, self._step, argv),
            ],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            cwd=self._scratch,
            env=self._node.environment(self._step.id),
            start_new_session=True,
        )

    def _fetch(self, uri: str) -> Path:
        """Download an object of S3, as `aws s3 cp` on the primary node does.

        Raises:
            StepNotRunnable: The object does not exist.
        """
        bucket, _, key = uri.partition("://")[2].partition("/")
        # one folder per object: two objects may have one file name
        folder = self._scratch / "files" / str(len(list(self._scratch.glob("files/*"))))
        folder.mkdir(parents=True)
        path = folder / (key.rsplit("/", 1)[-1] or "object")
        try:
            self._node.s3.download_file(bucket, key, str(path))
        except ClientError as error:
            if error.response["Error"]["Code"] in _NOT_FOUND:
                raise command.StepNotRunnable(
                    f"Exception in thread \"main\" java.io.FileNotFoundException: No such file or directory '{uri}'"
                ) from None
            raise
        return path

    def _last_error(self) -> str:
        """Return the last line of stderr or stdout that names an error; in client mode the driver writes to both."""
        for name in ("stderr", "stdout"):
            path = self._folder / name
            if path.exists():
                for line in reversed(path.read_text(encoding="utf-8", errors="replace").splitlines()):
                    if _ERROR_LINE.match(line):
                        return line[:10_000]
        return ""

    def _ship_logs(self) -> None:
        logs, files = (self._node.logs, {name: self._folder / name for name in ("controller", "stdout", "stderr")})
        if self._deploy_mode == "cluster":
            number = self._step.id[2:].lower()
            container = f"containers/application_{number}/container_{number}_01_000001"
            logs.ship(container, {name: files.pop(name) for name in ("stdout", "stderr")})
        if problem := logs.ship(f"steps/{self._step.id}", files):
            with files["controller"].open("a", encoding="utf-8") as controller:
                _log(controller, f"ERROR {problem}")


def _log(file: IO[str], line: str) -> None:
    file.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}\n")
    file.flush()
