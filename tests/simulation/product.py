"""The control plane in this process: its DAGs, and in actors what it keeps per process."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.faults.world import MODEL, REGION
from tests.plugins import laptop
from tests.simulation import clocks
from tests.simulation.network import ENDPOINT

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOYMENT = "simulated"
DAGS = ("fruits_pipeline", "erase_images", "cluster_janitor", "publication_check")


def set_environment(raw: str, lake: str) -> None:
    """Set the environment of the control plane; Airflow reads it when it is imported."""
    for name in [name for name in os.environ if name.startswith(("FRUITS_", "AWS_"))]:
        del os.environ[name]
    if not os.environ.get("AIRFLOW_HOME"):
        os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="simulation-")
    os.environ |= {
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "false",
        **laptop.aws_environment(ENDPOINT),
        "FRUITS_DEPLOYMENT_ID": DEPLOYMENT,
        "FRUITS_RAW_BUCKET": raw,
        "FRUITS_LAKE_BUCKET": lake,
        "FRUITS_REGION": REGION,
        "FRUITS_MODEL_ID": MODEL,
        "FRUITS_NODE_ENVIRONMENT": "preinstalled",
        "FRUITS_MAX_REJECT_RATE": "0.5",
        "FRUITS_POLL_S": "60",
    }


def load_dags(outputs: dict[str, str]) -> dict[str, Any]:
    """Import the DAG files for an account; return the DAGs by id."""
    from airflow.dag_processing.dagbag import DagBag

    os.environ |= {f"FRUITS_{name.upper()}": value for name, value in outputs.items()}
    dags = {}
    for name in DAGS:
        bag = DagBag(str(REPOSITORY / "dags" / f"{name}.py"))
        if bag.import_errors:
            raise RuntimeError(str(bag.import_errors))
        dags |= bag.dags
    return dags


class _AsynchronousClient:
    """The triggers' client: the calls of the other client, awaited."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def __aenter__(self) -> _AsynchronousClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        async def call(**arguments: Any) -> Any:
            return method(**arguments)

        return call


def install() -> None:
    """Make the control plane work in actors."""
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    from airflow.sdk.bases.operator import ExecutorSafeguard
    from boto3.s3 import transfer
    from fruits_airflow.aws import endpoints
    from fruits_airflow.cost import prices
    from fruits_airflow.emr import cluster_body
    from fruits_airflow.emr.code_bundle import CodeBundle
    from fruits_airflow.emr.stage_steps import JOBS
    from fruits_airflow.erasure import stored_content
    from fruits_airflow.operators import cluster_tasks, triggers
    from fruits_airflow.runs import planning, preparation

    code = CodeBundle(dict.fromkeys((*(f"{job}.py" for job in JOBS), "bootstrap.sh", "fruits.zip"), b"code"))
    planning.build_bundle = preparation.build_bundle = lambda: code  # type: ignore[attr-defined]
    cluster_tasks.get_current_context = lambda: clocks.of_process("context", dict)  # type: ignore[attr-defined]
    endpoints.CALLED.__class__ = _EndpointLogOfProcess
    stored_content.resource = SimpleNamespace(  # type: ignore[attr-defined]  # a limit of the whole process
        RLIMIT_AS=0, getrlimit=lambda _: (0, 0), setrlimit=lambda *_: None, getpagesize=lambda: 0
    )

    for module in (prices, cluster_body):
        module.read_yaml_mapping = _read_once(module.read_yaml_mapping)  # type: ignore[attr-defined]
    clients: dict[str, Any] = {}

    def connect(hook: Any) -> Any:
        key = f"{hook.client_type} {hook.region_name} {hook.config.retries}"
        if key not in clients:  # a client of its own for each task would be most of the time
            clients[key] = hook.conn
        return clients[key]

    async def connect_for_trigger(hook: Any) -> Any:
        return _AsynchronousClient(connect(hook))

    async def sleep(seconds: float) -> None:
        clocks.loop().sleep(seconds)

    def awaited(function: Any) -> Any:
        async def call(*arguments: Any) -> Any:
            return function(*arguments)

        return call

    AwsBaseHook.get_conn = connect  # type: ignore[method-assign]
    AwsBaseHook.get_async_conn = connect_for_trigger  # type: ignore[method-assign]
    triggers.sync_to_async = awaited  # type: ignore[attr-defined]
    asyncio.sleep = sleep  # type: ignore[assignment]
    with_threads = transfer.TransferConfig
    transfer.TransferConfig = lambda: with_threads(use_threads=False)  # type: ignore[assignment,misc]
    ExecutorSafeguard.test_mode = True
    logging.disable(logging.CRITICAL)


def _read_once(read: Any) -> Any:
    """Return a reader of files that do not change; each call gets a copy of its own."""
    contents: dict[Path, bytes] = {}

    def read_copy(path: Path) -> Any:
        if path not in contents:
            contents[path] = pickle.dumps(read(path))
        return pickle.loads(contents[path])

    return read_copy


def _kept(name: str, default: Any) -> Any:
    def get(_self: Any) -> Any:
        return clocks.of_process(name, default)

    def put(_self: Any, value: Any) -> None:
        actor = clocks.loop().current
        if actor is not None:
            actor.process[name] = value

    return property(get, put)


from fruits_airflow.aws.endpoints import EndpointLog  # noqa: E402  its module reads no environment


class _EndpointLogOfProcess(EndpointLog):
    """The log of the present actor's process."""

    seen = _kept("seen", dict)
    folder = _kept("folder", lambda: None)
    _write_once = _kept("write_once", lambda: None)
    _written = _kept("written", set)
