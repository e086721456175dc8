"""Try the planning parts with a million made-up keys: `.venv-airflow/bin/python docs/scale/plan_trial.py`.

A scripted lister stands in for S3 (no network, no waiting): what is measured is what `plan` itself needs to list, to
write the listing, and to compare two nights. Writes plan_trial.json beside this file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path.insert(0, str(REPOSITORY / "plugins"))

from fruits_airflow.storage import listing  # noqa: E402 - needs the path above
from fruits_airflow.storage.bucket_listing import list_objects  # noqa: E402

PAGE = 1000
LABELS = 131


class ScriptedLister:
    """Answers `list_objects_v2` as S3 would, from a count: `images/Training/<label>/<number>`; holds one page a call.

    Args:
        count: Keys.
        changed_every: Every so-many-th object has another ETag than in a lister without this.
    """

    def __init__(self, count: int, changed_every: int = 0) -> None:
        self.count = count
        self.changed_every = changed_every
        self.pages = 0

    def list_objects_v2(self, **request: str) -> dict[str, Any]:
        """Return a page of at most a thousand keys or folders, in order."""
        self.pages += 1
        below = request["Prefix"].removeprefix("images/")
        label = below.removeprefix("Training/").removeprefix("Label ").rstrip("/")
        if "Delimiter" in request and not label:
            inner = [f"Label {n:03d}/" for n in range(LABELS)] if below else ["Training/"]
            folders = [{"Prefix": request["Prefix"] + name} for name in inner]
            return {"IsTruncated": False, "CommonPrefixes": folders}
        first, last = self._numbers(int(label), int(label) + 1) if label else (0, self.count)
        start = int(request.get("ContinuationToken", first))
        stop = min(start + PAGE, last)
        page: dict[str, Any] = {"IsTruncated": stop < last, "Contents": [self._object(n) for n in range(start, stop)]}
        return page | ({"NextContinuationToken": str(stop)} if stop < last else {})

    def _numbers(self, *labels: int) -> tuple[int, ...]:
        """Return the first number of each label."""
        return tuple(-(-label * self.count // LABELS) for label in labels)

    def _object(self, number: int) -> dict[str, Any]:
        changed = self.changed_every > 0 and number % self.changed_every == 0
        etag = hashlib.md5(f"{number} {changed}".encode(), usedforsecurity=False).hexdigest()
        label = number * LABELS // max(self.count, 1)
        key = f"images/Training/Label {label:03d}/{number:012d}_100.jpg"
        return {"Key": key, "ETag": f'"{etag}"', "Size": 4000 + number % 2000}


def trial(count: int) -> dict[str, Any]:
    """List `count` keys twice, 1 % of them changed, and compare.

    Returns:
        Seconds, bytes of the listing, and the process's peak memory (MB) above what it took before.
    """
    import pyarrow.parquet  # noqa: F401 - its memory is not the plan's

    before_mb = peak_mb()
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "first.parquet", Path(folder) / "second.parquet"
        started = time.perf_counter()
        lister = ScriptedLister(count)
        summary = listing.write_listing(list_objects(lister, "raw", "images/"), first)  # type: ignore[arg-type]
        listed = time.perf_counter()
        later = list_objects(ScriptedLister(count, changed_every=100), "raw", "images/")  # type: ignore[arg-type]
        listing.write_listing(later, second)
        compared = time.perf_counter()
        changes = listing.compare(listing.read_listing(first), listing.read_listing(second))
        ended = time.perf_counter()
        size = first.stat().st_size
    return {
        "keys": summary.images,
        "pages": lister.pages,
        "list_and_write_s": round(listed - started, 2),
        "compare_s": round(ended - compared, 2),
        "listing_bytes": size,
        "peak_memory_mb": round(peak_mb() - before_mb),
        "changed": changes.new,
        "unchanged": changes.unchanged,
    }


def peak_mb() -> float:
    """Return the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    results = trial(parser.parse_args().keys)
    (HERE / "plan_trial.json").write_text(json.dumps(results, indent=1) + "\n")
    sys.stdout.write(json.dumps(results) + "\n")
