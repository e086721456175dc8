"""Puts the parts together: moto, the replaced services, the interceptors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moto.cloudformation.models import cloudformation_backends
from moto.emr.models import emr_backends
from moto.glue.models import glue_backends

from local_aws.clients import Clients
from local_aws.cloudformation import models as cloudformation
from local_aws.cloudformation import resources
from local_aws.dispatch import Dispatcher
from local_aws.emr.models import EmrBackend
from local_aws.emr.runtime import Runtime
from local_aws.glue.models import StrictGlueBackend
from local_aws.interceptors import AccessLog, Health, LoopbackGuard
from local_aws.s3 import storage
from local_aws.settings import Settings
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


def assemble(settings: Settings, endpoint: str, extra: Sequence[Interceptor] = ()) -> Laptop:
    """The application for one endpoint; moto's state is global, so that there is one in a process.

    Args:
        settings: what it runs with.
        endpoint: the URL it will be reached by; steps are told this one.
        extra: further interceptors, between the guard and the service.
    """
    clients = Clients(endpoint)
    EmrBackend.runtime = Runtime(settings, clients)
    emr_backends.backend = EmrBackend  # type: ignore[assignment]  # not moto's class, but its shape
    glue_backends.backend = StrictGlueBackend
    cloudformation_backends.backend = cloudformation.StrictCloudFormationBackend
    cloudformation.install()
    resources.install(clients)
    storage.install()
    access_log = AccessLog(settings.state_dir / "access.jsonl")
    about: dict[str, object] = {"endpoint": endpoint}
    interceptors: list[Interceptor] = [access_log, LoopbackGuard(), Health(about), *extra]
    return Laptop(Application(Dispatcher(), interceptors), access_log)
