"""What is lost of a photo's features by what is stored of it: `.venv-spark/bin/python docs/scale/pixels_trial.py`.

The features of `images.clean(photo).pixels` beside those of the photo itself, decoded whole; with the real weights
where they are at hand (`../shared/weights`), else with random ones. Small photos are those of `../shared/images`, 100
px, else drawn; large ones are the same, enlarged to 12 megapixels under a seeded grain, and pictures of seeded noise.
Writes pixels_trial.json beside this file.
"""

from __future__ import annotations

import io
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(REPOSITORY / "spark_jobs"), str(REPOSITORY)]

import numpy as np  # noqa: E402 - needs the path above
from fruits.images import decoding  # noqa: E402
from fruits.model.embedding import LiteRtEmbedder  # noqa: E402
from fruits.model.preprocessing import fill  # noqa: E402
from photo_trial import QUALITY, photo  # noqa: E402 - beside this file
from PIL import Image  # noqa: E402

from bench.photos import shared_folder, sources  # noqa: E402
from dev import make_model  # noqa: E402

SMALL = 60
LARGE = 20
SIZE = (4000, 3000)
GRAIN = 8.0
"""Standard deviation of the grain over an enlarged photo, of 255: of a phone's sensor in poor light."""


def enlarged(data: bytes, seed: int) -> bytes:
    """Return a 12-megapixel JPEG of a small photo with grain."""
    with Image.open(io.BytesIO(data)) as small:
        pixels = np.asarray(small.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC), np.float32)
    draw = np.random.default_rng(seed)
    grain = draw.normal(0, GRAIN, pixels.shape[:2]).astype(np.float32)
    out = io.BytesIO()
    noisy = np.clip(pixels + grain[..., None], 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def embedder() -> tuple[Callable[[bytes], np.ndarray], str]:
    """Return a function from an encoded picture to its (1280,) features, and the origin of the weights."""
    weights = sorted((shared_folder() / "weights").glob("*.h5"))
    models = REPOSITORY / ".cache" / "models"
    card = make_model.make(str(weights[0]) if weights else "random", models)
    model = LiteRtEmbedder((models / card["model_id"] / card["file"]).read_bytes(), 1)

    def features(data: bytes) -> np.ndarray:
        fill(data, model.buffer[0])
        return model.embed()[0].copy()

    return features, card["weights"]


def compare(features: Callable[[bytes], np.ndarray], photos: list[bytes], stored_px: int) -> dict[str, Any]:
    """Compare the features of stored pixels, shorter side at least `stored_px`, with the photos' own."""
    decoding.STORED_PX = stored_px
    cosines, largest, sizes, equal = [], [], [], 0
    for data in photos:
        pixels = decoding.clean(data).pixels
        original, stored = features(data), features(pixels)
        cosines.append(float(original @ stored / np.linalg.norm(original) / np.linalg.norm(stored)))
        largest.append(float(np.abs(original - stored).max()))
        sizes.append(len(pixels))
        equal += original.tobytes() == stored.tobytes()
    return {
        "photos": len(photos),
        "stored_px": stored_px,
        "equal_to_the_bit": equal,
        "least_cosine": round(min(cosines), 5),
        "largest_difference": round(max(largest), 3),
        "mean_of_the_largest_differences": round(statistics.mean(largest), 3),
        "mean_stored_bytes": round(statistics.mean(sizes)),
    }


def trial() -> dict[str, Any]:
    """Measure small photos, and large ones as stored and with twice the pixels on each side."""
    features, weights = embedder()
    stored_px = decoding.STORED_PX
    small = [path.read_bytes() for path in sources(REPOSITORY / "build" / "pixels_trial")[:SMALL]]
    large = [enlarged(data, seed) for seed, data in enumerate(small[:LARGE])]
    noise = [photo(*SIZE, seed=seed) for seed in range(LARGE)]
    return {
        "weights": weights,
        "small": compare(features, small, stored_px),
        "large": compare(features, large, stored_px),
        "large_twice": compare(features, large, 2 * stored_px),
        "noise": compare(features, noise, stored_px),
        "noise_twice": compare(features, noise, 2 * stored_px),
    }


if __name__ == "__main__":
    results = trial()
    (HERE / "pixels_trial.json").write_text(json.dumps(results, indent=1) + "\n")
    sys.stdout.write(json.dumps(results) + "\n")
