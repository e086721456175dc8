"""Fetch jars into a cache, through Spark's own resolver, and check them by SHA-256.

Run in .venv-spark: by `make setup` for the two Iceberg jars, and with `--yarn` by the first `CLUSTER=yarn` for the jars
of Hadoop. A second call finds the jars and returns at once.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from dev import environment

ICEBERG_VERSION = "1.10.1"
RUNTIME = f"org.apache.iceberg:iceberg-spark-runtime-4.0_2.13:{ICEBERG_VERSION}"
BUNDLE = f"org.apache.iceberg:iceberg-aws-bundle:{ICEBERG_VERSION}"
JARS = {
    RUNTIME: "2192a0881ed0f5773b5a83a8820d2b0b2069beec203028643a1c338551007f09",
    BUNDLE: "86bf20892ea5b4c17688f19b075399885f6aa5303f6b2dc9f491e76ceef9633b",
}
"""SHA-256 of each jar by its Maven coordinate."""
YARN_JARS = Path("requirements", "yarn.jars")
"""The same for clusters of YARN: Hadoop's servers and S3 file system, of the version of PySpark's own Hadoop."""
# Spark's jars and Iceberg's bundle have what is needed of these 600 MB.
_NOT_FETCHED = (
    "software.amazon.awssdk:bundle,org.apache.hadoop:hadoop-client-api,org.apache.hadoop:hadoop-client-runtime"
)


class JarMismatch(Exception):
    """A jar is not the one that was pinned."""


class ResolverFailed(Exception):
    """Spark's resolver did not fetch a jar."""


def file_name(coordinate: str) -> str:
    """Return the jar's file name in the cache: artifact-version.jar."""
    _group, artifact, version = coordinate.split(":")
    return f"{artifact}-{version}.jar"


def paths(folder: Path) -> list[Path]:
    """Return the paths of the jars in `folder`, always in the same order."""
    return [folder / file_name(coordinate) for coordinate in JARS]


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def missing(folder: Path, jars: Mapping[str, str]) -> list[str]:
    """Return the coordinates of the jars that `folder` lacks, or holds with another digest."""
    return [
        coordinate
        for coordinate, digest in jars.items()
        if not (folder / file_name(coordinate)).is_file() or sha256(folder / file_name(coordinate)) != digest
    ]


def resolve(coordinates: list[str], ivy: Path) -> None:
    """Let Spark's resolver fetch `coordinates` into `ivy/jars`.

    Raises:
        ResolverFailed: with the resolver's own last words.
    """
    noop = ivy / "noop.py"
    noop.write_text("")
    submit = subprocess.run(
        [
            environment.spark_submit(),
            *("--master", "local[1]"),
            *("--conf", f"spark.jars.ivy={ivy}"),
            *("--packages", ",".join(coordinates)),
            *("--exclude-packages", _NOT_FETCHED),
            str(noop),
        ],
        check=False,
        capture_output=True,
        text=True,
        env=environment.for_spark() | {"SPARK_SUBMIT_OPTS": _proxy_options(urllib.request.getproxies())},
    )
    if submit.returncode:
        raise ResolverFailed(submit.stderr[-2000:])


def _proxy_options(proxies: Mapping[str, str]) -> str:
    """Return Java's options for the proxies of the environment, which Java itself does not read."""
    addresses = {scheme: urllib.parse.urlsplit(proxies[scheme]) for scheme in ("http", "https") if scheme in proxies}
    return " ".join(
        f"-D{scheme}.proxyHost={address.hostname} -D{scheme}.proxyPort={address.port or 80}"
        for scheme, address in addresses.items()
        if address.hostname
    )


def fetch(folder: Path, jars: Mapping[str, str]) -> None:
    """Fetch the jars that `folder` lacks; a jar appears there only once its digest has been checked.

    Raises:
        JarMismatch: what the resolver fetched is not what was pinned.
        ResolverFailed: the resolver did not fetch a jar.
    """
    coordinates = missing(folder, jars)
    if not coordinates:
        return
    folder.mkdir(parents=True, exist_ok=True)
    # The resolver reads brackets in the path of its folder as parts of a pattern, and a clone's path may have them.
    with tempfile.TemporaryDirectory(dir="/tmp") as ivy, tempfile.TemporaryDirectory(dir=folder) as checked:
        resolve(coordinates, Path(ivy))
        for coordinate in coordinates:
            group, artifact, version = coordinate.split(":")
            jar = Path(shutil.move(Path(ivy, "jars", f"{group}_{artifact}-{version}.jar"), checked))
            digest = sha256(jar)
            if digest != jars[coordinate]:
                raise JarMismatch(f"{coordinate} has SHA-256 {digest}, pinned is {jars[coordinate]}")
            jar.rename(folder / file_name(coordinate))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".cache/jars"))
    parser.add_argument("--yarn", action="store_true", help="the jars of Hadoop, in the folder yarn below")
    arguments = parser.parse_args()
    folder, jars = arguments.folder.resolve(), JARS
    if arguments.yarn:
        folder, jars = folder / "yarn", dict(line.split() for line in YARN_JARS.read_text().splitlines())
    try:
        fetch(folder, jars)
    except (JarMismatch, ResolverFailed) as error:
        names = ", ".join(map(file_name, jars))
        sys.exit(
            f"{error}\nERROR: the jars could not be fetched (cause above). Let Spark's resolver reach"
            f" Maven Central, or put these jars into {folder}: {names}"
        )


if __name__ == "__main__":
    main()
