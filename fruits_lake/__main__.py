"""Name a photo by the classifier of a lake, and show the photos that look most like it."""

import argparse
import io
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from fruits.base.batches import block_pandas_import
from fruits.base.errors import FruitsError
from fruits.images.rejects import ImageRejected

from fruits_lake import Lake, LakeError


def main() -> None:
    """Print the name and the neighbours of a photo, or exit with status 1 and the reason why there are none."""
    parser = argparse.ArgumentParser(prog="fruits_lake", description=__doc__)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--lake", default="build/demo", help="folder, or s3://bucket (default: %(default)s)")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the photo and its neighbours")
    arguments = parser.parse_args()
    block_pandas_import()  # a third of the start; nothing here is a pandas object
    if sys.platform == "linux":  # a file of a kilobyte can hold gigabytes
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        resource.setrlimit(resource.RLIMIT_AS, (memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
    try:
        lake = Lake.open(arguments.lake)
        answer = lake.recognise(arguments.photo)
        rows = answer["neighbours"].to_pylist()
        weights = lake.why(rows[0]["image_id"])["weights"][0].as_py()
        if arguments.picture:
            draw(lake, arguments.photo, rows, arguments.picture)
    except ImageRejected as rejected:
        sys.exit(f"ERROR {rejected.code}: {rejected.detail}")
    except (LakeError, FruitsError, OSError) as error:
        sys.exit(_visible(f"ERROR {error}"))
    except MemoryError:
        sys.exit("ERROR the answer takes more memory than this machine has")
    if weights == "random":
        sys.stderr.write("WARNING: the weights are random, so these distances mean nothing\n")
    if arguments.format == "json":
        print(json.dumps(answer | {"neighbours": rows, "weights": weights}))
        return
    if answer["confidence"] is not None:
        print(_visible(f"{answer['label'] or 'not known'} ({answer['confidence']:.0%})"))
    for row in rows:
        print(_visible(f"{row['distance']:8.2f}  {row['label'] or '-':<24}  {row['source_key']}"))


def draw(lake: Lake, photo: Path, rows: list[dict[str, Any]], path: Path) -> None:
    """Write a picture of a photo and, beside it, its neighbours with label and distance."""
    from fruits.images.decoding import STORED_PX
    from PIL import Image, ImageDraw, ImageOps

    pixels = [lake.clean(photo), *lake.photo(*(row["image_id"] for row in rows))["pixels"].to_pylist()]
    texts = ["your photo", *(f"{row['label'] or '-'}\n{row['distance']:.2f}" for row in rows)]
    side = STORED_PX + 8
    sheet = Image.new("RGB", (side * len(pixels), side + 40), "white")
    for place, (data, text) in enumerate(zip(pixels, texts, strict=True)):
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as picture:
            sheet.paste(ImageOps.contain(picture.convert("RGB"), (STORED_PX, STORED_PX)), (side * place + 4, 4))
        ImageDraw.Draw(sheet).text((side * place + 4, side), text, "black", font_size=14)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _visible(text: str) -> str:
    """Write out what would command the terminal: labels and keys are names of other people's files."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


if __name__ == "__main__":
    main()
