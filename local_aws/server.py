"""The server: one process and one port, which leave nothing behind."""

import fcntl
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from waitress.server import create_server

from local_aws.connection import Connection, Parser
from local_aws.credentials import FILE_NAME, Credentials
from local_aws.settings import Settings

# Read by moto when it is imported.
MOTO_ENVIRONMENT = {
    # no reply allows web pages
    "MOTO_DISABLE_GLOBAL_CORS": "true",
    # the path alone names the bucket
    "S3_IGNORE_SUBDOMAIN_BUCKETNAME": "true",
    # roles may attach the policies of AWS
    "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
}
# Of the caller's environment.
KEPT_ENVIRONMENT = frozenset({"PATH", "TMPDIR", "JAVA_HOME", "LC_ALL"})


class StartError(Exception):
    """The server cannot start; the message says why and what to do."""


def bind(settings: Settings) -> socket.socket:
    """Return a socket that listens on the settings' host and port."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise StartError(
            f"port {settings.port} on {settings.host} cannot be used ({error.strerror}): stop what listens there, "
            "or choose another with --port (0 takes any free one)."
        ) from None
    return listener


@contextmanager
def state_directory(path: Path) -> Iterator[Path]:
    """Provide an empty state directory for this process and user alone; remove scratch space and credentials after."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
        lock = (path / ".lock").open("a+")
    except OSError as error:
        raise StartError(f"state directory {path} cannot be written ({error.strerror}).") from None
    with lock:
        _lock(lock, path)
        for old in ("clusters", "tmp"):
            shutil.rmtree(path / old, ignore_errors=True)
        (path / "tmp").mkdir()
        # moto's large S3 objects spill here instead of /tmp
        tempfile.tempdir = str(path / "tmp")
        try:
            yield path
        finally:
            shutil.rmtree(path / "tmp", ignore_errors=True)
            (path / FILE_NAME).unlink(missing_ok=True)


def _lock(lock: IO[str], path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        raise StartError(
            f"another local_aws (process {lock.read().strip() or 'unknown'}) uses {path}: stop it, or choose another "
            "directory with --state-dir."
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then end every running step and return.

    Raises:
        StartError: The port or the state directory cannot be used.
        SettingsError: The credentials in the environment cannot be used.
    """
    credentials = Credentials.from_environment(os.environ)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    with bind(settings) as listener, state_directory(settings.state_dir):
        host, port = listener.getsockname()[:2]
        endpoint = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        # Settings of boto3, moto and proxies that the caller has are for other servers.
        for name in os.environ.keys() - KEPT_ENVIRONMENT:
            del os.environ[name]
        os.environ |= MOTO_ENVIRONMENT | {"HOME": str(settings.state_dir)}
        # moto takes most of a second to import: import it only after the checks
        from local_aws.assembly import assemble

        emulator = assemble(settings, endpoint, credentials)
        credentials.write(settings.state_dir / FILE_NAME)
        server = create_server(
            emulator.application,
            sockets=[listener],
            threads=settings.threads,
            ident="local_aws",
            connection_limit=1024,
            asyncore_use_poll=True,
            max_request_body_size=8 * 1024**3,
            channel_timeout=600,
        )
        server.channel_class, Parser.keys = Connection, emulator.keys
        threading.Thread(target=server.run, name="http", daemon=True).start()
        sys.stdout.write(f"local_aws ready on {endpoint}\n")
        sys.stdout.flush()
        try:
            stop.wait()
        finally:
            emulator.close()
            server.close()
