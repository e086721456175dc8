"""The simulated account: the emulator with its faults, its buckets, and what can be seen of it from outside."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local_aws.server import MOTO_ENVIRONMENT

os.environ |= MOTO_ENVIRONMENT | {"MOTO_ACCOUNT_ID": "123456789012"}  # moto reads it when it is imported

from moto.moto_server.werkzeug_app import BackendRequest

import local_aws.emr.cluster
from local_aws.assembly import assemble
from local_aws.emr import describe
from local_aws.emr.clock import Clock
from local_aws.emr.execution.runtime import Runtime
from local_aws.emr.models import EmrBackend, emr_backends
from local_aws.emr.responses import EmrResponse
from local_aws.s3 import responses
from local_aws.settings import Settings
from local_aws.web import Application
from tests.aws_keys import FOR_CLIENT, KEYS
from tests.emulator.armed import Fault, Faults
from tests.emulator.clusters import FaultyClusters
from tests.emulator.reads import FaultyReads
from tests.emulator.wire import FaultyWire
from tests.faults.world import LIVE, MODEL, REGION
from tests.plugins import laptop
from tests.simulation import clocks
from tests.simulation.network import ENDPOINT
from tests.simulation.steps import ScriptedStep

RAW, LAKE = "simulated-raw", "simulated-lake"


class SimulatedClock(Clock):
    """The loop's clock for the emulator's clusters."""

    def wait(self, changed: Any, until: Any) -> None:
        """Wait for a change, at most until a moment."""
        seconds = None if until is None else (until - self.now()).total_seconds()
        changed.waiters.wait(None if seconds is None else max(0.0, seconds))


class Cloud:
    """The emulator in this process; there is one, since moto's state is global."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._hooks = FaultyClusters(self.faults)
        folder = Path(tempfile.mkdtemp(prefix="simulation-"))
        settings = Settings(
            state_dir=folder, start_seconds=240, bootstrap_seconds=120, terminate_seconds=60, kill_seconds=5
        )
        emulator = assemble(settings, ENDPOINT, KEYS, self._hooks)
        shared = EmrBackend.runtime
        EmrBackend.runtime = Runtime(settings, shared.clients, ScriptedStep, self._hooks, SimulatedClock())
        local_aws.emr.cluster._HOOK_INTERVAL = clocks.datetime.timedelta(seconds=10)
        self._reads = FaultyReads(self.faults, self._hooks)
        service = _without_flask(emulator.application.service)
        emulator.close()
        # Without the checks of signatures and shapes, which other tests make, and which take half of the time.
        self.served = Application(service, [FaultyWire(self.faults), self._reads])
        self.plain = Application(service, [])

    @cache  # noqa: B019  one in a process
    def client(self, service: str, region: str = REGION) -> Any:
        """Return a client for set-up and checks."""
        config = Config(retries={"total_max_attempts": 1})
        return boto3.client(service, region_name=region, endpoint_url=ENDPOINT, config=config, **FOR_CLIENT)  # type: ignore[call-overload]

    def create(self) -> dict[str, str]:
        """Create roles, a security configuration, a subnet and the buckets; return the deployment's settings."""
        laptop.make_roles()
        for bucket in (RAW, LAKE):
            laptop.make_bucket(bucket)
        self.client("s3").put_bucket_versioning(Bucket=RAW, VersioningConfiguration={"Status": "Enabled"})
        return {
            "service_role": laptop.SERVICE_ROLE,
            "instance_profile": laptop.INSTANCE_PROFILE,
            "security_configuration": laptop.SECURITY_CONFIGURATION,
            "subnet_id": laptop.subnet_id(),
        }

    def empty(self) -> None:
        """Empty the account, but for what `create` made and the model."""
        self.faults.disarm()
        self.faults.__init__()  # type: ignore[misc]  # the count of faults begins again
        self._reads._answers.clear()
        responses._DELETIONS.clear()
        self._hooks._states.clear()
        for _, _, backend in emr_backends.iter_backends():
            assert isinstance(backend, EmrBackend)
            backend._clusters.clear()
        for bucket in (RAW, LAKE):
            self._bucket(bucket).keys.clear()
            self._bucket(bucket).multiparts.clear()
        laptop.put_model(LAKE, MODEL)

    def arm(self, spec: dict[str, Any]) -> Fault:
        """Arm a fault."""
        fault = Fault.parse(spec)
        fault.released = clocks.SimulatedEvent()  # type: ignore[assignment]
        return self.faults.arm(fault)

    def _bucket(self, name: str) -> Any:
        from moto.s3.models import s3_backends

        return s3_backends["123456789012"]["aws"].buckets[name]

    # what is there

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the keys of a bucket."""
        items = self._bucket(bucket).keys.items()
        return sorted(key for key, item in items if key.startswith(prefix) and _is_object(item))

    def read(self, bucket: str, key: str) -> bytes | None:
        """Return an object's bytes, or None."""
        item = self._bucket(bucket).keys.get(key)
        return bytes(item.value) if item is not None and _is_object(item) else None

    def versions(self, bucket: str) -> Iterator[tuple[str, bytes]]:
        """Return the key and the bytes of each version of each object."""
        for key, items in self._bucket(bucket).keys.lists():
            yield from ((key, bytes(item.value)) for item in items if _is_object(item))

    def clusters(self, name_prefix: str = "fruits/", states: Sequence[str] = (), region: str = "") -> list[Any]:
        """Return clusters as DescribeCluster shows them, with `Steps`, oldest first."""
        rows = []
        for _, of_region, backend in list(emr_backends.iter_backends()):
            if region and of_region != region:
                continue
            for cluster in backend.list_clusters(list(states)):
                if cluster.name.startswith(name_prefix):
                    rows.append({**describe.describe(cluster), "Steps": [step.describe() for step in cluster.steps]})
        return sorted(rows, key=lambda row: row["Status"]["Timeline"]["CreationDateTime"])

    def live_clusters(self, name_prefix: str = "fruits/") -> list[Any]:
        """Return the clusters that live or are on their way out."""
        return self.clusters(name_prefix, LIVE)

    def states_of(self, cluster_id: str) -> list[tuple[float, str]]:
        """Return the states of a cluster, each with the moment at which it was entered."""
        for cluster, states in self._hooks._states.items():
            if cluster.id == cluster_id:  # type: ignore[attr-defined]
                return list(states)
        return []


def _without_flask(service: Any) -> Any:
    """Answer EMR's operations as `local_aws.dispatch` answers S3's."""

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        if "/elasticmapreduce/aws4_request" not in environ.get("HTTP_AUTHORIZATION", ""):
            return service(environ, start_response)
        request = BackendRequest(environ)
        status, headers, body = EmrResponse.dispatch(request, request.raw_url, dict(request.headers))
        content = body.encode() if isinstance(body, str) else body
        start_response(f"{status} -", [(name, str(value)) for name, value in headers.items()])
        return [content]

    return answer


def _is_object(item: Any) -> bool:
    return type(item).__name__ == "FakeKey"


def describe_request(environ: dict[str, Any]) -> str:
    """Return service, operation, bucket and key of a request in one line."""
    from local_aws.requests import Call

    call = Call(environ)
    return " ".join(filter(None, (f"{call.service}:{call.operation}", call.bucket and f"{call.bucket}/{call.key}")))


def pretty(document: object) -> str:
    """Return a document in one line."""
    return json.dumps(document, sort_keys=True, default=str)
