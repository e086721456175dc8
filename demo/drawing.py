"""Draws the fruit pictures of a demo without photos: `python -m demo.drawing FOLDER`.

The pictures are made with Pillow alone, from a seed: one seed gives the same bytes on one machine (another
version of libjpeg may encode the same pixels otherwise). They look like snapshots rather than icons, so that
the whole chain has something to do: light, pose, size, background and JPEG quality change between pictures.

What the load step must cope with is in them, always at the same places, `n` being the number in
`<label>/<n>.jpg`:

- `n` divisible by 5: EXIF with a GPS position, a camera model and a date, as a phone writes them (invented,
  near Valence in France). Of these, those divisible by 10 also lie on their side, with EXIF orientation 6.
- all others: no metadata.

`draw_broken` adds the two files that no decoder can read; nothing calls it unless asked to.
"""

from __future__ import annotations

import argparse
import io
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import ExifTags, Image, ImageChops, ImageDraw, ImageOps

from demo.painting import (
    CANVAS_PX,
    Body,
    Colour,
    Point,
    Scene,
    at,
    cast_shadow,
    noise,
    outline,
    paint_leaf,
    paint_polygon,
    paint_stem,
    tinted,
)

RED_APPLE = Body(
    0.56, 0.60, ((176, 28, 38), (150, 20, 36), (196, 44, 40)), taper=(1.0, 1.05, 0.86), mottle=0.35
)
GOLDEN_APPLE = Body(0.55, 0.59, ((206, 196, 74), (190, 190, 60), (214, 188, 80)), taper=(1.0, 1.05, 0.88))
BANANA = Body(
    0.86, 0.17, ((236, 202, 56), (226, 188, 40), (214, 206, 80)), 0.3, (0.45, 0.9, 1, 1, 0.9, 0.4), 0.2
)
CARROT = Body(0.74, 0.19, ((232, 116, 28), (220, 100, 24)), 0.16, (1, 0.95, 0.75, 0.5, 0.16), 0.02, 0.45, 0.2)
CUCUMBER = Body(0.82, 0.20, ((56, 110, 48), (44, 92, 40), (74, 124, 56)), 0.22, bend=0.05, mottle=0.55)
LEMON = Body(0.62, 0.44, ((240, 214, 52), (232, 200, 40)), 0.72, mottle=0.3, gloss=0.4)
ORANGE = Body(0.56, 0.57, ((240, 140, 24), (232, 124, 20)), mottle=0.4, gloss=0.35)
PEACH = Body(0.54, 0.57, ((238, 164, 104), (232, 132, 96)), 0.54, mottle=0.4, gloss=0.05, dimple=True)
PEAR = Body(
    0.72, 0.50, ((178, 190, 70), (196, 184, 82), (160, 176, 64)), 0.5, (0.5, 0.46, 0.66, 1.0, 1.06), 0.02, 0.4
)
PLUM = Body(0.56, 0.44, ((84, 40, 96), (70, 36, 88), (104, 44, 84)), 0.52, mottle=0.45, gloss=0.3)
TOMATO = Body(
    0.50, 0.58, ((212, 44, 26), (200, 34, 24), (222, 62, 30)), 0.42, mottle=0.12, gloss=0.8, dimple=True
)
AUBERGINE = Body(
    0.80, 0.34, ((58, 28, 66), (46, 24, 58)), 0.34, (0.6, 0.66, 0.86, 1.04, 1.06), 0.05, 0.12, 0.9
)
BLUE_GRAPE = Body(0.155, 0.145, ((70, 60, 120), (58, 48, 104), (86, 58, 110)), mottle=0.3, gloss=0.5)
WHITE_GRAPE = Body(0.165, 0.145, ((168, 190, 84), (184, 196, 96), (150, 178, 76)), mottle=0.2, gloss=0.6)
CHERRY = Body(
    0.30, 0.31, ((150, 16, 36), (122, 12, 32), (176, 26, 40)), 0.48, mottle=0.15, gloss=0.9, dimple=True
)
RASPBERRY = Body(0.12, 0.12, ((204, 44, 78), (188, 34, 68)), mottle=0.2, gloss=0.5)
HTML_PAGE = "<!DOCTYPE html>\n<html><head><title>404</title></head><body>No such picture.</body></html>\n"


