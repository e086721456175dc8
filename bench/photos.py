"""The photos that everybody is measured on: real ones made many, no two of equal bytes.

Sources are the 100 x 100 photos of `../shared/images/fruits360_sample` (`FRUITS_SHARED` names another place); without
them, pictures that `dev.demo.drawing` makes. The first pass over the sources keeps their bytes. Each further pass
turns, mirrors and crops them and writes them anew as JPEG, so that nothing can be remembered from photo to photo.
A smaller set is the beginning of a larger one, as hard links. Photos of 12 megapixels are enlarged from them, with the
noise of a sensor: JPEGs of some 4 MB, as a phone writes them.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
TURNS = [None, *Image.Transpose]
QUALITY = 92
SEED = 360
FOLDERS = 16
PHONE_PX = (4032, 3024)
NOISE = 6.0
"""Standard deviation of a pixel of a phone's sensor, of 255."""


class TooFewPhotos(Exception):
    """No source gave enough photos."""


def shared_folder() -> Path:
    """Return the folder of photos and weights outside the repository."""
    return Path(os.environ.get("FRUITS_SHARED", REPOSITORY.parent / "shared"))


def sources(drawn: Path) -> list[Path]:
    """Return the source photos: real ones, else drawn into `drawn`; shuffled by a seed, so that labels are mixed."""
    paths = sorted((shared_folder() / "images" / "fruits360_sample").rglob("*.jpg"))
    if not paths:
        from dev.demo.drawing import draw_fruits

        if not drawn.is_dir():
            draw_fruits(drawn, per_label=40)
        paths = sorted(drawn.rglob("*.jpg"))
    order = np.random.default_rng(SEED).permutation(len(paths))
    return [paths[i] for i in order]


def variant(data: bytes, number: int) -> bytes:
    """Return the `number`-th version of a photo; 0 is the photo itself."""
    if number == 0:
        return data
    with Image.open(io.BytesIO(data)) as photo:
        rgb = photo.convert("RGB")
    turn = TURNS[number % len(TURNS)]
    if turn is not None:
        rgb = rgb.transpose(turn)
    border = number // len(TURNS)
    if border:
        size = rgb.size
        rgb = rgb.crop((border, border, size[0] - border, size[1] - border)).resize(size)
    out = io.BytesIO()
    rgb.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def distinct(originals: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield (key, bytes) without end, all bytes different; keys are `part-NN/<label>/<pass>_<file>`.

    Raises:
        TooFewPhotos: a whole pass gave nothing new.
    """
    seen: set[bytes] = set()
    number = 0
    while True:
        before = len(seen)
        for place, path in enumerate(originals):
            data = variant(path.read_bytes(), number)
            digest = hashlib.sha256(data).digest()
            if digest not in seen:
                seen.add(digest)
                part = f"part-{place % FOLDERS:02d}"
                yield f"{part}/{path.parent.name}/{number:02d}_{place:04d}_{path.name}", data
        if len(seen) == before:
            raise TooFewPhotos(f"pass {number} over {len(originals)} photos gave none that is new; add photos")
        number += 1


class PhotoSets:
    """Sets of photos by size, made once under `root` and kept."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._keys = root / "keys.json"

    @property
    def kind(self) -> str:
        """`real` or `drawn`."""
        real = (shared_folder() / "images" / "fruits360_sample").is_dir()
        return "real" if real else "drawn"

    def grow(self, count: int) -> list[str]:
        """Make sure that `count` photos exist; return the first `count` keys."""
        keys: list[str] = json.loads(self._keys.read_text()) if self._keys.is_file() else []
        if len(keys) < count:
            keys = []
            for key, data in distinct(sources(self._root / "drawn")):
                if len(keys) == count:
                    break
                path = self._root / "all" / key
                if not path.is_file():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data)
                keys.append(key)
            self._keys.write_text(json.dumps(keys))
        return keys[:count]

    def first(self, count: int) -> Path:
        """Return a folder of the first `count` photos."""
        return self.folder(f"first-{count}", self.grow(count))

    def phones(self, count: int) -> Path:
        """Return a folder of `count` photos of 12 megapixels."""
        folder = self._root / f"phones-{count}"
        keys = self.grow(count)
        missing = [key for key in keys if not (folder / key).is_file()]
        rng = np.random.default_rng(SEED)
        noise = rng.normal(0, NOISE, (*PHONE_PX[::-1], 3)).astype(np.int16)
        for key in missing:
            with Image.open(self._root / "all" / key) as photo:
                pixels = np.asarray(photo.convert("RGB").resize(PHONE_PX, Image.Resampling.BICUBIC))
            moved = np.roll(noise, rng.integers(0, PHONE_PX[1], 2), (0, 1))
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels + moved).clip(0, 255).astype(np.uint8)).save(path, "JPEG", quality=QUALITY)
        return folder

    def folder(self, name: str, keys: list[str]) -> Path:
        """Create a folder called `name` anew, with the photos of these keys."""
        folder = self._root / name
        shutil.rmtree(folder, ignore_errors=True)
        for key in keys:
            target = folder / key
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(self._root / "all" / key)
        return folder
