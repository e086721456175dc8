"""A PostgreSQL of its own for Airflow's metadata, on loopback, that can be stopped in mid-work and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

_DEBIAN = Path("/usr/lib/postgresql")
_USERS = ("postgres", "nobody")
START_SECONDS = 60


class PostgresMissing(Exception):
    """There is no PostgreSQL to start."""


def binaries() -> Path:
    """The folder with initdb and postgres.

    Raises:
        PostgresMissing: neither on the PATH nor where Debian puts it.
    """
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    newest = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not newest:
        raise PostgresMissing("no PostgreSQL here: install it (Debian: apt-get install postgresql)")
    return newest[-1].parent


class Postgres:
    """A server with one database, `airflow`; as root it runs as another user, as PostgreSQL demands."""

    def __init__(self) -> None:
        self._binaries = binaries()
        # below /tmp: another user must reach it, and its socket wants a short path
        self._folder = Path(tempfile.mkdtemp(prefix="fruits-postgres-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = next(one for one in map(_user, _USERS) if one is not None)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self._folder, user.pw_uid, user.pw_gid)
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
                    *(
                        self._binaries / "postgres",
                        "-D",
                        self._data,
                        "-p",
                        str(self.port),
                        "-k",
                        self._folder,
                    ),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=200"),
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._as,
            )
        ready = [
            self._binaries / "pg_isready",
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            "airflow",
        ]
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
