"""The libraries of the nodes: really packed from their wheels, and really unpacked on this machine."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from fruits_airflow.config.releases import architecture
from fruits_airflow.emr.cluster_body import PACKED_PYTHON, load_profile

from ops import environment
from ops.environment import LOCK, MANIFEST, UV, EnvironmentFailed, Packed, pack, upload
from tests.dev.job_imports import MAP_IN_ARROW
from tests.local_aws.server import REPOSITORY
from tests.local_aws.test_bootstrap_script import Bucket
from tests.ops.conftest import Account

AARCH64 = 183  # e_machine of an ELF file
needs_uv = pytest.mark.skipif(not UV.exists(), reason="no uv: run make setup")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    return pack("arm64", tmp_path_factory.mktemp("environments"))


def members(packed: Packed) -> list[tarfile.TarInfo]:
    with tarfile.open(packed.path) as archive:
        return archive.getmembers()


@needs_uv
def test_the_libraries_of_graviton_are_packed_from_their_wheels(packed: Packed) -> None:
    machines: dict[str, int] = {}
    with tarfile.open(packed.path) as archive:
        for member in archive:
            if ".so" in member.name:
                content = archive.extractfile(member)
                assert content is not None
                head = content.read(20)
                if head[:4] == b"\x7fELF":
                    machines[member.name] = struct.unpack("<H", head[18:20])[0]
    assert set(machines.values()) == {AARCH64}
    assert len(machines) > 50
    tops = {name.split("/")[0] for name in machines}
    assert tops >= {"ai_edge_litert", "numpy", "obstore", "PIL", "pyarrow"}


AMAZON_LINUX_2023 = {
    "GLIBC": (2, 34),
    # libstdc++ and libgcc are those of GCC 14 since 2023.7 (April 2025), a year before emr-spark-8.0.0.
    "GLIBCXX": (3, 4, 33),
    "CXXABI": (1, 3, 15),
    "GCC": (14, 0, 0),
    "ZLIB": (1, 2, 9),
}
"""The newest symbol versions of the libraries that wheels take from the system."""


def symbol_versions(path: Path) -> Iterator[tuple[str, str]]:
    """Each version of symbols that a library of an archive needs: the library and, for example, GLIBC_2.34."""
    with tarfile.open(path) as archive:
        for member in archive:
            content = archive.extractfile(member) if ".so" in member.name else None
            if content is None or (data := content.read())[:4] != b"\x7fELF":
                continue
            for section in ELFFile(io.BytesIO(data)).iter_sections():
                if isinstance(section, GNUVerNeedSection):
                    for _, auxiliaries in section.iter_versions():
                        yield from ((member.name, auxiliary.name) for auxiliary in auxiliaries)


@needs_uv
@pytest.mark.parametrize("architecture_name", environment.PLATFORMS)
def test_the_libraries_need_no_newer_system_than_amazon_linux_2023(architecture_name: str, tmp_path: Path) -> None:
    newest: dict[str, tuple[int, ...]] = {}
    too_new = []
    for library, version in symbol_versions(pack(architecture_name, tmp_path).path):
        name, _, number = version.rpartition("_")
        if name in AMAZON_LINUX_2023 and number[0].isdigit():
            needed = tuple(map(int, number.split(".")))
            newest[name] = max(newest.get(name, ()), needed)
            if needed > AMAZON_LINUX_2023[name]:
                too_new.append((library, version))
    assert too_new == []
    assert newest.keys() >= {"GLIBC", "GLIBCXX"}, "the needs of the libraries were not read"


@needs_uv
def test_a_node_fetches_no_tensorflow_and_not_much(packed: Packed) -> None:
    names = {member.name.split("/")[0] for member in members(packed)}
    assert not {name for name in names if name.startswith(("tensorflow", "keras", "pyspark"))}
    assert packed.size_bytes < 160e6
    assert packed.unpacked_bytes < 400e6


@pytest.mark.slow
@needs_uv
def test_the_same_lock_gives_the_same_archive(packed: Packed, tmp_path: Path) -> None:
    assert pack("arm64", tmp_path).digest == packed.digest


@needs_uv
def test_the_archive_says_what_it_is_for(packed: Packed) -> None:
    with tarfile.open(packed.path) as archive:
        content = archive.extractfile(MANIFEST)
        assert content is not None
        manifest = json.load(content)
    assert (manifest["architecture"], manifest["python"]) == ("aarch64", "3.11")


@needs_uv
def test_it_is_uploaded_once_under_its_digest(packed: Packed, account: Account) -> None:
    bucket = account.server.make_bucket("environments")
    s3 = account.client("s3")
    assert upload(packed, s3, bucket)
    assert not upload(packed, s3, bucket)
    [item] = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert (item["Key"], item["Size"]) == (f"env/{packed.digest}/environment.tar.gz", packed.size_bytes)


@needs_uv
def test_a_wheel_that_does_not_fit_its_hash_is_not_packed(tmp_path: Path) -> None:
    lock = tmp_path / "node.lock"
    text = LOCK.read_text()
    begin = text.index("six==")
    lock.write_text(re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, text[begin:]))
    with pytest.raises(EnvironmentFailed, match="node.lock could not be packed for arm64"):
        pack("arm64", tmp_path, lock=lock)


def test_the_nodes_get_the_versions_that_the_jobs_are_tested_with() -> None:
    tested, on_nodes = (versions(path) for path in (REPOSITORY / "requirements" / "spark.lock", LOCK))
    assert {name: version for name, version in on_nodes.items() if tested.get(name) != version} == {}


def versions(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", lock.read_text(), re.MULTILINE))


def test_every_library_that_the_jobs_import_is_in_the_lock() -> None:
    sources = [path.read_text() for path in (REPOSITORY / "spark_jobs").rglob("*.py")]
    imported = {
        name for text in sources for name in re.findall(r"^ *(?:import|from) ([a-zA-Z_]\w*)", text, re.MULTILINE)
    }
    ours = {"fruits", *(path.stem for path in (REPOSITORY / "spark_jobs").glob("*.py"))}
    on_image = {"pyspark", "py4j"}
    reference_engine = {"h5py", "keras", "tensorflow"}
    needed = imported - ours - set(sys.stdlib_module_names) - on_image - reference_engine
    packages = {"PIL": "pillow", "ai_edge_litert": "ai-edge-litert"}
    assert {packages.get(name, name) for name in needed} <= versions(LOCK).keys()


@pytest.mark.parametrize("profile", ["demo", "nightly", "notebook"])
def test_each_profile_says_the_architecture_of_its_machines(profile: str) -> None:
    loaded = load_profile(profile)
    types = {config["InstanceType"] for fleet in loaded.instance_fleets for config in fleet["InstanceTypeConfigs"]}
    assert {architecture(name) for name in types} == {loaded.values["architecture"]}
    assert loaded.values["architecture"] in environment.PLATFORMS


def test_bootstrap_and_cluster_agree_on_the_place() -> None:
    script = (REPOSITORY / "include" / "bootstrap.sh").read_text()
    assert f"{re.search(r'^readonly home=(.*)$', script, re.MULTILINE)[1]}/bin/python" == PACKED_PYTHON  # type: ignore[index]


@pytest.mark.spark
@needs_uv
def test_a_node_of_this_architecture_boots_and_spark_maps_in_its_python(tmp_path: Path) -> None:
    """The first thing that a night does on a node: PySpark, which is the image's, imports pandas from our archive."""
    machine = {"aarch64": "arm64"}.get(subprocess.check_output(["uname", "-m"], text=True).strip(), "x86_64")
    packed = pack(machine, tmp_path / "packed")
    lake = tmp_path / "lake" / "env" / packed.digest
    lake.mkdir(parents=True)
    packed.path.rename(lake / "environment.tar.gz")
    ended = Bucket(tmp_path).boot(f"s3://lake/env/{packed.digest}/environment.tar.gz")
    assert ended.returncode == 0, ended.stderr
    image = tmp_path / "image"
    image.mkdir()
    [libraries] = (REPOSITORY / ".venv-node" / "lib").glob("python*/site-packages")
    for name in ("pyspark", "py4j"):
        (image / name).symlink_to(libraries / name)
    script = tmp_path / "job.py"
    script.write_text(MAP_IN_ARROW)
    kept = {name: os.environ[name] for name in ("PATH", "JAVA_HOME") if name in os.environ}
    done = subprocess.run(
        [image / "pyspark" / "bin" / "spark-submit", "--master", "local[1]", script],
        env=kept
        | {"SPARK_HOME": str(image / "pyspark"), "PYTHONPATH": str(image), "SPARK_LOCAL_IP": "127.0.0.1"}
        | {"PYSPARK_PYTHON": str(tmp_path / "opt" / "bin" / "python")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 rows" in done.stdout, done.stderr[-3000:]
