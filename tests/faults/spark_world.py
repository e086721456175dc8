"""Real Spark beside a real Airflow: photos, a model, Iceberg tables, and nights to disturb."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.aws_keys import KEYS
from tests.faults import invariants
from tests.faults.world import CANARY, RAW_PREFIX, REPOSITORY, Aws, Deployment, Pipeline, Run, closing_all, until

SPARK_PYTHON = REPOSITORY / ".venv-spark" / "bin" / "python"
NODE_PYTHON = REPOSITORY / ".venv-node" / "bin" / "python"
JARS = REPOSITORY / ".cache" / "jars"
LARGE = f"{RAW_PREFIX}Training/Apple 0/large.png"
"""The photo whose decoder needs more at once than a worker has had, may still have, or frees meanwhile: 144 MB."""
COLOURS = ((90, 90, 200), (200, 60, 60), (60, 190, 80))
PHOTOS = 108  # a classifier needs 100 with a label
OTHER_SIZES = itertools.count(50)
"""Numbers of components, none twice: after a test that failed, the next one publishes another model all the same."""
LIMIT = 1000  # more than there are: the run is a demo's, so that random weights may publish


class SparkDeployment(Deployment):
    """A deployment with real photos and a real model, whose runs write to the demo tables."""

    model: dict[str, Any]

    @property
    def database(self) -> str:
        return self.outputs["DemoDatabase"]

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            **{"FRUITS_DATABASE": self.outputs["NightlyDatabase"], "FRUITS_MODEL_ID": self.model["model_id"]},
            **{"FRUITS_POLL_S": "0.5", "FRUITS_STEP_TIMEOUT_MINUTES": "600"},
            "FRUITS_HELD_OUT_SHARE": "0.5",  # so that a few photos judge a classifier
        }

    def photo_bodies(self) -> dict[str, bytes]:
        from PIL import Image

        found = {}
        for number in range(self.photos):
            draw, label = random.Random(number), number % len(COLOURS)
            picture = Image.new("RGB", (48, 48), COLOURS[label])
            for _ in range(6):
                x, y = draw.randrange(48), draw.randrange(48)
                colour = tuple(draw.randrange(256) for _ in "rgb")
                picture.paste(colour, (x, y, x + draw.randrange(4, 20), y + draw.randrange(4, 20)))
            exif = Image.Exif()
            exif[0x010E] = CANARY
            sink = io.BytesIO()
            picture.save(sink, "JPEG", exif=exif, quality=95)
            found[f"{RAW_PREFIX}Training/Apple {label}/{number}.jpg"] = sink.getvalue()
        large = io.BytesIO()
        Image.new("RGB", (8000, 6000), (90, 160, 30)).save(large, "PNG", exif=exif)
        found[LARGE] = large.getvalue()
        return found | {f"{RAW_PREFIX}broken/page.jpg": f"<html>{CANARY}".encode()}

    def create(self) -> None:
        made = subprocess.run(
            [SPARK_PYTHON, "dev/make_model.py", "--weights", "random"],
            **{"cwd": REPOSITORY, "capture_output": True, "text": True, "timeout": 600, "check": True},
        )
        self.model = json.loads(made.stdout.strip().splitlines()[-1])
        super().create()
        folder = REPOSITORY / ".cache" / "models" / self.model["model_id"]
        for path in folder.iterdir():
            key = f"models/{folder.name}/{path.name}"
            self.aws.client("s3").put_object(Bucket=self.lake, Key=key, Body=path.read_bytes())


def iceberg_tables(deployment: Deployment) -> dict[str, list[Any]]:
    """The rows of each table.

    Raises:
        TablesUnreadable: pyiceberg cannot read one.
    """
    return dict(json.loads(_iceberg("read_iceberg.py", deployment)))


def _iceberg(program: str, deployment: Deployment, *arguments: str) -> str:
    command = [SPARK_PYTHON, f"tests/faults/{program}", deployment.aws.endpoint, deployment.database, *arguments]
    env = {**os.environ, **KEYS.environment}
    done = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise invariants.TablesUnreadable(done.stderr.strip().splitlines()[-1])
    return done.stdout


@contextmanager
def spark_nights(folder: Path, name: str, *options: str) -> Iterator[tuple[SparkDeployment, Pipeline]]:
    """A deployment of its own after an undisturbed first night.

    Args:
        folder: for its files.
        name: its deployment_id.
        options: further ones of `local_aws`.
    """
    java = (REPOSITORY / ".cache" / "ready" / "java_home").read_text().strip()
    spark = ["--spark-python", str(NODE_PYTHON), "--jars-dir", str(JARS), "--java-home", java]
    aws = Aws(folder, *spark, *options)
    with closing_all(aws):
        deployment = SparkDeployment(aws, name=name, photos=PHOTOS)
        deployment.create()
        pipeline = Pipeline(deployment, folder / "airflow")
        with closing_all(pipeline):
            first = pipeline.run(seconds=600, limit=LIMIT)
            assert first.state == "success", pipeline.tail()
            assert invariants.check(deployment, first, iceberg_tables) == []
            yield deployment, pipeline


class Nights:
    """Nights that do everything again, so that each stage has work for a fault to hit."""

    def __init__(self, deployment: SparkDeployment, pipeline: Pipeline) -> None:
        self.deployment, self.pipeline, self.aws = deployment, pipeline, deployment.aws
        self.before = invariants.digest(self._read(deployment))
        self.names_before = self.names()

    def begin(self, **conf: Any) -> Callable[[], Run]:
        return self.pipeline.start(**{"seconds": 600, "limit": LIMIT, "full_refresh": True} | conf)

    def begin_and_hold(self, table: str) -> tuple[Callable[[], Run], int]:
        """A night that publishes another PCA model and another classifier, held as it is about to commit to a table."""
        key = f"tables/.*/{table}/metadata/.*metadata.json"
        number = self.aws.arm(kind="held", service="s3", operation="PutObject", key=key, times=1)
        wait = self.begin(full_refresh=False, force=True, k=next(OTHER_SIZES))
        self.held(number, 500)
        return wait, number

    def names(self) -> dict[str, str]:
        """What readers take each photo for: the names of the current classifier."""
        tables = self._last_read
        (current,) = (row["classifier_id"] for row in tables["classifiers"])
        return {
            row["image_id"]: f"{current} {row['label']} {row['confidence']}"
            for row in tables["predictions"]
            if row["classifier_id"] == current
        }

    def held(self, number: int, seconds: float = 240) -> None:
        until(lambda: self.aws.fault(number)["holding"], "a call to be held", seconds)

    def end(
        self, wait: Callable[[], Run], broken: list[str], expected: str, names: str = "", published: bool = False
    ) -> None:
        """Wait for the night's end, check all, and have a failed one done again.

        Args:
            wait: waits for it.
            broken: gets what does not hold.
            expected: how it ends.
            names: "same" as before, or "other", are those that readers see after it.
            published: whether a failed night had published its PCA model before.
        """
        run = wait()
        self.aws.disarm()
        broken += invariants.check(self.deployment, run, self._read, red_though_published=published)
        assert broken == [], self.pipeline.tail()
        assert (self.deployment.record(run.run_id) or {})["state"] == expected, self.pipeline.tail()
        if names:
            self.compare_names(broken, names)
        if expected == "failed" or names:
            again = self.pipeline.run(seconds=600, limit=LIMIT, force=True)
            broken += invariants.check(self.deployment, again, self._read)
            assert again.state == "success", self.pipeline.tail()
        if invariants.digest(self._last_read) != self.before:
            broken.append("another night over the same photos gave another result")
        assert broken == []

    def compare_names(self, broken: list[str], expected: str, *, anew: bool = False) -> None:
        """Note it if the names that readers see are not those expected, "same" as before or "other"."""
        if anew:
            self._read(self.deployment)
        if (self.names() == self.names_before) != (expected == "same"):
            broken.append(f"readers see names that are not {expected}")

    def _read(self, deployment: Deployment) -> dict[str, list[Any]]:
        """Reads the tables, and keeps what it read for the digest: each reading takes seconds."""
        self._last_read = iceberg_tables(deployment)
        return self._last_read

    def commit_beside(self, word: str | None = None) -> dict[str, str]:
        """Commits a word to each table, as another writer would; gives what each table says."""
        return dict(json.loads(_iceberg("write_iceberg.py", self.deployment, *([word] if word else []))))

    def fill_the_disk(self) -> None:
        """Fills the disk that `disk_full` has given to a step."""
        (driver,) = self.processes("SparkSubmit")
        room = Path(f"/proc/{driver.pid}/root{driver.environ()['SPARK_LOCAL_DIRS']}")
        with (room / "fill").open("wb", buffering=0) as sink, contextlib.suppress(OSError):
            while True:
                sink.write(bytes(1 << 16))

    def step_log(self, stage: str) -> str:
        """What the last step of a stage wrote to stderr."""
        *_, (cluster, step) = (
            (cluster["Id"], step["Id"])
            for cluster in self.aws.clusters(self.deployment.cluster_prefix)
            for step in cluster["Steps"]
            if step["Name"].startswith(f"{stage}/")
        )
        keys = [one for one in self.aws.keys(self.deployment.lake) if f"{cluster}/steps/{step}/stderr" in one]
        return gzip.decompress(self.aws.read(self.deployment.lake, keys[0]) or b"").decode(errors="replace")

    def processes(self, word: str) -> list[psutil.Process]:
        """Processes of steps whose command line holds a word."""
        found = []
        for one in psutil.Process(self.aws.process.pid).children(recursive=True):
            try:
                if any(word in part for part in one.cmdline()):
                    found.append(one)
            except psutil.NoSuchProcess:
                continue
        return found


def commit(when: str, operation: str = "UpdateTable") -> dict[str, Any]:
    """A call of Iceberg's commit, held."""
    return {"kind": "held", "service": "glue", "operation": operation, "when": when, "times": 1}
