"""Decode sample.parquet from stdin to JSON on stdout, as a process of its own with limited memory and time.

`sample.py` runs this file, because a node writes the sample: a Parquet file of a kilobyte can decode to gigabytes,
and only decoding shows how much. It imports nothing of the product, so that it starts quickly.
"""

import base64
import io
import json
import resource
import sys
from typing import Any

COLUMNS = ("image_id", "label", "pc1", "pc2", "thumbnail")
MAX_ROWS = 2_000
MAX_MEMORY_BYTES = 768 * 1024 * 1024  # address space; the interpreter with pyarrow takes some 400 MB
MAX_SECONDS = 20
MAX_LABEL = 200
MAX_THUMBNAIL_BYTES = 16_000  # a real one has some 1 kB
MAX_THUMBNAILS_BYTES = 1_000_000  # of all together: the page holds them as base64, and has at most 2 MB


def main() -> int:
    """Write the rows, or one line on stderr that says why they cannot be shown; return the exit status."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
    try:
        rows = _rows(sys.stdin.buffer.read())
    except MemoryError:
        sys.stderr.write(f"it needs more than {MAX_MEMORY_BYTES // 1024**2} MB of memory\n")
        return 1
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the file, the page says so
        sys.stderr.write(f"it is no usable Parquet: {str(error)[:300]}\n")
        return 1
    json.dump(rows, sys.stdout)
    return 0


def _rows(content: bytes) -> list[dict[str, object]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.set_cpu_count(1)
    source = pq.ParquetFile(io.BytesIO(content), memory_map=False)
    columns = [name for name in COLUMNS if name in source.schema_arrow.names]
    if source.metadata.num_rows > MAX_ROWS:
        raise ValueError(f"it has {source.metadata.num_rows:,} rows, and at most {MAX_ROWS:,} are read")
    rows: list[dict[str, object]] = []
    room = MAX_THUMBNAILS_BYTES
    for batch in source.iter_batches(batch_size=100, columns=columns, use_threads=False):
        for values in batch.to_pylist():
            row = _bounded(values, min(room, MAX_THUMBNAIL_BYTES))
            room -= len(row["thumbnail"] or b"")
            rows.append(row | {"thumbnail": row["thumbnail"] and base64.b64encode(row["thumbnail"]).decode()})
        if len(rows) > MAX_ROWS:
            raise ValueError(f"it has more than {MAX_ROWS:,} rows")
    return rows


def _bounded(values: dict[str, Any], room: int) -> dict[str, Any]:
    """Return the row; a value of another type, or too large, is None."""
    thumbnail, row = values.get("thumbnail"), dict[str, Any]()
    for name in ("image_id", "label"):
        row[name] = values[name][:MAX_LABEL] if isinstance(values.get(name), str) else None
    for name in ("pc1", "pc2"):
        row[name] = float(values[name]) if isinstance(values.get(name), int | float) else None
    fits = isinstance(thumbnail, bytes) and len(thumbnail) <= room
    return row | {"thumbnail": thumbnail if fits else None}


if __name__ == "__main__":
    sys.exit(main())
