"""Paints solid bodies with Pillow: outline, round shading, skin, highlight, shadow, stem and leaf."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

Colour = tuple[int, int, int]
Point = tuple[float, float]

CANVAS_PX = 320  # about twice the size of the file, so that edges are smooth after the reduction
STEM: Colour = (92, 70, 40)
LEAF: Colour = (66, 120, 48)


@dataclass(frozen=True)
class Body:
    """One solid of revolution, seen from the side.

    Attributes:
        length: along its axis, as a share of the canvas.
        width: across its axis, as a share of the canvas.
        colours: the skins it may have, RGB.
        fullness: exponent of the outline's ends: 0.5 is an ellipse, less is blunt, more is pointed.
        taper: relative width at even stations along the axis, from the stem on.
        bend: how far the middle is pushed sideways, as a share of the canvas.
        mottle: strength of the skin's pattern, 0 to 1.
        gloss: strength of the highlight, 0 to 1.
        dimple: whether the stem sits in a hollow.
    """

    length: float
    width: float
    colours: tuple[Colour, ...]
    fullness: float = 0.5
    taper: tuple[float, ...] = (1.0, 1.0)
    bend: float = 0.0
    mottle: float = 0.25
    gloss: float = 0.5
    dimple: bool = False


@dataclass(frozen=True)
class Scene:
    """What the bodies of one picture share: the paper, the dice and the light (a unit vector towards it)."""

    canvas: Image.Image
    rng: random.Random
    light: Point
    scale: float
    turn: float


def outline(body: Body, centre: Point, angle: float, scale: float, stations: int = 28) -> list[Point]:
    """The contour of a body as a polygon.

    Args:
        body: what is drawn.
        centre: middle of its axis, px.
        angle: direction of its axis from the stem on, radians.
        scale: px per unit of `body.length` and `body.width`.
        stations: points along each side.

    Returns:
        `2 * stations` points in px, first one side from the stem on, then the other side back.
    """
    near: list[Point] = []
    far: list[Point] = []
    along, across = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
    for i in range(stations):
        u = -math.cos(
            math.pi * i / (stations - 1)
        )  # -1 to 1, dense at the ends, where the outline turns fastest
        place = (u + 1) / 2 * (len(body.taper) - 1)
        left = min(int(place), len(body.taper) - 2)
        ease = (1 - math.cos(math.pi * (place - left))) / 2
        taper = body.taper[left] * (1 - ease) + body.taper[left + 1] * ease
        half = body.width / 2 * taper * max(0.0, 1 - u * u) ** body.fullness
        aside = body.bend * (1 - u * u)
        for side, points in ((half, near), (-half, far)):
            x, y = u * body.length / 2, aside + side - body.bend / 2
            points.append(
                (
                    centre[0] + scale * (x * along[0] + y * across[0]),
                    centre[1] + scale * (x * along[1] + y * across[1]),
                )
            )
    return near + far[::-1]


def tinted(colour: Colour, factor: float, towards: Colour = (255, 255, 255)) -> Colour:
    """`colour` darkened (`factor` below 1) or mixed with `towards` (above 1: 1.3 is 30 % of the way)."""
    share = factor - 1
    mixed = [c * factor if factor <= 1 else c + (t - c) * share for c, t in zip(colour, towards, strict=True)]
    return (round(mixed[0]), round(mixed[1]), round(mixed[2]))


def noise(rng: random.Random, size: tuple[int, int], cells: tuple[int, int]) -> Image.Image:
    """Smooth random grey of `size`, with `cells` bumps; Pillow's own `effect_noise` cannot be seeded."""
    grain = Image.frombytes("L", cells, rng.randbytes(cells[0] * cells[1]))
    return grain.resize(size, Image.Resampling.BICUBIC)


