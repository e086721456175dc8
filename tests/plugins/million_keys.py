"""A scripted S3 that holds any number of made-up keys in no memory, and what listing a million of them takes.

Run as a program: lists, writes and compares N keys; prints JSON: rows, unchanged, seconds, grown_mb, pages.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any


class ScriptedS3:
    """Answers ListObjectsV2 over folders `<prefix><number>/<label>/`, each with the same number of keys."""

    def __init__(self, prefix: str, folders: int, labels: int, each: int, page: int = 1000) -> None:
        self.prefix, self.folders, self.labels, self.each, self.page = prefix, folders, labels, each, page
        self.pages: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        self.delay_s = 0.0
        self._lock = threading.Lock()

    def list_objects_v2(self, **asked: str) -> dict[str, Any]:
        """One page."""
        with self._lock:
            self.pages.append(asked)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.delay_s:
                time.sleep(self.delay_s)
            return self._answer(asked["Prefix"], "Delimiter" in asked, int(asked.get("ContinuationToken", 0)))
        finally:
            with self._lock:
                self.at_once -= 1

    def _answer(self, prefix: str, delimited: bool, start: int) -> dict[str, Any]:
        depth = prefix.removeprefix(self.prefix).count("/")
        if delimited and depth < 2:
            count = self.folders if depth == 0 else self.labels
            return {
                "IsTruncated": False,
                "CommonPrefixes": [{"Prefix": f"{prefix}{number:04}/"} for number in range(count)],
            }
        # What is below: whole labels one after the other.
        labels = (1, self.labels, self.folders * self.labels)[2 - depth]
        stop = min(start + self.page, labels * self.each)
        contents = [self._object(prefix, depth, number) for number in range(start, stop)]
        more = stop < labels * self.each
        return {"IsTruncated": more, "Contents": contents} | ({"NextContinuationToken": str(stop)} if more else {})

    def _object(self, prefix: str, depth: int, number: int) -> dict[str, Any]:
        label, photo = divmod(number, self.each)
        folder, label = divmod(label, self.labels)
        below = (f"{folder:04}/{label:04}/", f"{label:04}/", "")[depth]
        return {"Key": f"{prefix}{below}{photo:07}.jpg", "ETag": f'"{photo:032x}"', "Size": 5000}


def main(keys: int) -> None:
    """List, write and compare."""
    from fruits_airflow.storage.bucket_listing import list_objects
    from fruits_airflow.storage.listing import compare, read_listing, write_listing

    s3 = ScriptedS3("raw/", 5, 10, keys // 50)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "listing.parquet"
        small = ScriptedS3("raw/", 5, 10, 100)
        write_listing(list_objects(small, "raw", "raw/"), path)  # type: ignore[arg-type]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.process_time()
        summary = write_listing(list_objects(s3, "raw", "raw/"), path)  # type: ignore[arg-type]
        changes = compare(read_listing(path), read_listing(path))
        seconds = time.process_time() - started
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    found = {"rows": summary.images, "unchanged": changes.unchanged, "seconds": seconds}
    found |= {"grown_mb": grown / 1024, "pages": len(s3.pages)}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
