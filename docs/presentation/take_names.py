"""Let `make local` name photos for the presentation: behind data/classifier.json and data/names.json.

Run in .venv-spark as `IMAGES=… WEIGHTS=… python docs/presentation/take_names.py`. The classifier of the first run is
judged by the photos that it holds out. In the second, the photos of data/photos come without a label, and no other
photo of their rotation series comes at all, so that the classifier has seen neither.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "docs" / "presentation" / "data"
sys.path[:0] = [str(ROOT), str(ROOT / "spark_jobs")]

from fruits.base import keys  # noqa: E402 - after the path

from dev import run_local  # noqa: E402
from fruits_lake import Lake  # noqa: E402


def main() -> None:
    """Run both and write the files."""
    images = Path(os.environ["IMAGES"])
    with tempfile.TemporaryDirectory() as folder:
        classifier = _classifier(images, Path(folder, "all"))
        without = Path(folder, "photos")
        labels = hide(images, without)
        _classifier(without, Path(folder, "names"))
        rows = {row["source_key"]: row for row in Lake.open(Path(folder, "names")).vectors().to_pylist()}
    kept = ("learned", "judged", "near_equal", "top1", "top3", "answered", "wrong_answers", "confusion")
    _write("classifier.json", {name: classifier[name] for name in kept})
    names = [{"file": file, "label": label, "name": rows[file]["predicted"]} for file, label in labels.items()]
    _write("names.json", [name | {"confidence": rows[name["file"]]["confidence"]} for name in names])


def hide(images: Path, out: Path) -> dict[str, str]:
    """Copy photos, those of data/photos without a label and without their series; return their labels by file name."""
    index = json.loads((DATA / "photos" / "index.json").read_text())
    shown = {hashlib.sha256((DATA / "photos" / row["file"]).read_bytes()).digest() for row in index}
    paths = sorted(images.rglob("*.jpg"))
    series = {
        (path.parent.name, keys.sequence(path.name))
        for path in paths
        if hashlib.sha256(path.read_bytes()).digest() in shown
    }
    for path in paths:
        if (path.parent.name, keys.sequence(path.name)) not in series:
            (out / path.relative_to(images)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / path.relative_to(images))
    for row in index:
        shutil.copyfile(DATA / "photos" / row["file"], out / row["file"])
    return {row["file"]: row["label"] for row in index}


def _classifier(images: Path, out: Path) -> Any:
    weights = os.environ["WEIGHTS"]
    metrics = run_local.run(
        run_local.parser().parse_args([f"--images={images}", f"--out={out}", f"--weights={weights}"])
    )
    return metrics["publish"]["classifier"]


def _write(name: str, value: Any) -> None:
    (DATA / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
