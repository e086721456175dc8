"""Draw the pictures of a demo without photos: `python -m dev.demo.drawing FOLDER`.

Pillow draws them from a seed, so that one seed gives the same bytes on one machine (another version of libjpeg may
encode the same pixels differently). Light, pose, size, background and JPEG quality differ between pictures.

In `<label>/<n>.jpg`, each `n` divisible by 5 has EXIF with a GPS position, a camera model and a date, as a phone writes
them (the place is invented, near Valence in France). Of these, each `n` divisible by 10 lies on its side, with EXIF
orientation 6. All other pictures have no metadata.
"""

import io
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import ExifTags, Image, ImageChops, ImageDraw, ImageFilter, ImageOps

Colour = tuple[int, int, int]

CANVAS_PX = 320  # about twice the size of the file, so that edges are smooth after the reduction
GROUNDS: tuple[tuple[Colour, Colour, tuple[int, int]], ...] = (
    ((244, 243, 240), (222, 220, 216), (3, 3)),  # white paper
    ((214, 206, 196), (186, 176, 164), (4, 4)),  # linen
    ((168, 128, 88), (120, 84, 52), (3, 24)),  # wooden board
    ((92, 96, 104), (60, 64, 72), (20, 20)),  # slate
    ((122, 138, 88), (78, 98, 52), (28, 28)),  # grass
)


@dataclass(frozen=True)
class Fruit:
    """How a fruit looks."""

    colour: Colour  # of its skin, RGB
    length: float  # along its axis, as a share of the canvas
    width: float  # across its axis, as a share of the canvas
    bodies: int = 1  # how many bodies a picture shows, in a bunch
    gloss: float = 0.5  # strength of the highlight, 0 to 1
    top: Colour | None = (92, 70, 40)  # colour of the stem or leaf at its end; None without one
    bent: bool = False  # whether it is a crescent


def _tuples(look: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in look.items()}


_LOOKS = yaml.safe_load(Path(__file__).with_name("fruits.yaml").read_text(encoding="utf-8"))
SUBJECTS = {label: Fruit(**_tuples(look)) for label, look in _LOOKS.items()}


def draw_fruit(label: str, rng: random.Random) -> Image.Image:
    """Draw one picture of a fruit: RGB, 104 to 200 px wide; `rng` decides everything about it."""
    fruit = SUBJECTS[label]
    light, dark, cells = rng.choice(GROUNDS)
    canvas = ImageOps.colorize(_noise(rng, (CANVAS_PX, CANVAS_PX), cells), dark, light)
    scale, angle = rng.uniform(0.74, 1.08), rng.gauss(0, 40)
    radius = 0 if fruit.bodies == 1 else fruit.length * 0.42 * math.sqrt(fruit.bodies)
    for _ in range(fruit.bodies):
        away, around = radius * math.sqrt(rng.random()), rng.uniform(0, math.tau)
        centre = tuple(
            CANVAS_PX * (0.5 + rng.uniform(-0.05, 0.05) + away * scale * axis)
            for axis in (math.cos(around), math.sin(around))
        )
        _paint(canvas, fruit, rng, scale, angle + rng.gauss(0, 8), centre)
    width = rng.randrange(104, 201, 4)
    picture = canvas.resize((width, rng.randrange(96, 201, 4)), Image.Resampling.BOX)
    exposure, warmth = rng.uniform(0.66, 1.12), rng.uniform(-0.08, 0.08)
    gains = (exposure * (1 + warmth), exposure, exposure * (1 - warmth))
    picture = picture.point([min(255, round(v * gain)) for gain in gains for v in range(256)])
    grain = Image.frombytes("L", picture.size, rng.randbytes(picture.width * picture.height)).convert("RGB")
    return Image.blend(picture, ImageChops.overlay(picture, grain), rng.uniform(0.02, 0.12))


