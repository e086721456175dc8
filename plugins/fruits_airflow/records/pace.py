"""How long a part of a run takes, from the records of past runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from fruits_airflow.records.models import RunRecord

MIN_IMAGES = 10_000  # in a smaller run the start of Spark is most of the seconds


def typical_seconds(records: Iterable[RunRecord], part: str, mode: object, engine: object, new: int) -> float | None:
    """Return the median seconds of a part in past good runs of this mode and engine; None without such runs.

    From MIN_IMAGES new images on, the seconds grow with their number; smaller runs are compared as they are.
    """
    past = []
    for record in records:
        seconds, images = getattr(record.seconds, part), record.images.new
        is_alike = (record.state, record.mode, record.features.engine) == ("succeeded", mode, engine)
        if is_alike and seconds and (images >= MIN_IMAGES) == (new >= MIN_IMAGES):
            past.append(seconds * (new / images if new >= MIN_IMAGES else 1))
    return statistics.median(past) if past else None
