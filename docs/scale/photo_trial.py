"""What a phone's photo costs beside a small one, in our jobs: `.venv-spark/bin/python docs/scale/photo_trial.py`.

The benchmark's photos have 100 x 100 px; a phone's have 12 megapixels. One is drawn here (blurred noise, so that its
JPEG is as large as a real one's), and both go through the very functions that load_images and featurize call. Processor
time, so that a busy machine does not count. Writes photo_trial.json beside this file.
"""

from __future__ import annotations

import io
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "spark_jobs"))

import numpy as np  # noqa: E402 - needs the path above
from fruits.images import decoding  # noqa: E402
from fruits.model import preprocessing  # noqa: E402
from fruits.model.networks import MOBILENET_V2  # noqa: E402
from PIL import Image, ImageFilter  # noqa: E402

SIZES = {"small": (100, 100), "phone": (4000, 3000)}
REPEATS = 15
QUALITY = 88
SEED = 12


def photo(width: int, height: int, seed: int = SEED) -> bytes:
    """Return a JPEG with shapes and grain."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = Image.fromarray(draw.integers(0, 255, (height, width), dtype=np.uint8))
    fine = np.asarray(grain.filter(ImageFilter.GaussianBlur(1.2)), dtype=np.int16) - 128
    pixels = np.clip(smooth + fine[..., None], 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def trial(width: int, height: int) -> dict[str, Any]:
    """Return medians over a few runs of `decoding.clean` (load) and `preprocessing.fill` (featurize)."""
    data = photo(width, height)
    took = []
    for _ in range(REPEATS):
        started = time.process_time()
        cleaned = decoding.clean(data)
        took.append(time.process_time() - started)
    buffer = np.empty((MOBILENET_V2.input_px, MOBILENET_V2.input_px, 3), np.float32)
    read = []
    for _ in range(REPEATS):
        started = time.process_time()
        preprocessing.fill(cleaned.pixels, buffer)
        read.append(time.process_time() - started)
    return {
        "width_px": width,
        "height_px": height,
        "bytes": len(data),
        "clean_ms": round(statistics.median(took) * 1000, 2),
        "fill_ms": round(statistics.median(read) * 1000, 2),
        "stored_bytes": len(cleaned.pixels),
        "stored_px": [cleaned.width_px, cleaned.height_px],
    }


if __name__ == "__main__":
    results = {name: trial(*size) for name, size in SIZES.items()}
    (HERE / "photo_trial.json").write_text(json.dumps(results, indent=1) + "\n")
    sys.stdout.write(json.dumps(results) + "\n")