def place(scene: Scene) -> Point:
    """Where the picture's subject sits, px: near the middle, never quite in it."""
    slack = CANVAS_PX * 0.06
    return (
        CANVAS_PX / 2 + scene.rng.uniform(-slack, slack),
        CANVAS_PX / 2 + scene.rng.uniform(-slack, slack),
    )


def draw_single(scene: Scene, body: Body, top: str = "stem") -> None:
    """One fruit and what grows on it: `stem`, `leaf` (both), `crown` (of small leaves), `tuft` or `none`."""
    px, rng = CANVAS_PX * scene.scale, scene.rng
    centre = place(scene)
    contour = outline(body, centre, scene.turn, px)
    cast_shadow(scene, [contour])
    skin = rng.choice(body.colours)
    head = ((contour[0][0] + contour[-1][0]) / 2, (contour[0][1] + contour[-1][1]) / 2)
    back = scene.turn + math.pi
    if top == "tuft":
        for _ in range(7):
            paint_leaf(scene, head, back + rng.uniform(-0.5, 0.5), rng.uniform(0.14, 0.24))
    paint_polygon(scene, contour, skin, body.mottle, body.gloss)
    if body.dimple:
        hollow = Body(0.05, 0.2, (skin,), fullness=0.5)
        paint_polygon(
            scene, outline(hollow, at(head, back, -0.045 * px), scene.turn, px, 10), tinted(skin, 0.62), 0, 0
        )
    if top == "crown":
        for i in range(5):
            paint_leaf(
                scene, at(head, back, -0.03 * px), back + (i - 2) * 0.85 + rng.uniform(-0.2, 0.2), 0.15
            )
    if top in ("stem", "leaf", "crown"):
        paint_stem(scene, at(head, back, -0.04 * px), at(head, back + rng.uniform(-0.4, 0.4), 0.09 * px))
    if top == "leaf" and rng.random() < 0.6:
        paint_leaf(scene, at(head, back, 0.02 * px), back + rng.choice((-1, 1)) * rng.uniform(0.7, 1.2))


def draw_bananas(scene: Scene, body: Body) -> None:
    """One to three bananas that share a stalk."""
    px, rng = CANVAS_PX * scene.scale, scene.rng
    centre = place(scene)
    angles = [scene.turn + 0.3 * i for i in range(rng.choice((1, 1, 2, 3)))]
    stalk = at(centre, scene.turn + math.pi, 0.42 * px)
    contours = [outline(body, at(stalk, angle, 0.42 * px), angle, px) for angle in angles]
    cast_shadow(scene, contours)
    skin = rng.choice(body.colours)
    for contour in contours:
        paint_polygon(scene, contour, tinted(skin, rng.uniform(0.93, 1.0)), body.mottle, body.gloss)
        tip = ((contour[27][0] + contour[28][0]) / 2, (contour[27][1] + contour[28][1]) / 2)
        ImageDraw.Draw(scene.canvas).ellipse(
            (tip[0] - 5, tip[1] - 5, tip[0] + 5, tip[1] + 5), fill=(74, 58, 34)
        )
    head = ((contours[0][0][0] + contours[0][-1][0]) / 2, (contours[0][0][1] + contours[0][-1][1]) / 2)
    paint_stem(scene, head, at(head, angles[0] + math.pi + 0.3, 0.07 * px), tinted(skin, 0.6), 0.04)


def draw_cluster(scene: Scene, body: Body, rows: tuple[int, ...], leaf: bool) -> None:
    """Many small bodies in a bunch that narrows downwards: grapes on a stem, or a berry's drupelets."""
    px, rng = CANVAS_PX * scene.scale, scene.rng
    centre, down = place(scene), scene.turn
    step = body.width * px * 0.84
    spots = []
    for r, count in enumerate(rows):
        row = at(centre, down, (r - (len(rows) - 1) / 2) * step * 0.86)
        for i in range(count):
            x, y = at(row, down + math.pi / 2, (i - (count - 1) / 2) * step)
            spots.append((x + rng.uniform(-0.12, 0.12) * step, y + rng.uniform(-0.12, 0.12) * step))
    head = at(centre, down + math.pi, (len(rows) / 2 + 0.1) * step * 0.86)
    contours = [outline(body, spot, rng.uniform(0, math.pi), px, 14) for spot in spots]
    cast_shadow(scene, contours)
    paint_stem(scene, at(head, down, step), at(head, down + math.pi + rng.uniform(-0.4, 0.4), 0.12 * px))
    if leaf:
        paint_leaf(scene, head, down + math.pi + rng.choice((-1, 1)) * rng.uniform(0.6, 1.2), 0.26)
    skin = rng.choice(body.colours)
    order = list(contours)
    rng.shuffle(order)
    for contour in order:
        paint_polygon(scene, contour, tinted(skin, rng.uniform(0.82, 1.08)), body.mottle, body.gloss)


