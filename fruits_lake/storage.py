"""Open the tables of a lake, and the files beside them, in a folder or in S3."""

import os
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path

from pyarrow import fs
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO
from pyiceberg.table import StaticTable, Table
from pyiceberg.table.metadata import TableMetadataUtil

Storage = tuple[str, fs.FileSystem, Callable[[str], Table]]
"""The URI of a lake, what lies below it (``runs/``, ``models/``), and what loads the current state of a table."""

MAX_JSON_BYTES, MAX_HINT_BYTES = 100_000_000, 20


class LakeError(Exception):
    """The lake cannot answer: what is wrong, with which value, and the remedy."""


class BoundedFileIO(PyArrowFileIO):
    """Reads what is below a location, in `folder` if that is where it is: metadata can name any file and server."""

    def __init__(self, location: str, folder: Path | None = None, settings: Mapping[str, str] = {}) -> None:
        super().__init__(dict(settings))
        self._location, self._folder = f"{location.rstrip('/')}/", folder

    def new_input(self, location: str) -> PyArrowFile:
        """Return a file, which must be below the location."""
        name, folder = location.removeprefix(self._location), self._folder
        if name == location or (folder and not (folder / name).resolve().is_relative_to(folder.resolve())):
            raise LakeError(f"{location} is outside {self._location}: name the folder or bucket that the table is in")
        if folder is None:
            return super().new_input(location)
        return PyArrowFile(location, str(folder / name), fs.LocalFileSystem())


def open_folder(folder: Path, database: str | None) -> Storage:
    """Open the lake of `make local`, of a notebook or of a demo."""
    root = folder / "lake" if (folder / "lake" / "tables").is_dir() else folder
    databases = sorted(path.name for path in root.glob("tables/*"))
    _require_files(root, folder)
    if database not in databases and (database or len(databases) != 1):
        raise LakeError(f"{root} has databases {databases}, not {database or 'one'}: name another folder or database")
    tables = root / "tables" / (database or databases[0])

    def load(name: str) -> Table:
        hint = tables / name / "metadata" / "version-hint.text"
        version = hint.read_text().strip() if hint.stat().st_size < MAX_HINT_BYTES else ""
        path = hint.with_name(f"v{version}.metadata.json")
        if not version.isdecimal() or path.stat().st_size > MAX_JSON_BYTES:
            raise LakeError(f"{hint} does not name metadata of at most {MAX_JSON_BYTES:,} bytes")
        metadata = TableMetadataUtil.parse_raw(path.read_text())
        io = BoundedFileIO(metadata.location, tables / name)
        return StaticTable((tables.name, name), metadata, str(path), io, NoopCatalog("folder"))

    return str(root), fs.SubTreeFileSystem(str(root), fs.LocalFileSystem()), load


def _require_files(root: Path, folder: Path) -> None:
    """Refuse links, which lead out of a stranger's folder, and pipes and devices, which never end."""
    tops = [root / name for name in ("tables", "runs", "models")]
    below = (Path(parent, name) for top in tops for parent, *names in os.walk(top) for name in chain(*names))
    for path in chain(tops, below, [root] if root != folder else ()):
        if path.is_symlink() or (path.exists() and not (path.is_file() or path.is_dir())):
            raise LakeError(f"{path} is a link, a pipe or a device: copy the lake with what its links lead to")


def open_bucket(bucket: str, database: str) -> Storage:
    """Open the lake of an AWS account: its tables by the Glue catalog, at ``AWS_ENDPOINT_URL`` if that is set."""
    from pyiceberg.catalog.glue import GlueCatalog

    region, endpoint = os.environ.get("AWS_REGION"), os.environ.get("AWS_ENDPOINT_URL")
    if not region:
        raise LakeError("no AWS region is set: export AWS_REGION, for example eu-west-1")
    settings = {"client.region": region} | ({"glue.endpoint": endpoint, "s3.endpoint": endpoint} if endpoint else {})
    catalog = GlueCatalog("lake", **settings)
    # A table's own properties are ignored: they can name Python code to call and a server that gets the requests.
    catalog._load_file_io = lambda *_, **__: BoundedFileIO(f"s3://{bucket}", None, settings)  # type: ignore[method-assign]

    files = fs.SubTreeFileSystem(bucket, fs.S3FileSystem(region=region, endpoint_override=endpoint))
    return f"s3://{bucket}", files, lambda name: catalog.load_table((database, name))
