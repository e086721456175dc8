"""The sample of a run's images for its report: sample.parquet, which a node writes and another process decodes."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from fruits_airflow.config.errors import FruitsError
from fruits_airflow.records import sample_decoder

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE = "sample.parquet"
MAX_SAMPLE_BYTES = 10_000_000  # a real one has some 1 MB
_TIMEOUT_S = 60
_DECODER_LOCK = Lock()  # pages that are requested together must not decode together: each takes memory


class SampleError(FruitsError):
    """The sample cannot be decoded within its limits of memory, time and rows."""


def decode_sample(content: bytes) -> pa.Table:
    """Decode sample.parquet, of at most MAX_SAMPLE_BYTES, in a process of its own.

    Returns:
        The columns `image_id`, `label`, `pc1`, `pc2` and `thumbnail`; a value of another type or size is NULL.

    Raises:
        SampleError: The file is no Parquet, or needs more than the decoder may take.
    """
    import pyarrow as pa

    texts, numbers = dict.fromkeys(("image_id", "label"), pa.string()), dict.fromkeys(("pc1", "pc2"), pa.float64())
    schema = pa.schema(texts | numbers | {"thumbnail": pa.binary()})
    rows = json.loads(_decode(content))
    for row in rows:
        row["thumbnail"] = row["thumbnail"] and base64.b64decode(row["thumbnail"])
    return pa.Table.from_pylist(rows, schema)


@lru_cache(maxsize=4)
def _decode(content: bytes) -> bytes:
    command = [sys.executable, "-I", str(Path(sample_decoder.__file__))]
    # Arrow's other allocators reserve more address space than the decoder may have.
    environment = {"PATH": os.environ.get("PATH", ""), "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
    with _DECODER_LOCK:
        try:
            done = subprocess.run(
                command, input=content, env=environment, capture_output=True, check=False, timeout=_TIMEOUT_S
            )
        except subprocess.TimeoutExpired as error:
            raise SampleError(f"{SAMPLE} cannot be shown: it is not decoded after {_TIMEOUT_S} s") from error
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        why = lines[-1][:400] if lines else f"its decoder ended with status {done.returncode}"
        raise SampleError(f"{SAMPLE} cannot be shown: {why}")
    return done.stdout
