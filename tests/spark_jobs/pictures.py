"""Pictures that the tests draw, and broken ones with the code that each must get."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from fruits.images.rejects import RejectCode
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo


def fruit(seed: int, size: tuple[int, int] = (100, 100)) -> Image.Image:
    """A round fruit on white, different for each seed."""
    rng = random.Random(seed)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    width, height = size
    colour = tuple(rng.randrange(30, 220) for _ in range(3))
    draw.ellipse((width * 0.1, height * 0.15, width * 0.9, height * 0.85), fill=colour)
    draw.rectangle((width * 0.45, 0, width * 0.55, height * 0.2), fill=(90, 60, 20))
    for _ in range(12):
        x, y = rng.uniform(0.2, 0.8) * width, rng.uniform(0.25, 0.75) * height
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=tuple(rng.randrange(256) for _ in range(3)))
    return image


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """A picture as a file's bytes."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def orchard(folder: Path, labels: int = 4, each: int = 10) -> Path:
    """A folder of drawn fruit, one sub-folder per label."""
    for number in range(labels):
        (folder / f"Label {number}").mkdir(parents=True, exist_ok=True)
        for i in range(each):
            data = encoded(fruit(number * 1000 + i))
            (folder / f"Label {number}" / f"r{i % 2}_{i}_100.jpg").write_bytes(data)
    return folder


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size: a decompression bomb's shape."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


def animated(kind: str) -> bytes:
    """Two frames."""
    return encoded(fruit(1), kind, save_all=True, append_images=[fruit(2)])


def with_many_scans() -> bytes:
    """A JPEG whose scan header is repeated."""
    jpeg = encoded(fruit(3))
    start = jpeg.index(b"\xff\xda")
    return jpeg[:start] + jpeg[start:-2] * 80 + jpeg[-2:]


def png_with_broken_data() -> bytes:
    """A PNG whose compressed pixels are noise."""
    data = bytearray(encoded(fruit(4), "PNG"))
    at = data.index(b"IDAT") + 10
    data[at : at + 40] = bytes(40)
    return bytes(data)


def broken() -> dict[str, tuple[bytes, RejectCode]]:
    """Bytes that are not a photo, by name, with the code that each gets."""
    jpeg, png, webp = (encoded(fruit(5), kind) for kind in ("JPEG", "PNG", "WEBP"))
    noise = random.Random(6).randbytes(4000)
    return {
        "no bytes": (b"", RejectCode.EMPTY),
        "html page": (b"<!doctype html><html><body>404</body></html>", RejectCode.NOT_AN_IMAGE),
        "noise": (noise, RejectCode.NOT_AN_IMAGE),
        "one byte": (b"\xff", RejectCode.NOT_AN_IMAGE),
        "gif": (encoded(fruit(5), "GIF"), RejectCode.FORMAT_NOT_ALLOWED),
        "bmp": (encoded(fruit(5), "BMP"), RejectCode.FORMAT_NOT_ALLOWED),
        "tiff": (encoded(fruit(5), "TIFF"), RejectCode.FORMAT_NOT_ALLOWED),
        "pdf": (encoded(fruit(5), "PDF"), RejectCode.FORMAT_NOT_ALLOWED),
        "eps": (encoded(fruit(5), "EPS"), RejectCode.FORMAT_NOT_ALLOWED),
        "svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', RejectCode.FORMAT_NOT_ALLOWED),
        "heic": (b"\x00\x00\x00\x18ftypheic" + noise, RejectCode.FORMAT_NOT_ALLOWED),
        "fits": (b"SIMPLE  =                    T", RejectCode.FORMAT_NOT_ALLOWED),
        "png bomb": (png_claiming(60_000, 60_000), RejectCode.TOO_MANY_PIXELS),
        "just over the limit": (png_claiming(8_000, 7_000), RejectCode.TOO_MANY_PIXELS),
        "a very long line": (png_claiming(65_500, 1), RejectCode.SIDE_TOO_LONG),
        "animated png": (animated("PNG"), RejectCode.ANIMATED),
        "animated webp": (animated("WEBP"), RejectCode.ANIMATED),
        "many scans": (with_many_scans(), RejectCode.TOO_MANY_SCANS),
        "half a jpeg": (jpeg[: len(jpeg) // 2], RejectCode.TRUNCATED),
        "half a png": (png[: len(png) // 2], RejectCode.TRUNCATED),
        "half a webp": (webp[: len(webp) // 2], RejectCode.CORRUPT),
        "only a jpeg's first bytes": (jpeg[:20], RejectCode.CORRUPT),
        "png with noise for pixels": (png_with_broken_data(), RejectCode.CORRUPT),
        "jpeg signature and noise": (b"\xff\xd8\xff\xe0" + noise, RejectCode.TRUNCATED),
    }


CANARY = b"CANARY-GPS-48.8584N-2.2945E"


def with_metadata() -> dict[str, bytes]:
    """Photos that carry a canary in each place where metadata may be."""
    exif = Image.Exif()
    exif[0x010E] = CANARY.decode()
    exif[0x0112] = 1
    text = PngInfo()
    text.add_text("Comment", CANARY.decode())
    text.add_itxt("XML:com.adobe.xmp", CANARY.decode())
    image = fruit(7)
    jpeg = encoded(image)
    app13 = b"\xff\xed" + struct.pack(">H", len(CANARY) + 2 + 14) + b"Photoshop 3.0\0" + CANARY
    return {
        "jpeg exif": encoded(image, exif=exif),
        "jpeg icc": encoded(image, icc_profile=CANARY),
        "jpeg comment": encoded(image, comment=CANARY),
        "jpeg xmp": encoded(image, xmp=CANARY),
        "jpeg iptc": jpeg[:2] + app13 + jpeg[2:],
        "png exif": encoded(image, "PNG", exif=exif),
        "png text": encoded(image, "PNG", pnginfo=text),
        "png icc": encoded(image, "PNG", icc_profile=CANARY),
        "webp exif": encoded(image, "WEBP", exif=exif),
        "webp xmp": encoded(image, "WEBP", xmp=CANARY),
        "webp icc": encoded(image, "WEBP", icc_profile=CANARY),
    }


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """The colours at a quarter of the way in from each corner, row by row."""
    pixels = np.asarray(image.convert("RGB"))
    height, width = pixels.shape[:2]
    return [tuple(pixels[y, x].tolist()) for y in (height // 4, height * 3 // 4) for x in (width // 4, width * 3 // 4)]
