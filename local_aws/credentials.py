"""The root credentials of this server's account, with which callers sign their requests."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local_aws.settings import SettingsError

FILE_NAME = "credentials"
ACCESS_KEY_ID, SECRET_ACCESS_KEY = "LOCAL_AWS_ACCESS_KEY_ID", "LOCAL_AWS_SECRET_ACCESS_KEY"
_ACCESS_KEY_ID = re.compile(r"\w{16,128}", re.ASCII)
_LEAST_SECRET_CHARACTERS = 32


@dataclass(frozen=True)
class Credentials:
    """A key pair."""

    access_key_id: str  # names the key in each signed request; 16 to 128 letters, digits and underscores
    secret_access_key: str = field(repr=False)  # signs the requests and is never sent

    @classmethod
    def random(cls) -> Credentials:
        """Create a random key pair."""
        return cls("LOCALAWS" + secrets.token_hex(6).upper(), secrets.token_urlsafe(30))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Credentials:
        """Return the key pair of the environment, or a random key pair where it has none.

        The names of its variables, LOCAL_AWS_ACCESS_KEY_ID and LOCAL_AWS_SECRET_ACCESS_KEY, differ from the SDKs', so
        that a developer's own AWS credentials are never used.

        Raises:
            SettingsError: One of the two is missing, or too short.
        """
        key_id, secret = environment.get(ACCESS_KEY_ID, ""), environment.get(SECRET_ACCESS_KEY, "")
        if not key_id and not secret:
            return cls.random()
        if not _ACCESS_KEY_ID.fullmatch(key_id):
            raise SettingsError(f"{ACCESS_KEY_ID} {key_id!r}: must be 16 to 128 letters, digits or underscores.")
        if len(secret) < _LEAST_SECRET_CHARACTERS:
            raise SettingsError(
                f"{SECRET_ACCESS_KEY}: must have at least {_LEAST_SECRET_CHARACTERS} characters, it has {len(secret)}."
            )
        return cls(key_id, secret)

    @property
    def environment(self) -> dict[str, str]:
        """The variables from which an SDK reads this key pair."""
        return {"AWS_ACCESS_KEY_ID": self.access_key_id, "AWS_SECRET_ACCESS_KEY": self.secret_access_key}

    def write(self, path: Path) -> None:
        """Write a file in the AWS CLI's format (AWS_SHARED_CREDENTIALS_FILE) that only this user can read."""
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(
                f"[default]\naws_access_key_id = {self.access_key_id}\n"
                f"aws_secret_access_key = {self.secret_access_key}\n"
            )