def draw_cherries(scene: Scene, body: Body) -> None:
    """One or two cherries on long stems that meet."""
    px, rng = CANVAS_PX * scene.scale, scene.rng
    centre, up = place(scene), scene.turn + math.pi
    knot = at(centre, up, 0.38 * px)
    spread = [0.0] if rng.random() < 0.25 else [-rng.uniform(0.26, 0.34), rng.uniform(0.26, 0.34)]
    spots = [at(knot, scene.turn + angle, rng.uniform(0.55, 0.68) * px) for angle in spread]
    contours = [
        outline(body, spot, scene.turn + angle, px) for spot, angle in zip(spots, spread, strict=True)
    ]
    cast_shadow(scene, contours)
    skin = rng.choice(body.colours)
    for contour in contours:
        head = ((contour[0][0] + contour[-1][0]) / 2, (contour[0][1] + contour[-1][1]) / 2)
        paint_polygon(scene, contour, tinted(skin, rng.uniform(0.85, 1.05)), body.mottle, body.gloss)
        paint_stem(scene, at(head, scene.turn, 0.03 * px), knot, (104, 124, 52), 0.014)
    if rng.random() < 0.5:
        paint_leaf(scene, knot, up + rng.uniform(-1.2, 1.2), 0.28)


SUBJECTS: dict[str, Callable[[Scene], None]] = {
    "Apple Golden": lambda scene: draw_single(scene, GOLDEN_APPLE, "leaf"),
    "Apple Red": lambda scene: draw_single(scene, RED_APPLE, "leaf"),
    "Aubergine": lambda scene: draw_single(scene, AUBERGINE, "crown"),
    "Banana": lambda scene: draw_bananas(scene, BANANA),
    "Carrot": lambda scene: draw_single(scene, CARROT, "tuft"),
    "Cherry": lambda scene: draw_cherries(scene, CHERRY),
    "Cucumber": lambda scene: draw_single(scene, CUCUMBER, "stem"),
    "Grape Blue": lambda scene: draw_cluster(scene, BLUE_GRAPE, (3, 4, 5, 4, 3, 2, 1), leaf=True),
    "Grape White": lambda scene: draw_cluster(scene, WHITE_GRAPE, (4, 5, 4, 4, 3, 2), leaf=True),
    "Lemon": lambda scene: draw_single(scene, LEMON, "none"),
    "Orange": lambda scene: draw_single(scene, ORANGE, "none"),
    "Peach": lambda scene: draw_single(scene, PEACH, "leaf"),
    "Pear": lambda scene: draw_single(scene, PEAR, "stem"),
    "Plum": lambda scene: draw_single(scene, PLUM, "stem"),
    "Raspberry": lambda scene: draw_cluster(scene, RASPBERRY, (3, 4, 4, 3, 3, 2), leaf=False),
    "Tomato": lambda scene: draw_single(scene, TOMATO, "crown"),
}

GROUNDS: tuple[tuple[Colour, Colour, tuple[int, int]], ...] = (
    ((244, 243, 240), (222, 220, 216), (3, 3)),  # white paper
    ((214, 206, 196), (186, 176, 164), (4, 4)),  # linen
    ((168, 128, 88), (120, 84, 52), (3, 24)),  # wooden board
    ((92, 96, 104), (60, 64, 72), (20, 20)),  # slate
    ((150, 166, 178), (118, 134, 148), (5, 5)),  # steel
    ((122, 138, 88), (78, 98, 52), (28, 28)),  # grass
)

FRAMES = ((0, 0, 320, 320), (0, 0, 320, 320), (0, 28, 320, 292), (28, 0, 292, 320))  # square, wide, tall


