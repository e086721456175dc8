"""Puts the parts together: moto, the replaced services, the interceptors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import moto.backends

from local_aws.clients import Clients
from local_aws.credentials import Credentials
from local_aws.dispatch import Dispatcher
from local_aws.emr.execution.process import run_step
from local_aws.emr.execution.runtime import Runtime
from local_aws.emr.models import EmrBackend, emr_backends
from local_aws.faults import FaultControl, Faults, FaultyClusters, FaultyReads, FaultyWire
from local_aws.interceptors import AccessLog, Health, LoopbackGuard
from local_aws.s3 import storage
from local_aws.settings import Settings
from local_aws.signatures import Keys, SignatureCheck
from local_aws.web import Application, Interceptor


@dataclass
class Laptop:
    """A running laptop's AWS, without its socket."""

    application: Application
    access_log: AccessLog

    def close(self) -> None:
        """Ends every running step, then the access log."""
        for _, _, backend in list(emr_backends.iter_backends()):
            if isinstance(backend, EmrBackend):
                backend.close()
        self.access_log.close()


def assemble(
    settings: Settings, endpoint: str, credentials: Credentials, extra: Sequence[Interceptor] = ()
) -> Laptop:
    """The application for one endpoint; moto's state is global, so that there is one in a process.

    Args:
        settings: what it runs with.
        endpoint: the URL it will be reached by; steps are told this one.
        credentials: Root key of the account.
        extra: further interceptors, between the guards and the service.
    """
    clients = Clients(endpoint, credentials)
    if settings.faults:
        faults = Faults()
        hooks = FaultyClusters(faults)
        EmrBackend.runtime = Runtime(settings, clients, run_step, hooks)
        extra = [*extra, FaultControl(faults), FaultyWire(faults), FaultyReads(faults, hooks)]
    else:
        EmrBackend.runtime = Runtime(settings, clients, run_step)
    storage.install()
    access_log = AccessLog(settings.state_dir / "access.jsonl")
    about: dict[str, object] = {"endpoint": endpoint}
    signatures = SignatureCheck(Keys(credentials))
    interceptors: list[Interceptor] = [access_log, LoopbackGuard(), Health(about), signatures, *extra]
    return Laptop(Application(Dispatcher(_replacement(clients)), interceptors), access_log)


def _replacement(clients: Clients) -> Callable[[str], None]:
    """Puts our services in the place of moto's when one is first asked for; importing them all takes seconds."""
    find: Any = moto.backends.get_backend
    vars(moto.backends)["get_backend"] = lambda name: emr_backends if name == "emr" else find(name)

    def replace(service: str) -> None:
        if service == "glue":
            from moto.glue.models import glue_backends

            from local_aws.glue.models import StrictGlueBackend

            glue_backends.backend = StrictGlueBackend
        elif service == "cloudformation":
            from moto.cloudformation.models import cloudformation_backends

            from local_aws.cloudformation import budgets, models, network, resources  # noqa: F401  being defined is enough

            cloudformation_backends.backend = models.StrictCloudFormationBackend
            models.install()
            resources.install(clients)

    return replace
