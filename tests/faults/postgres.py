"""A PostgreSQL of its own for Airflow's metadata, on loopback, that can be stopped in mid-work and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).resolve().parents[2]
_UV = _REPOSITORY / ".cache" / "uv" / "bin" / "uv"
_USERS = ("postgres", "nobody")
START_SECONDS = 60


class PostgresMissing(Exception):
    """There is no PostgreSQL to start, and none could be fetched; the message says why."""


def binaries(wanted: str = "any") -> Path:
    """The folder with initdb and postgres: the machine's, else those of a wheel (dev/postgres.sh).

    Args:
        wanted: `any`, or `wheel` for those of the wheel even where the machine has others.

    Raises:
        PostgresMissing: neither is to be had.
    """
    found = subprocess.run(
        [_REPOSITORY / "dev" / "postgres.sh", _UV, sys.executable, wanted],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if found.returncode:
        raise PostgresMissing(found.stderr.strip())
    return Path(found.stdout.strip())


class Postgres:
    """A server with one database, `airflow`; as root it runs as another user, as PostgreSQL demands."""

    def __init__(self, wanted: str = "any") -> None:
        source = binaries(wanted)
        # below /tmp: another user must reach it, and its socket wants a short path
        self._folder = Path(tempfile.mkdtemp(prefix="fruits-postgres-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = next(one for one in map(_user, _USERS) if one is not None)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self._folder, user.pw_uid, user.pw_gid)
        self._binaries = source
        if self._as and source.is_relative_to(_REPOSITORY):
            # that user may not be let into this repository's folder
            installed, copy = source.parents[2], self._folder / "wheel"
            shutil.copytree(installed, copy, symlinks=True, ignore=shutil.ignore_patterns("*18", "include"))
            self._binaries = copy / source.relative_to(installed)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._data = self._folder / "data"
        self._run("initdb", "-D", self._data, "-U", "airflow", "--auth", "trust", "--locale", "C.UTF-8", "-N")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "airflow", "airflow")

    @property
    def url(self) -> str:
        """For Airflow's sql_alchemy_conn."""
        return f"postgresql+psycopg2://airflow@127.0.0.1:{self.port}/airflow"

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._binaries / "postgres", "-D", self._data, "-p", str(self.port), "-k", self._folder),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=200"),
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._as,
            )
        ready = [self._binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "airflow"]
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(ready, check=False).returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError((self._folder / "log").read_text()[-2000:])
            time.sleep(0.1)

    def stop(self) -> None:
        """Ends it at once: every connection breaks, as when its machine goes (immediate shutdown)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)

    def close(self) -> None:
        """Ends it and removes its data."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, name: str, *arguments: Any) -> None:
        done = subprocess.run(
            [self._binaries / name, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self._folder,
            **self._as,
        )
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stdout}{done.stderr}")


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None
