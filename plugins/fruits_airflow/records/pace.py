"""How long each part of a run takes, from the records of past runs."""

import statistics
from collections.abc import Iterable

from fruits_airflow.records.models import RunRecord, StageSeconds

MIN_IMAGES = 10_000  # in a smaller run the start of Spark is most of the seconds


def typical_seconds(records: Iterable[RunRecord], mode: object, engine: object, new: int) -> dict[str, float]:
    """Return the median seconds of each part in past good runs of this mode and engine, of parts that they have.

    From MIN_IMAGES new images on, the seconds grow with their number; smaller runs are compared as they are.
    """
    past: dict[str, list[float]] = {part: [] for part in StageSeconds.model_fields}
    for record in records:
        images = record.images.new
        is_alike = (record.state, record.mode, record.features.engine) == ("succeeded", mode, engine)
        if is_alike and (images >= MIN_IMAGES) == (new >= MIN_IMAGES):
            for part, seconds in record.seconds:
                past[part].append(seconds * (new / images if new >= MIN_IMAGES else 1))
    return {part: statistics.median(filter(None, seconds)) for part, seconds in past.items() if any(seconds)}
