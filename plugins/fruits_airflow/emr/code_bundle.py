"""The code that a cluster runs: fruits.zip, the job files and bootstrap.sh, below the digest of their content.

The same files have the same digest on every machine: the archive has sorted names and no times.
"""

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

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time in a ZIP archive


@dataclass(frozen=True)
class CodeBundle:
    """Content of the files to upload, by name."""

    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """SHA-256 of the sorted names and the digests of the contents, in hexadecimal."""
        digest = hashlib.sha256()
        for name in sorted(self.files):
            digest.update(f"{name}\0{hashlib.sha256(self.files[name]).hexdigest()}\n".encode())
        return digest.hexdigest()


def build_bundle(repository: Path = REPOSITORY) -> CodeBundle:
    """Pack the files of the repository.

    Raises:
        ConfigError: A job file, the library or bootstrap.sh is missing.
    """
    jobs = repository / "spark_jobs"
    sources = {f"{job}.py": jobs / f"{job}.py" for job in JOBS}
    sources["bootstrap.sh"] = repository / "include" / "bootstrap.sh"
    required = (*sources.values(), jobs / "fruits")
    if missing := [str(path.relative_to(repository)) for path in required if not path.exists()]:
        raise ConfigError(f"code to upload: {', '.join(missing)} missing; deploy the whole repository")
    files = {name: path.read_bytes() for name, path in sources.items()}
    files["fruits.zip"] = _zip_package(jobs / "fruits")
    return CodeBundle(files)


def upload_bundle(bundle: CodeBundle, lake: Lake) -> int:
    """Upload the files that are missing in the lake, and verify all of them.

    Returns:
        Number of new objects.

    Raises:
        CodeMismatch: An object below this digest has different content.
    """
    new = sum(lake.write_once(f"code/{bundle.digest}/{name}", content) for name, content in bundle.files.items())
    verify_code(lake, bundle.digest)
    return new


def verify_code(lake: Lake, digest: str) -> None:
    """Read the code below `code/<digest>/` and compare its digest.

    Raises:
        CodeMismatch: The code is incomplete or has changed.
    """
    names = [*(f"{job}.py" for job in JOBS), "bootstrap.sh", "fruits.zip"]
    objects = {name: lake.read(f"code/{digest}/{name}") for name in names}
    files = {name: content for name, content in objects.items() if content is not None}
    actual = CodeBundle(files).digest
    if actual != digest:
        absent = [name for name in names if name not in files]
        problem = f"lacks {', '.join(absent)}" if absent else f"has digest {actual[:16]}"
        raise CodeMismatch(
            f"{lake.uri(f'code/{digest}/')} {problem}: changed after its upload; "
            "find out who writes there, delete the folder and clear upload_code"
        )


def _zip_package(package: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(package.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                entry = zipfile.ZipInfo(path.relative_to(package.parent).as_posix(), _EPOCH)
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()
