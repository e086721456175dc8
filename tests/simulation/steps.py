"""Steps that run as actors: the stages of `tests/faults/spark-submit`, with requests that faults can strike."""

from __future__ import annotations

import gzip
import importlib.util
import io
from importlib.machinery import SourceFileLoader
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError

from local_aws.emr.execution.runtime import Node, StepDone
from local_aws.emr.steps import Step
from tests.faults.world import HERE
from tests.simulation import clocks
from tests.simulation.loop import Actor, Waiters
from tests.simulation.network import ENDPOINT

STAGE_SECONDS = (60.0, 400.0)
_LOGS_LATE_S = (20.0, 200.0)
_HANGS_S = 86_400.0
_SIGNED = "AWS4-HMAC-SHA256 Credential=LOCALAWSSTEPSTEPSTEP/20260101/eu-west-1/s3/aws4_request"


def _load_stages() -> Any:
    loader = SourceFileLoader("tests.simulation.stages", str(HERE / "spark-submit"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


stages = _load_stages()


class _Store(stages.Store):  # type: ignore[misc]  # a script has no types
    """S3 over the simulated network."""

    def __init__(self) -> None:
        self.network = ScriptedStep.network

    def ask(self, method: str, bucket: str, key: str, body: bytes = b"", **headers: str) -> tuple[int, bytes, str]:
        """Send a request; try again what a client library tries again."""
        problem: object = None
        for attempt in range(stages.ATTEMPTS):
            try:
                url = f"{ENDPOINT}/{bucket}/{quote(key, safe='/')}"
                named = {
                    "User-Agent": "step",
                    "Authorization": _SIGNED,
                    **{name.replace("_", "-"): value for name, value in headers.items()},
                }
                status, replied, content = self.network.request(method, url, named, body)
                length = next((int(v) for n, v in replied if n.lower() == "content-length"), len(content))
                if status < 500 and length <= len(content):
                    return status, content, dict(replied).get("ETag", dict(replied).get("etag", ""))
                problem = f"status {status}"
            except BotoCoreError as error:
                problem = error
            clocks.loop().sleep(stages.PAUSE_SECONDS * 2**attempt)
        raise SystemExit(f"ERROR StorageFailed: {method} {bucket}/{key}: {problem}; tried {stages.ATTEMPTS} times")


stages.Store = _Store
stages.sys = SimpleNamespace(stdout=io.StringIO())


class ScriptedStep:
    """A step that runs; `command` of the hooks decides whether it hangs, is killed or has no room.

    Attributes:
        network: Carries the requests of steps.
    """

    network: Any = None

    def __init__(self, node: Node, step: Step, done: StepDone) -> None:
        self._node, self._step, self._done = node, step, done
        self._is_stopped = False
        self._is_over = False
        self._ended = Waiters(clocks.loop)
        loop = clocks.loop()
        self._worker: Actor = loop.spawn(f"step {step.config['Name'].split('/')[0]}", self._work)
        self._keeper = loop.spawn("step keeper", self._keep)
        self._result: tuple[int | None, str] = (137, "")
        self._woken = Waiters(clocks.loop)

    def stop(self, *, at_once: bool) -> None:
        """End the step without waiting for its end."""
        self._is_stopped = True
        clocks.loop().kill(self._worker)
        self._woken.wake_all()

    def join(self, timeout: float) -> None:
        """Wait until the step has ended."""
        if not self._is_over:
            self._ended.wait(timeout)

    def _work(self) -> None:
        try:
            self._result = self._execute()
        finally:
            self._woken.wake_all()

    def _execute(self) -> tuple[int, str]:
        """Do what the command says; return the exit status and the last line that names an error."""
        loop = clocks.loop()
        arguments = list(self._step.config["HadoopJarStep"]["Args"])
        command = self._node.runtime.hooks.step_command(self._node.cluster_name, self._step, arguments)
        if command[0] == "sleep":
            loop.sleep(float(command[1]))
        elif command[0] == "unshare":
            loop.sleep(30.0)
            return 1, "ERROR OSError: [Errno 28] No space left on device"
        elif command[0] == "timeout":
            loop.spawn("killer", lambda: loop.kill(self._worker), float(command[2]))
        result = _run(arguments)
        if command[0] == "sh":
            loop.sleep(_HANGS_S)
        return result

    def _keep(self) -> None:
        """Wait for the end of the worker, report it, and write the logs as EMR does."""
        while not (self._worker.has_ended or self._worker.is_killed):
            self._woken.wait(None)
        status, reason = self._result
        if self._worker.is_killed and not self._is_stopped:
            status, reason = 137, ""  # SIGKILL
        delay = self._node.runtime.hooks.log_seconds(self._node.cluster_name, self._step)
        self._is_over = True
        self._done(status, reason)
        self._ended.wake_all()
        clocks.loop().sleep(delay or clocks.draws.uniform(*_LOGS_LATE_S))
        for log, text in {
            "stdout": f"{self._step.config['Name']}\n",
            "stderr": f"{reason}\n",
            "controller": "\n",
        }.items():
            uri = self._node.logs.uri(f"steps/{self._step.id}/{log}.gz")
            if uri:
                bucket, _, key = uri.removeprefix("s3://").partition("/")
                try:
                    self._node.s3.put_object(Bucket=bucket, Key=key, Body=gzip.compress(text.encode(), mtime=0))
                except (BotoCoreError, ClientError):
                    return  # no step fails for its logs


def _run(arguments: list[str]) -> tuple[int, str]:
    clocks.loop().sleep(clocks.draws.uniform(*STAGE_SECONDS))
    try:
        return stages.main(arguments), ""
    except SystemExit as error:
        return 1, str(error.code)
    except (stages.Changed, BotoCoreError, ClientError, ValueError, TypeError, KeyError) as error:
        return 1, f"ERROR {type(error).__name__}: {error}"