def paint_polygon(scene: Scene, points: Sequence[Point], colour: Colour, mottle: float, gloss: float) -> None:
    """Paint a solid with that contour: round shading from the light, patterned skin, a highlight."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    # Room around it: the blur below would otherwise meet the edge of its image and come out flat there.
    pad = 4 + math.ceil(min(max(xs) - min(xs), max(ys) - min(ys)) * 0.4)
    left, top = math.floor(min(xs)) - pad, math.floor(min(ys)) - pad
    size = (math.ceil(max(xs)) + pad - left, math.ceil(max(ys)) + pad - top)
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in points], fill=255)

    # The blurred mask, shifted towards the light, is a height map: good enough for shading any round body.
    small = mask.resize((max(2, size[0] // 4), max(2, size[1] // 4)), Image.Resampling.BOX)
    thickness = mask.histogram()[255] / max(size) / 8  # half the mean width, px of `small`
    dx, dy = (axis * thickness * 0.45 for axis in scene.light)
    height = small.filter(ImageFilter.GaussianBlur(thickness * 0.55))
    height = height.transform(small.size, Image.Transform.AFFINE, (1, 0, -dx, 0, 1, -dy))
    height = ImageOps.autocontrast(height, cutoff=(1, 1), mask=small).resize(size, Image.Resampling.BICUBIC)
    skin = ImageOps.colorize(
        height, tinted(colour, 0.28), tinted(colour, 1.22, (255, 250, 225)), mid=colour, midpoint=150
    )

    if mottle:
        spots = noise(scene.rng, size, (24, 24)).convert("RGB")
        skin = Image.blend(skin, ImageChops.soft_light(skin, spots), mottle)
    if gloss:
        glint = Image.new("L", small.size)
        middle = (sum(xs) / len(xs) - left, sum(ys) / len(ys) - top)
        x, y = (m / 4 + axis * thickness * 0.42 for m, axis in zip(middle, scene.light, strict=True))
        r = max(0.9, thickness * 0.24)
        ImageDraw.Draw(glint).ellipse((x - r, y - r, x + r, y + r), fill=round(255 * gloss))
        glint = glint.filter(ImageFilter.GaussianBlur(r * 0.6)).resize(size, Image.Resampling.BICUBIC)
        skin.paste((255, 253, 244), (0, 0), glint)
    scene.canvas.paste(skin, (left, top), mask)


def cast_shadow(scene: Scene, contours: Sequence[Sequence[Point]]) -> None:
    """Darken the ground under the bodies, away from the light."""
    side = CANVAS_PX // 4
    shade = Image.new("L", (side, side))
    draw = ImageDraw.Draw(shade)
    away = (-scene.light[0] * 5, -scene.light[1] * 5)
    for points in contours:
        draw.polygon(
            [(x / 4 + away[0], y / 4 + away[1]) for x, y in points], fill=scene.rng.randint(110, 150)
        )
    shade = shade.filter(ImageFilter.GaussianBlur(4)).resize(scene.canvas.size, Image.Resampling.BICUBIC)
    scene.canvas.paste((18, 16, 20), (0, 0), shade)


def paint_stem(scene: Scene, start: Point, end: Point, colour: Colour = STEM, width: float = 0.02) -> None:
    """A stem from `start` to `end` (px), slightly bent."""
    middle = (
        (start[0] + end[0]) / 2 + scene.rng.uniform(-8, 8),
        (start[1] + end[1]) / 2 + scene.rng.uniform(-8, 8),
    )
    draw = ImageDraw.Draw(scene.canvas)
    thick = max(3, round(width * CANVAS_PX * scene.scale))
    draw.line(
        [start, middle, end], fill=tinted(colour, scene.rng.uniform(0.7, 1.0)), width=thick, joint="curve"
    )


def paint_leaf(scene: Scene, base: Point, angle: float, length: float = 0.2, colour: Colour = LEAF) -> None:
    """A pointed leaf that grows from `base` (px) in the direction `angle` (radians)."""
    px = CANVAS_PX * scene.scale
    centre = (base[0] + math.cos(angle) * length * px / 2, base[1] + math.sin(angle) * length * px / 2)
    leaf = Body(length, length * 0.42, (colour,), fullness=0.8)
    paint_polygon(
        scene, outline(leaf, centre, angle, px, 12), tinted(colour, scene.rng.uniform(0.75, 1.1)), 0.3, 0.0
    )


def at(centre: Point, angle: float, distance: float) -> Point:
    """The point at `distance` px from `centre` in the direction `angle` (radians)."""
    return centre[0] + math.cos(angle) * distance, centre[1] + math.sin(angle) * distance
