"""Clients of this server itself, for the parts of it that call its API."""

import threading
from typing import Any

import boto3
from botocore.config import Config

from local_aws.credentials import Credentials


class Clients:
    """boto3 clients of one endpoint, one for each service and region."""

    def __init__(self, endpoint: str, credentials: Credentials) -> None:
        self.endpoint = endpoint
        self.credentials = credentials
        self._session = boto3.session.Session()
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    def get(self, service: str, region: str) -> Any:
        """Return the client of a service in a region."""
        with self._lock:
            if (service, region) not in self._clients:
                self._clients[service, region] = self._session.client(  # type: ignore[call-overload]  # a name at run time
                    service,
                    endpoint_url=self.endpoint,
                    region_name=region,
                    aws_access_key_id=self.credentials.access_key_id,
                    aws_secret_access_key=self.credentials.secret_access_key,
                    config=Config(
                        s3={"addressing_style": "path"},
                        user_agent_extra="local_aws",
                        proxies={},  # the endpoint is on this machine
                        retries={"mode": "standard", "total_max_attempts": 8},  # as patient as EMR's own
                    ),
                )
            return self._clients[service, region]
