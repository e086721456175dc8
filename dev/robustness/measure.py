"""Name the photos that a lake's classifier was judged by after altering them, each alteration in three strengths.

The first step of `make robustness`, in .venv-spark. Decoding, network, PCA model, classifier and thresholds are those
of the jobs: `fruits_lake.Lake.answer`.
"""

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from fruits.classifier.evaluation import rate
from fruits.classifier.label_sums import normalize
from fruits.classifier.split import LabelledPhoto, near_equal, split
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from fruits_lake import Lake, LakeError
from fruits_lake.storage import open_folder

MOST_PHOTOS = 500
_GREEN = (0, 0, 0, 0, 1, 0, 0, 0, 0)  # of a colour matrix


def _corner(photo: Image.Image) -> Any:
    """Return the colour of a corner, which stands for the background."""
    return photo.getpixel((0, 0))


def _noise(photo: Image.Image, deviation: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, deviation, (photo.height, photo.width, 3))
    return Image.fromarray(np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8))


def _jpeg(photo: Image.Image, quality: float) -> Image.Image:
    photo.save(out := io.BytesIO(), "JPEG", quality=int(quality))
    return Image.open(out)


def _occlusion(photo: Image.Image, percent: float) -> Image.Image:
    edge = (1 - (percent / 100) ** 0.5) / 2
    left, top, right, bottom = (round(side * share) for share in (edge, 1 - edge) for side in photo.size)
    photo.paste("grey", (left, top, right, bottom))
    return photo


def _scale(photo: Image.Image, percent: float) -> Image.Image:
    width, height = (round(side * (1 - percent / 100) / 2) for side in photo.size)
    return ImageOps.expand(ImageOps.scale(photo, percent / 100), (width, height), _corner(photo))


def _background(photo: Image.Image, percent: float) -> Image.Image:
    """Blend what has the colour of the corner, within 24 of 255, with soil and leaves."""
    ground = ImageOps.colorize(Image.radial_gradient("L").resize(photo.size), "darkgreen", "saddlebrown")
    distance = ImageChops.difference(photo, Image.new("RGB", photo.size, _corner(photo))).convert("L")
    return Image.composite(photo, Image.blend(photo, ground, percent / 100), distance.point(lambda v: 255 * (v > 24)))


Alteration = Callable[[Image.Image, float], Image.Image]
ALTERATIONS: dict[str, tuple[str, tuple[float, ...], Alteration]] = {
    "none": ("", (0,), lambda p, _: p),
    "crop": ("{:g} % of each edge", (5, 15, 30), lambda p, s: ImageOps.crop(p, int(max(p.size) * s / 100))),
    "rotation": ("{:g}°", (10, 45, 90), lambda p, s: p.rotate(s, Image.Resampling.BICUBIC, fillcolor=_corner(p))),
    "blur": ("{:g} % of the side", (1, 2, 4), lambda p, s: p.filter(ImageFilter.GaussianBlur(max(p.size) * s / 100))),
    "noise": ("deviation {:g} of 255", (10, 25, 60), _noise),
    "darkness": ("{:g} % of the light", (60, 30, 10), lambda p, s: ImageEnhance.Brightness(p).enhance(s / 100)),
    "brightness": ("{:g} % of the light", (130, 180, 250), lambda p, s: ImageEnhance.Brightness(p).enhance(s / 100)),
    "JPEG": ("quality {:g}", (50, 20, 5), _jpeg),
    "white balance": (
        "{:g} % warmer",
        (10, 25, 50),
        lambda p, s: p.convert("RGB", (1 + s / 100, *_GREEN, 1 - s / 100, 0)),
    ),
    "occlusion": ("{:g} % of the area", (10, 25, 50), _occlusion),
    "scale": ("{:g} % of the size", (75, 50, 25), _scale),
    "background": ("{:g} % soil and leaves", (33, 66, 100), _background),
    "motion": (
        "{:g} % of the side",
        (2, 5, 10),
        lambda p, s: p.filter(ImageFilter.BoxBlur((max(p.size) * s / 200, 0))),
    ),
}


def alter(photo: bytes, kind: str, strength: float) -> bytes:
    """Return a photo after an alteration, as PNG."""
    altered = ALTERATIONS[kind][2](Image.open(io.BytesIO(photo)).convert("RGB"), strength)
    altered.save(out := io.BytesIO(), "PNG", compress_level=1)
    return out.getvalue()


def measure(folder: Path, kinds: Iterable[str] = ALTERATIONS) -> dict[str, Any]:
    """Return the rates of the photos held out after each alteration, `none` among them, as JSON has them."""
    storage = open_folder(folder, None)
    lake, images = Lake(storage), storage[2]("images")
    rows = storage[2]("classifiers").scan(selected_fields=("classifier_id", "settings", "published_at")).to_arrow()
    if not rows:
        raise LakeError(f"no classifier is published in {lake.uri}: it needs labelled photos of two labels or more")
    current = rows.sort_by("published_at").to_pylist()[-1]
    contents = images.scan(selected_fields=("image_id", "content_sha256")).to_arrow().to_pylist()
    content = {row["image_id"]: row["content_sha256"] for row in contents}
    vectors = {
        LabelledPhoto(row["image_id"], label, row["source_key"], content[row["image_id"]]): row["pca"]
        for row in lake.vectors().to_pylist()
        if row["image_id"] in content and (label := normalize(row["label"]))
    }
    sides = split([*vectors], float(re.findall(r"held_out_share=(\S+)", current["settings"])[0]))
    held_out, learned = (
        (np.array([vectors[photo] for photo in side], np.float32), [photo.label for photo in side])
        for side in (sides.held_out, sides.learned)
    )
    near = near_equal(*held_out, *learned)
    label_of = {photo.image_id: photo.label for photo in np.array(sides.held_out)[~near][:MOST_PHOTOS]}
    where, columns = f"image_id IN {(*label_of, '')}", ("image_id", "pixels")
    photos = images.scan(where, selected_fields=columns).to_arrow().to_pylist()
    own, result = np.array([label_of[photo["image_id"]] for photo in photos]), []
    for kind, strength in [(name, strength) for name in kinds for strength in ALTERATIONS[name][1]]:
        labels, answers = lake.answer([alter(photo["pixels"], kind, strength) for photo in photos])
        right, known = np.array(labels)[answers.ranked[:, 0]] == own, answers.is_known
        rates = {"top1": rate(right), "answered": rate(known), "wrong_answers": rate(~right[known])}
        text = ALTERATIONS[kind][0].format(strength)
        print(f"{kind} {text}: {rates['top1']['share']:.1%} right", flush=True)
        result.append({"kind": kind, "strength": text} | rates)
    facts = {"classifier_id": current["classifier_id"], "labels": len(set(own)), "photos": len(own)}
    return facts | {"rows": result}


def main() -> None:
    """Measure the lake in LAKE and write robustness.json; exit with 1 and the reason where that cannot be done."""
    try:
        result = measure(Path(os.environ["LAKE"]))
    except (LakeError, OSError) as error:
        sys.exit(f"ERROR {error}")
    out = Path("build/robustness/robustness.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
