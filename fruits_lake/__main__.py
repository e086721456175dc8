"""Name a photo by the classifier of a lake, and show the photos that look most like it."""

import argparse
import json
import os
import resource
import sys
from pathlib import Path

from fruits.base.batches import block_pandas_import
from fruits.base.errors import FruitsError
from fruits.images.rejects import ImageRejected

from fruits_lake import Lake, LakeError


def main() -> None:
    """Print the neighbours of a photo, or exit with status 1 and the reason why there are none."""
    parser = argparse.ArgumentParser(prog="fruits_lake", description=__doc__)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--lake", default="build/demo", help="folder, or s3://bucket (default: %(default)s)")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    arguments = parser.parse_args()
    block_pandas_import()  # a third of the start; nothing here is a pandas object
    if sys.platform == "linux":  # a file of a kilobyte can hold gigabytes
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        resource.setrlimit(resource.RLIMIT_AS, (memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
    try:
        lake = Lake.open(arguments.lake)
        rows = lake.neighbours(arguments.photo).to_pylist()
        try:
            name = lake.name(arguments.photo)
        except LakeError:
            name = None  # too few labelled photos: its neighbours still say something
        weights = lake.why(rows[0]["image_id"])["weights"][0].as_py()
    except ImageRejected as rejected:
        sys.exit(f"ERROR {rejected.code}: {rejected.detail}")
    except (LakeError, FruitsError, OSError) as error:
        sys.exit(_visible(f"ERROR {error}"))
    except MemoryError:
        sys.exit("ERROR the answer takes more memory than this machine has")
    if weights == "random":
        sys.stderr.write("WARNING: the weights are random, so these distances mean nothing\n")
    lines = [f"{row['distance']:8.2f}  {row['label'] or '-':<24}  {row['source_key']}" for row in rows]
    if name:
        lines.insert(0, f"{name['label'] or 'not known'} ({name['confidence']:.0%})")
    print(
        json.dumps({"name": name, "neighbours": rows, "weights": weights})
        if arguments.format == "json"
        else "\n".join(map(_visible, lines))
    )


def _visible(text: str) -> str:
    """Write out what would command the terminal: labels and keys are names of other people's files."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


if __name__ == "__main__":
    main()
