"""Assembles the application from moto, the replaced services and the interceptors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import moto.backends

from local_aws import account
from local_aws.clients import Clients
from local_aws.credentials import Credentials
from local_aws.dispatch import Dispatcher
from local_aws.emr.execution.process import SupervisedStep
from local_aws.emr.execution.runtime import Runtime
from local_aws.emr.hooks import Hooks
from local_aws.emr.models import EmrBackend, emr_backends
from local_aws.interceptors import AccessLog, Health, LoopbackGuard
from local_aws.s3 import storage
from local_aws.settings import Settings
from local_aws.shapes import ShapeCheck
from local_aws.signatures import Keys, SignatureCheck
from local_aws.web import Application, Interceptor


@dataclass
class Emulator:
    """A running AWS emulator without its socket."""

    application: Application
    access_log: AccessLog
    keys: Keys

    def close(self) -> None:
        """End every running step, then the access log."""
        for _, _, backend in list(emr_backends.iter_backends()):
            if isinstance(backend, EmrBackend):
                backend.close()
        self.access_log.close()


def assemble(
    settings: Settings,
    endpoint: str,
    credentials: Credentials,
    hooks: Hooks | None = None,
    interceptors: Sequence[Interceptor] = (),
) -> Emulator:
    """Return the emulator at an endpoint; there is one in a process, since moto's state is global.

    By `hooks` a test changes the life of clusters and steps, by `interceptors` what happens between the check of
    signatures and the services.
    """
    clients = Clients(endpoint, credentials)
    EmrBackend.runtime = Runtime(settings, clients, SupervisedStep, hooks or Hooks())
    storage.install()
    access_log = AccessLog(settings.state_dir / "access.jsonl")
    keys = Keys(credentials)
    checks = [access_log, LoopbackGuard(), Health(endpoint), SignatureCheck(keys), *interceptors, ShapeCheck()]
    return Emulator(Application(Dispatcher(_replacement(clients, settings)), checks), access_log, keys)


def _replacement(clients: Clients, settings: Settings) -> Callable[[str], None]:
    """Return a function that replaces a service of moto before its first use; importing all takes seconds."""
    find: Any = moto.backends.get_backend
    vars(moto.backends)["get_backend"] = lambda name: emr_backends if name == "emr" else find(name)

    def replace(service: str) -> None:
        if service == "glue":
            from moto.glue.models import glue_backends

            from local_aws.glue.models import StrictGlueBackend

            glue_backends.backend = StrictGlueBackend
        elif service == "cloudformation":
            from moto.cloudformation.models import cloudformation_backends

            from local_aws.cloudformation import budgets, models, network, resources  # noqa: F401  the classes register themselves

            cloudformation_backends.backend = models.StrictCloudFormationBackend
            models.install()
            resources.CompleteResource.clients = clients
        elif service == "iam":
            account.install_iam()
        elif service == "servicequotas":
            account.install_quotas(settings.vcpus)

    return replace
