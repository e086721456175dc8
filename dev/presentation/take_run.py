"""Run the demo over a folder of photos and keep what the presentation shows of it, in data/.

Run by `make presentation-data IMAGES=… WEIGHTS=…`, in .venv-airflow. Nothing in data/ is typed, except defence.json.
run.json and stages/ are what the run itself wrote to the lake, machine.json says where and when, map.json holds the
sampled photos' first two components. screens/ shows the run's pages, photos/ a few of the input's photos as they are
(docs/presentation/data/LICENSE). The run reads copies: each tenth JPEG gets the EXIF of a phone, for loading to remove.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
from PIL import Image

from bench.machine import describe
from dev.demo.drawing import phone_exif

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "presentation"
DEMO = ROOT / "build" / "demo"
PHOTOS = ROOT / "build" / "presentation-photos"
EXIF_EVERY = 10
MACHINE = ("cpu", "cores", "memory_gib", "date", "commit")
STAGES = ("load_images", "featurize", "reduce_pca", "publish")
LABELS_SHOWN = 10
KEPT_UP = re.compile(r"Airflow is on (http://\S+) ")
LIMIT_S = 3600


def main() -> int:
    """Run the demo and write data/; OUT names another folder."""
    out = Path(os.environ.get("OUT") or FOLDER / "data")
    images = Path(os.environ["IMAGES"])
    plant_metadata(images, PHOTOS)
    load_before = psutil.getloadavg()[0]
    log = Path(out / "demo.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    demo = subprocess.Popen(
        ["make", "-s", "demo", f"IMAGES={PHOTOS}", "KEEP=1"],  # arguments: those of the outer make go before variables
        cwd=ROOT,
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        subprocess.run([sys.executable, FOLDER / "take_screens.py", _airflow(demo, log)], check=True)
        keep_run(out)
    finally:
        os.killpg(demo.pid, signal.SIGINT)
        demo.wait(120)
    (out / "machine.json").write_text(_json(machine(load_before)))
    keep_photos(images, out / "photos")
    log.unlink()
    return 0


def _airflow(demo: subprocess.Popen[bytes], log: Path) -> str:
    """Wait for the end of the demo's runs; return the URL of its Airflow."""
    deadline = time.monotonic() + LIMIT_S
    while not (kept := KEPT_UP.search(log.read_text())):
        if demo.poll() is not None:
            raise SystemExit(f"ERROR: make demo ended with {demo.returncode}:\n{log.read_text()}")
        if time.monotonic() > deadline:
            raise SystemExit(f"ERROR: make demo is still at work after {LIMIT_S} s:\n{log.read_text()}")
        time.sleep(1)
    return kept[1]


def keep_run(out: Path) -> None:
    """Write run.json, stages/ and map.json of the demo's run, from its copy of the lake."""
    run = DEMO / "lake" / "runs" / json.loads((DEMO / "run.json").read_text())["run_id"]
    (out / "stages").mkdir(parents=True, exist_ok=True)
    for name in ("run.json", *(f"stages/{stage}.json" for stage in STAGES)):
        shutil.copyfile(run / name, out / name)
    sample = pq.read_table(run / "sample.parquet", columns=["label", "pc1", "pc2"])
    (out / "map.json").write_text(
        _json([[row["label"], round(row["pc1"], 3), round(row["pc2"], 3)] for row in sample.to_pylist()])
    )


def plant_metadata(images: Path, folder: Path) -> None:
    """Copy the files of `images`, each tenth JPEG with the EXIF of a phone before its unchanged pixels."""
    shutil.rmtree(folder, ignore_errors=True)
    rng = random.Random(0)  # noqa: S311 - an invented place, no secret
    for i, path in enumerate(sorted(path for path in images.rglob("*") if path.is_file())):
        content, target = path.read_bytes(), folder / path.relative_to(images)
        if i % EXIF_EVERY == 0 and content.startswith(b"\xff\xd8"):
            exif = phone_exif(rng, orientation=1).tobytes()
            content = content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + content[2:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def keep_photos(images: Path, out: Path) -> None:
    """Copy a photo of each of a few labels, spread evenly over them."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    by_label = {path.parent.name: path for path in sorted(images.rglob("*.jpg"), reverse=True)}
    labels = sorted(by_label)
    chosen = [labels[i * (len(labels) - 1) // (LABELS_SHOWN - 1)] for i in range(LABELS_SHOWN)]
    index = []
    for label in dict.fromkeys(chosen):
        name = f"{re.sub(r'[^a-z0-9]+', '-', label.lower()).strip('-')}.jpg"
        shutil.copyfile(by_label[label], out / name)
        with Image.open(by_label[label]) as photo:
            index.append({"file": name, "label": label, "width_px": photo.width, "height_px": photo.height})
    (out / "index.json").write_text(_json(index))


def machine(load_before: float) -> dict[str, Any]:
    """Describe where and when the run took place."""
    facts = describe()
    return {key: facts[key] for key in MACHINE} | {
        "load_average_before": round(load_before, 2),
        "photos": "Fruits-360" if "fruits360" in os.environ["IMAGES"] else "drawn",
        "aws": "local_aws",
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