def draw_fruit(label: str, rng: random.Random) -> Image.Image:
    """One picture of that fruit, RGB, 104 to 200 px wide, with everything about it decided by `rng`."""
    light_colour, dark_colour, cells = rng.choice(GROUNDS)
    canvas = ImageOps.colorize(noise(rng, (CANVAS_PX, CANVAS_PX), cells), dark_colour, light_colour)
    from_where = rng.uniform(-2.6, -0.5)  # the sun is never below the horizon
    scene = Scene(
        canvas,
        rng,
        light=(math.cos(from_where), math.sin(from_where)),
        scale=rng.uniform(0.74, 1.08),
        turn=math.pi / 2 + rng.gauss(0, 0.7),
    )
    SUBJECTS[label](scene)

    box = rng.choice(FRAMES)
    width = rng.randrange(104, 201, 4)
    height = round(width * (box[3] - box[1]) / (box[2] - box[0]))
    picture = canvas.resize((width, height), Image.Resampling.BOX, box)
    exposure, warmth = rng.uniform(0.66, 1.12), rng.uniform(-0.08, 0.08)
    gains = (exposure * (1 + warmth), exposure, exposure * (1 - warmth))
    picture = picture.point([min(255, round(v * gain)) for gain in gains for v in range(256)])
    grain = Image.frombytes("L", picture.size, rng.randbytes(picture.width * picture.height)).convert("RGB")
    return Image.blend(picture, ImageChops.overlay(picture, grain), rng.uniform(0.02, 0.12))


def phone_exif(rng: random.Random, orientation: int) -> Image.Exif:
    """What a phone writes beside a picture: where, when and with what it was taken. The place is invented."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Fruits!"
    exif[ExifTags.Base.Model] = "Picking phone"
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.DateTime] = (
        f"2025:09:{rng.randint(1, 30):02d} {rng.randint(6, 19):02d}:{rng.randint(0, 59):02d}:00"
    )
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLongitudeRef] = "N", "E"
    gps[ExifTags.GPS.GPSLatitude] = (44.0, float(rng.randint(50, 59)), round(rng.uniform(0, 59.9), 2))
    gps[ExifTags.GPS.GPSLongitude] = (4.0, float(rng.randint(50, 59)), round(rng.uniform(0, 59.9), 2))
    return exif


def draw_jpeg(label: str, n: int, seed: int = 0) -> bytes:
    """The bytes of picture `n` of that label; they depend on nothing but the three arguments.

    Raises:
        KeyError: when nobody has taught us to draw that fruit; `SUBJECTS` lists those we know.
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


def draw_fruits(folder: Path, per_label: int = 20, seed: int = 0) -> int:
    """Draw `per_label` pictures of every label into `folder`, as `<label>/<n>.jpg` with `n` from 0.

    The folder is made when it is not there; a picture of the same name is replaced, other files stay.

    Args:
        folder: where to.
        per_label: pictures of each of the labels in `SUBJECTS`.
        seed: other pictures for another number.

    Returns:
        How many pictures were drawn.

    Raises:
        ValueError: when `per_label` is negative.
    """
    if per_label < 0:
        raise ValueError(f"per_label is {per_label}: give 0 or more")
    for label in SUBJECTS:
        target = folder / label
        target.mkdir(parents=True, exist_ok=True)
        for n in range(per_label):
            (target / f"{n}.jpg").write_bytes(draw_jpeg(label, n, seed))
    return per_label * len(SUBJECTS)


def draw_broken(folder: Path) -> int:
    """Put two files among the pictures that no decoder can read, as they turn up in real uploads.

    `<label>/not_found.jpg` is an HTML error page saved under a picture's name, and `<label>/truncated.jpg` a
    JPEG whose upload broke off half-way; both in the first label's folder.

    Returns:
        How many files were written: 2.
    """
    label = next(iter(SUBJECTS))
    target = folder / label
    target.mkdir(parents=True, exist_ok=True)
    whole = draw_jpeg(label, n=1)
    (target / "not_found.jpg").write_text(HTML_PAGE, encoding="utf-8")
    (target / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    return 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.drawing", description="Draw a small set of fruit pictures."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to; made when it is not there")
    parser.add_argument("--per-label", type=int, default=20, help="pictures of each label (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="another number draws other pictures (default 0)")
    parser.add_argument("--broken", action="store_true", help="add two files that are no readable picture")
    options = parser.parse_args(arguments)
    if options.per_label < 0:
        parser.error(f"--per-label is {options.per_label}: give 0 or more")
    drawn = draw_fruits(options.folder, options.per_label, options.seed)
    broken = draw_broken(options.folder) if options.broken else 0
    print(
        f"{drawn} pictures of {len(SUBJECTS)} labels in {options.folder}"
        + (f", {broken} broken files" * bool(broken))
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
