"""The code that a cluster runs: fruits.zip, the job files and bootstrap.sh, under the digest of their content.

The same files give the same digest on every machine: the archive holds sorted names and no times.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fruits_airflow.config.errors import CodeMismatch, ConfigError
from fruits_airflow.config.settings import REPOSITORY
from fruits_airflow.emr.stage_steps import JOBS
from fruits_airflow.storage.lake import Lake

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold


@dataclass(frozen=True)
class CodeBundle:
    """Files to ship, by name.

    Attributes:
        files: content by file name.
        digest: SHA-256 over names and contents, hex.
    """

    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """SHA-256 over the sorted names and the digests of the contents."""
        return _digest(self.files)


def build_bundle(repository: Path = REPOSITORY) -> CodeBundle:
    """Packs what lies in the repository.

    Raises:
        ConfigError: a job file, the library or bootstrap.sh is missing.
    """
    jobs = repository / "spark_jobs"
    sources = {f"{job}.py": jobs / f"{job}.py" for job in JOBS}
    sources["bootstrap.sh"] = repository / "include" / "bootstrap.sh"
    missing = [
        str(path.relative_to(repository))
        for path in (*sources.values(), jobs / "fruits")
        if not path.exists()
    ]
    if missing:
        raise ConfigError(f"code to upload: {', '.join(missing)} missing; deploy the whole repository")
    files = {name: path.read_bytes() for name, path in sources.items()}
    files["fruits.zip"] = _zip_package(jobs / "fruits")
    return CodeBundle(files)


def upload_bundle(bundle: CodeBundle, lake: Lake) -> int:
    """Puts what is not there yet, overwrites nothing, and checks what lies there.

    Returns:
        How many objects were new.

    Raises:
        CodeMismatch: an object below this digest has another content.
    """
    new = sum(
        lake.write_once(f"code/{bundle.digest}/{name}", content) for name, content in bundle.files.items()
    )
    verify_code(lake, bundle.digest)
    return new


def verify_code(lake: Lake, digest: str) -> None:
    """Reads the code below `code/<digest>/` back and compares.

    Raises:
        CodeMismatch: it is incomplete or was changed.
    """
    names = [*(f"{job}.py" for job in JOBS), "bootstrap.sh", "fruits.zip"]
    found = {name: lake.read(f"code/{digest}/{name}") for name in names}
    absent = [name for name, content in found.items() if content is None]
    actual = _digest({name: content for name, content in found.items() if content is not None})
    if absent or actual != digest:
        problem = f"lacks {', '.join(absent)}" if absent else f"has digest {actual[:16]}"
        raise CodeMismatch(
            f"{lake.uri(f'code/{digest}/')} {problem}: changed after its upload; "
            "find out who writes there, delete the folder and clear upload_code"
        )


def _digest(files: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n".encode())
    return whole.hexdigest()


def _zip_package(package: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(package.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                entry = zipfile.ZipInfo(path.relative_to(package.parent).as_posix(), _EPOCH)
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()
