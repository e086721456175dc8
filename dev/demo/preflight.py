"""Check what a demo needs before it starts anything; each problem is a line with the remedy."""

import fcntl
import json
import os
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from fruits_airflow.config.errors import ConfigError, ResidencyError
from fruits_airflow.config.regions import require_eu_region
from fruits_airflow.storage.listing import is_leftover

NEEDED_FREE_BYTES = 2 * 1024**3
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
"""Of the formats that loading takes (`fruits.images.decoding`)."""
RESULTS = Path(__file__).resolve().parents[2] / "build" / "demo"


class CannotStart(Exception):
    """The demo cannot start: what is wrong, with which value, and the remedy."""


@dataclass(frozen=True)
class DemoOptions:
    """Options of a demo, from the environment (`make demo IMAGES=… WEIGHTS=…`)."""

    images: Path | None  # folder of photos; None to draw some
    weights: Path | None  # Keras weights file; None for ImageNet's, or announced random ones without a network
    region: str  # region of the cluster and the buckets
    conf: Mapping[str, Any]  # parameters of the DAG run
    keep: bool  # leave everything running after the run
    airflow_port: int  # port, or 0 for any free port
    aws_port: int  # port, or 0 for any free port


def read_options(environ: Mapping[str, str]) -> DemoOptions:
    """Read and check the options.

    Raises:
        CannotStart: A value is invalid.
        ResidencyError: The region is not in the European Union.
    """
    region = environ.get("REGION") or "eu-west-1"
    require_eu_region(region, "REGION")
    return DemoOptions(
        images=_images(environ.get("IMAGES", "")),
        weights=_weights(environ.get("WEIGHTS", "")),
        region=region,
        conf=_conf(environ),
        keep=environ.get("KEEP", "") not in ("", "0"),
        airflow_port=_port(environ, "AIRFLOW_PORT"),
        aws_port=_port(environ, "AWS_PORT"),
    )


def main() -> int:
    """Check the options alone, for other commands that take them; return the exit status: 0, or 2 for a bad value."""
    try:
        read_options(os.environ)
    except (CannotStart, ResidencyError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
    return 0


def image_files(folder: Path, report: Callable[[str], object] = lambda _: None) -> list[Path]:
    """List the files that the demo uploads, in a stable order: the photos as `plan` and `make local` define them.

    A file that is no image is uploaded too: the run rejects it with a code, as it would a user's. `report` takes a line
    for each kind of file that is not uploaded.

    Raises:
        CannotStart: A folder or a linked file cannot be read, so that its photos would be left out unseen.
    """
    files, leftovers, others = list[Path](), list[Path](), list[Path]()

    def fail(error: OSError | RecursionError) -> NoReturn:
        raise CannotStart(
            f"{getattr(error, 'filename', folder)} cannot be read ({getattr(error, 'strerror', error)}): let this user "
            "read it, or move it out of IMAGES"
        ) from error

    def skip_leftover(error: OSError) -> None:
        path = Path(error.filename)
        leftovers.append(path) if is_leftover(f"{path.relative_to(folder).as_posix()}/") else fail(error)

    try:
        for parent, folders, names in os.walk(folder, onerror=skip_leftover):
            others += (path for name in folders if (path := Path(parent, name)).is_symlink())
            for path in (Path(parent, name) for name in names):
                if is_leftover(path.relative_to(folder).as_posix()):
                    leftovers.append(path)
                else:
                    (files if stat.S_ISREG(path.stat().st_mode) else others).append(path)
    except (OSError, RecursionError) as error:
        fail(error)
    for kind, paths in (("leftovers of file managers", leftovers), ("links to folders, pipes or devices", others)):
        if paths:
            report(f"{len(paths)} {kind} are not uploaded, for example {min(paths).relative_to(folder)}")
    return sorted(files)


def check_space(folder: Path) -> None:
    """Raise CannotStart when the disk under `folder` has less than NEEDED_FREE_BYTES free."""
    free = shutil.disk_usage(folder).free
    if free < NEEDED_FREE_BYTES:
        raise CannotStart(
            f"{folder} has {free / 1024**3:.1f} GiB of free space, the demo needs "
            f"{NEEDED_FREE_BYTES / 1024**3:.0f}: free some (`make clean` removes earlier results)"
        )


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock `folder` for this demo: two at once would overwrite each other's results.

    Raises:
        CannotStart: Another demo holds it; the message names its process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise CannotStart(
                f"another demo is running in {folder} (process {owner}): wait for it, or end it with Ctrl-C there"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def free_port(port: int, name: str) -> int:
    """Return `port`, or any free loopback port for 0.

    Raises:
        CannotStart: The port is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise CannotStart(
                f"port {port} is in use or not allowed ({error.strerror}): choose another with {name}=…, "
                "or leave it out for any free one"
            ) from None
        return int(probe.getsockname()[1])


def _images(value: str) -> Path | None:
    if not value:
        return None
    folder = Path(value)  # dev/launch.sh has replaced a leading ~/
    if not folder.is_dir():
        raise CannotStart(f"IMAGES={value} is not a folder: name one that holds fruit photos, or leave it out")
    if RESULTS.is_relative_to(folder.resolve()):
        raise CannotStart(
            f"IMAGES={value} holds {RESULTS}, where the demo writes: its results would be taken for photos; name a "
            "folder that holds photos only"
        )
    if not any(path.suffix.lower() in IMAGE_SUFFIXES for path in image_files(folder)):
        raise CannotStart(
            f"IMAGES={value} holds no image (looked for {', '.join(sorted(IMAGE_SUFFIXES))} in it and below): "
            "name a folder like Fruits-360's Test, with a folder per label"
        )
    return folder


def _weights(value: str) -> Path | None:
    if not value:
        return None
    path = Path(value)
    if not path.is_file():
        raise CannotStart(
            f"WEIGHTS={value} is not a file: name a Keras weights file (.h5) of the network without its top"
        )
    return path


def _conf(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the run's parameters that are given, as far as the DAG's form allows them."""
    # Airflow's SDK is not installed where `image_files` alone is used.
    from fruits_airflow.config.param_check import check_params
    from fruits_airflow.config.run_parameters import parameter_schemas
    from fruits_airflow.config.settings import Settings

    schemas = parameter_schemas(Settings(deployment_id="demo", raw_bucket="raw", lake_bucket="lake"))
    conf = {
        name.lower(): from_json(environ[name]) for name in ("VARIANCE", "K", "LIMIT", "ENGINE") if environ.get(name)
    }
    for name, value in conf.items():
        try:
            check_params({name: value}, None, {name: schemas[name]}, "a run")
        except ConfigError as error:
            raise CannotStart(f"{name.upper()}={value} cannot be used: {str(error).partition(': ')[2]}") from None
    return conf


def from_json(text: str) -> Any:
    """Read 0.9, 12, true and null as JSON does; anything else is the string itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _port(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name) or "0"
    if not (text.isdecimal() and len(text) <= 5 and int(text) <= 65535):
        raise CannotStart(f"{name}={text} is not a port: give 1024 to 65535, or leave it out for any free one")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
