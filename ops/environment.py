"""Pack the libraries of the nodes: from requirements/node.lock to an archive in our bucket, named by its digest.

A node installs nothing from a third party: it fetches this archive, checks it against the digest in its name, and
unpacks it beside its image's Python. The wheels come from the package index of the machine that packs, with the
hashes of the lock and for the nodes' architecture; none of their code runs here.
"""

import gzip
import json
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.fetch_jars import sha256
from ops.template import REPOSITORY

UV = REPOSITORY / ".cache" / "uv" / "bin" / "uv"
LOCK = REPOSITORY / "requirements" / "node.lock"
PACKED = REPOSITORY / ".cache" / "environments"
PYTHON = "3.11"  # as spark.pyspark.python in include/cluster.yaml
# Amazon Linux 2023, which emr-spark-8.0.0 runs on, has glibc 2.34.
PLATFORMS = {"arm64": "aarch64-manylinux_2_34", "x86_64": "x86_64-manylinux_2_34"}
ARCHIVE = "environment.tar.gz"
MANIFEST = "fruits-environment.json"


class EnvironmentFailed(Exception):
    """The libraries could not be packed or uploaded."""


@dataclass(frozen=True)
class Packed:
    """A packed environment."""

    digest: str
    """SHA-256 of the archive, hex."""
    path: Path
    size_bytes: int
    unpacked_bytes: int


def pack(architecture: str, folder: Path = PACKED, uv: Path = UV, lock: Path = LOCK) -> Packed:
    """Pack the libraries of a lock as `<folder>/<digest>/environment.tar.gz`, for `arm64` or `x86_64`.

    The same lock gives the same archive on the same machine.

    Raises:
        EnvironmentFailed: A wheel is missing or does not match its hash, or the package index does not answer.
    """
    with tempfile.TemporaryDirectory() as temporary:
        libraries = Path(temporary) / "libraries"
        command = [uv, "pip", "install", "--quiet", "--target", libraries, "--python", PYTHON]
        command += ["--python-platform", PLATFORMS[architecture], "--python-version", PYTHON]
        command += ["--only-binary", ":all:", "--require-hashes", "--link-mode", "copy", "-r", lock]
        ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        if ended.returncode:
            raise EnvironmentFailed(f"{lock.name} could not be packed for {architecture}: {ended.stderr.strip()}")
        shutil.rmtree(libraries / "bin", ignore_errors=True)  # commands that name this machine's Python
        machine = PLATFORMS[architecture].partition("-")[0]  # as `uname -m` calls it
        manifest = {"architecture": machine, "python": PYTHON, "lock": sha256(lock)}
        (libraries / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        archive = Path(temporary) / ARCHIVE
        unpacked = _archive(libraries, archive)
        digest = sha256(archive)
        path = folder / digest / ARCHIVE
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(archive, path)
    return Packed(digest, path, path.stat().st_size, unpacked)


def upload(packed: Packed, s3: Any, bucket: str) -> bool:
    """Upload an environment to the lake unless it is there; return whether it was new."""
    key = f"env/{packed.digest}/{ARCHIVE}"
    if s3.list_objects_v2(Bucket=bucket, Prefix=key).get("KeyCount", 0):
        return False
    s3.upload_file(str(packed.path), bucket, key)
    return True


def _archive(folder: Path, path: Path) -> int:
    """Pack files by name, without times, owners and the libraries' tests; return the bytes of the files."""
    total = 0
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as stream,
        tarfile.open(mode="w", fileobj=stream, format=tarfile.GNU_FORMAT) as archive,
    ):
        for file in sorted(folder.rglob("*")):
            inside = file.relative_to(folder)
            if file.is_dir() or {"tests", "__pycache__"} & set(inside.parts) or inside.name == ".lock":
                continue
            entry = tarfile.TarInfo(inside.as_posix())
            entry.size = file.stat().st_size
            entry.mode = 0o644
            total += entry.size
            with file.open("rb") as content:
                archive.addfile(entry, content)
    return total
