"""Name a photo by the classifier of a lake, and show the photos that look most like it."""

import argparse
import json
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
        sys.exit(f"ERROR {error}")
    if weights == "random":
        sys.stderr.write("WARNING: the weights are random, so these distances mean nothing\n")
    lines = [f"{row['distance']:8.2f}  {row['label'] or '-':<24}  {row['source_key']}" for row in rows]
    if name:
        lines.insert(0, f"{name['label'] or 'not known'} ({name['confidence']:.0%})")
    print(
        json.dumps({"name": name, "neighbours": rows, "weights": weights})
        if arguments.format == "json"
        else "\n".join(lines)
    )


if __name__ == "__main__":
    main()
