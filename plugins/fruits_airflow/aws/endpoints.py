"""Check the endpoint of each request before botocore sends it, and record which endpoints a run calls.

A request to an endpoint outside the European Union, or to an unknown place, raises instead of being sent. Each endpoint
is recorded in the run's folder at its first call, since a task may end at any moment.
"""

import hashlib
import ipaddress
import json
import logging
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.config.errors import ResidencyError
from fruits_airflow.config.regions import require_eu_region
from fruits_airflow.storage.lake import Lake, run_key

log = logging.getLogger(__name__)

LOCAL = "local endpoint"
FOLDER = "endpoints"

_HOOK = "fruits-endpoints"
_REGION = re.compile(r"[a-z]{2,5}(?:-[a-z]+)+-\d+")
_AWS = (
    *(".amazonaws.com", ".api.aws", ".amazonaws.com.cn"),
    *(".amazonaws.eu", ".api.amazonwebservices.eu", ".amazonaws-eusc.eu"),  # the sovereign cloud
)


def place_of(host: str) -> str:
    """Return the EU region of an endpoint, or `LOCAL` for an endpoint on this machine or in a private network.

    The name of an AWS endpoint, a VPC endpoint included, holds its region. Other names are resolved.

    Raises:
        ResidencyError: The endpoint is elsewhere, or its place is unknown, as that of a global AWS endpoint.
    """
    if host.endswith(_AWS):
        region = next((label for label in host.split(".") if _REGION.fullmatch(label)), None)
        if region is None:
            raise ResidencyError(f"endpoint: {host!r} names no region; use the regional endpoint of an EU region")
        return require_eu_region(region, f"endpoint {host!r} in a region that")
    if all(address.is_loopback or address.is_private for address in _addresses(host)):
        return LOCAL
    raise ResidencyError(
        f"endpoint: {host!r} is neither AWS's nor on a private network, so its region is unknown; "
        "unset AWS_ENDPOINT_URL, or name an endpoint of an EU region"
    )


def is_simulated(client: Any) -> bool:
    """Tell whether a client calls an AWS emulator on this machine or in a private network."""
    try:
        return place_of(urlsplit(client.meta.endpoint_url).hostname or "") == LOCAL
    except ResidencyError:
        return False


@cache
def _addresses(host: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
    try:
        entries = socket.getaddrinfo(host, None)
    except OSError as error:
        raise ResidencyError(f"endpoint: {host!r} cannot be resolved ({error}); check AWS_ENDPOINT_URL") from error
    return tuple({ipaddress.ip_address(entry[4][0]) for entry in entries})


@dataclass
class EndpointLog:
    """The endpoints that this process calls, recorded in the folder of its run."""

    seen: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)  # note by (service, host)
    folder: str | None = None  # folder of the run that the process works for; None until `keep`
    _write_once: Callable[[str, bytes], bool] | None = None
    _written: set[tuple[str, str]] = field(default_factory=set)

    def watch(self, client: Any) -> Any:
        """Check every request of a client from now on; return the client."""
        client.meta.events.register("before-send", self._check, unique_id=_HOOK)
        return client

    def keep(self, lake: Lake, folder: str) -> None:
        """Record past and future calls in a run's folder."""
        if folder != self.folder:
            self.folder, self._written = folder, set()
        self._write_once = lake.write_once
        self._note()

    def _check(self, request: Any, event_name: str, **_: Any) -> None:
        service, host = event_name.split(".")[1], urlsplit(request.url).hostname or ""
        if (service, host) not in self.seen:
            place = place_of(host)
            self.seen[service, host] = {
                "service": service,
                "host": host,
                "region": place,
                "first_called_at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            self._note()

    def _note(self) -> None:
        if self._write_once is None or self.folder is None:
            return
        for endpoint in [key for key in self.seen if key not in self._written]:
            self._written.add(endpoint)  # before the write, which is itself a call
            name = hashlib.sha256("@".join(endpoint).encode()).hexdigest()[:16]
            try:
                # Another task of the run may have recorded the endpoint already.
                note = json.dumps(self.seen[endpoint], indent=1, sort_keys=True).encode()
                self._write_once(f"{self.folder}/{FOLDER}/{name}.json", note)
            except (BotoCoreError, ClientError) as error:
                self._written.discard(endpoint)
                log.warning("The call of %s cannot be recorded yet: %s", "@".join(endpoint), error)


CALLED = EndpointLog()  # one process is one task


def called_endpoints(lake: Lake, run_id: str) -> list[dict[str, Any]]:
    """Return the endpoints that all tasks of a run have called, sorted by service and host."""
    notes = map(lake.read_json, lake.keys(run_key(run_id, f"{FOLDER}/")))
    return sorted((note for note in notes if note), key=lambda note: (note["service"], note["host"]))
