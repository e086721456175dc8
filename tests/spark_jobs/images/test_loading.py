"""What a task of load_images writes, and what it says of it. Needs no Spark."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa
from fruits.base import schemas
from fruits.images import loading, suppression
from fruits.images.loading import Outcome

FILE = {"size_bytes": 1, "row_groups": [4]}


class Writer:
    """Stands for `writing.file_writer`: keeps the rows, and returns a file unless there are none."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.rows: list[dict[str, Any]] = []

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        self.rows = [row for batch in batches for row in batch.to_pylist()]
        if self.rows:
            yield pa.RecordBatch.from_pylist([FILE | {"uri": self.uri, "rows": len(self.rows)}], schemas.DATA_FILE)


def result(name: str, **columns: Any) -> dict[str, Any]:
    return {"image_id": name, "source_key": f"{name}.jpg", "etag": "e"} | columns


def run(*batches: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Outcome, Writer, Writer]:
    images, rejects = Writer("i"), Writer("r")
    mapper = loading.file_mapper(iter, images, rejects)
    written = pa.Table.from_batches(
        mapper(pa.RecordBatch.from_pylist(rows, schemas.LOAD_RESULT) for rows in batches), schemas.LOAD_FILE
    ).to_pylist()
    *files, last = written
    assert last["uri"] is None
    return files, Outcome.total([last["outcome"]]), images, rejects


def test_each_row_goes_to_the_file_of_its_table_and_an_erased_photo_to_none() -> None:
    good = [result("a", pixels=b"1", had_metadata=True), result("c", pixels=b"2", had_metadata=False)]
    bad = [result("d", error_code="CORRUPT", detail="no"), result("b", error_code="EMPTY", detail="none")]
    erased = result("e", error_code=suppression.CODE, detail="erased")
    files, outcome, images, rejects = run([good[0], bad[0], erased], [bad[1], good[1]])
    assert [(row["table"], row["uri"], row["rows"]) for row in files] == [("images", "i", 2), ("rejects", "r", 2)]
    assert [row["image_id"] for row in images.rows] == ["a", "c"]
    assert [row["image_id"] for row in rejects.rows] == ["d", "b"]
    examples = [
        {"source_key": "b.jpg", "error_code": "EMPTY", "detail": "none"},
        {"source_key": "d.jpg", "error_code": "CORRUPT", "detail": "no"},
    ]
    assert outcome == Outcome(2, 1, {"CORRUPT": 1, "EMPTY": 1}, 1, examples)
    assert outcome.rejected == 2


def test_a_task_without_rows_writes_no_file() -> None:
    files, outcome, _, _ = run()
    assert (files, outcome) == ([], Outcome(0, 0, {}, 0, []))


def test_outcomes_of_tasks_add_up_and_the_first_examples_stay() -> None:
    tasks = [
        Outcome(1, 1, {"EMPTY": 15}, 2, [{"source_key": f"{2 * n + odd:03}"} for n in range(15)]) for odd in (0, 1)
    ]
    total = Outcome.total(json.dumps(asdict(task)) for task in tasks)
    assert (total.loaded, total.suppressed, total.rejects_by_code, total.metadata_stripped) == (2, 2, {"EMPTY": 30}, 4)
    assert [row["source_key"] for row in total.examples] == [f"{n:03}" for n in range(loading.MAX_EXAMPLES)]