def _paint(
    canvas: Image.Image, fruit: Fruit, rng: random.Random, scale: float, angle: float, centre: tuple[float, ...]
) -> None:
    """Paint one body with its shadow: round shading, patterned skin and a highlight within a turned outline."""
    px = CANVAS_PX * scale
    size = (round(fruit.width * px), round(fruit.length * px))
    box = (0, 0, size[0] - 1, size[1] - 1)
    mask, top = Image.new("L", size), round(px * 0.03)
    if fruit.bent:
        ImageDraw.Draw(mask).arc((-size[0], 0, size[0] - 1, size[1] - 1), -80, 80, 255, round(size[0] * 0.55))
    else:
        ImageDraw.Draw(mask).ellipse(box, fill=255)
    colour = tuple(min(255, round(part * rng.uniform(0.88, 1.12))) for part in fruit.colour)
    shade = ImageOps.invert(Image.radial_gradient("L")).resize(size)
    shade = ImageChops.offset(shade, -size[0] // 8, -size[1] // 8)
    skin = ImageOps.colorize(shade, _tinted(colour, 0.3), _tinted(colour, 1.25), mid=colour, midpoint=140)
    skin = Image.blend(skin, ImageChops.soft_light(skin, _noise(rng, size, (12, 12)).convert("RGB")), 0.3)
    glint = Image.new("L", size)
    spot = (size[0] * 0.3, size[1] * 0.25, size[0] * 0.42, size[1] * 0.36)
    ImageDraw.Draw(glint).ellipse(spot, fill=round(255 * fruit.gloss))
    skin.paste((255, 253, 244), (0, 0), glint.filter(ImageFilter.GaussianBlur(3)))
    if fruit.top and fruit.bodies <= 2:
        middle = size[0] // 2
        ImageDraw.Draw(skin).ellipse((middle - top, 0, middle + top, 3 * top), fill=fruit.top)
    mask, skin = (layer.rotate(angle, Image.Resampling.BICUBIC, expand=True) for layer in (mask, skin))
    corner = (round(centre[0] - mask.width / 2), round(centre[1] - mask.height / 2))
    shadow = mask.filter(ImageFilter.GaussianBlur(6)).point([round(v * 0.45) for v in range(256)])
    canvas.paste((18, 16, 20), (corner[0] + 9, corner[1] + 9), shadow)
    canvas.paste(skin, corner, mask)


def _tinted(colour: Sequence[int], factor: float) -> Colour:
    red, green, blue = (min(255, round(part * factor)) for part in colour)
    return red, green, blue


def _noise(rng: random.Random, size: tuple[int, int], cells: tuple[int, int]) -> Image.Image:
    """Draw smooth random grey with `cells` bumps; Pillow's own `effect_noise` takes no seed."""
    grain = Image.frombytes("L", cells, rng.randbytes(cells[0] * cells[1]))
    return grain.resize(size, Image.Resampling.BICUBIC)


def phone_exif(rng: random.Random, orientation: int) -> Image.Exif:
    """Make what a phone writes beside a picture: where, when and with what it was taken. The place is invented."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Fruits!"
    exif[ExifTags.Base.Model] = "Picking phone"
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.DateTime] = f"2025:09:{rng.randint(1, 30):02d} {rng.randint(6, 19):02d}:00:00"
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLongitudeRef] = "N", "E"
    gps[ExifTags.GPS.GPSLatitude] = (44.0, float(rng.randint(50, 59)), round(rng.uniform(0, 59.9), 2))
    gps[ExifTags.GPS.GPSLongitude] = (4.0, float(rng.randint(50, 59)), round(rng.uniform(0, 59.9), 2))
    return exif


def draw_jpeg(label: str, n: int, seed: int = 0) -> bytes:
    """Draw picture `n` of a label as JPEG; the bytes depend on nothing but the three arguments.

    Raises:
        KeyError: `SUBJECTS` has no such label.
    """
    rng = random.Random(f"{seed}/{label}/{n}")  # noqa: S311 - pictures, not secrets
    picture = draw_fruit(label, rng)
    exif = b""  # an empty Image.Exif would be written all the same, as a block without entries
    if n % 5 == 0:
        lying = n % 10 == 0
        exif = phone_exif(rng, orientation=6 if lying else 1).tobytes()
        picture = picture.transpose(Image.Transpose.ROTATE_90) if lying else picture
    with io.BytesIO() as buffer:
        picture.save(buffer, "JPEG", quality=rng.randint(80, 92), exif=exif)
        return buffer.getvalue()


def draw_fruits(folder: Path, per_label: int = 20) -> int:
    """Draw `per_label` pictures of each label in `SUBJECTS` into `folder`, and return how many.

    They are `<label>/<n>.jpg` with `n` from 0, and replace those of the same name.
    """
    for label in SUBJECTS:
        target = folder / label
        target.mkdir(parents=True, exist_ok=True)
        for n in range(per_label):
            (target / f"{n}.jpg").write_bytes(draw_jpeg(label, n))
    return per_label * len(SUBJECTS)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    print(f"{draw_fruits(folder)} pictures of {len(SUBJECTS)} labels in {folder}")
