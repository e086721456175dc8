"""Cleans files one by one, each in a process of its own, and says what became of it and what it took.

Run as a program: reads a path a line, answers a JSON line each: code (null: loaded), size, seconds, peak_mb. The
process that forks is small, so that a child's peak is what the file took, and 30 MB of Python beside it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from fruits.images.decoding import clean
from fruits.images.rejects import ImageRejected

GIVE_UP_S = 30
ADDRESS_SPACE = 4 * 1024**3


def verdict(data: bytes) -> dict[str, Any]:
    """What becomes of these bytes; an exception other than a reject says its name."""
    try:
        image = clean(data)
    except ImageRejected as rejected:
        return {"code": str(rejected.code), "size": None}
    except BaseException as error:  # noqa: BLE001 - said to the test, which fails
        return {"code": f"RAISED {error!r}", "size": None}
    return {"code": None, "size": [image.width_px, image.height_px]}


def probe(path: Path) -> dict[str, Any]:
    """Clean one file in a child."""
    source, sink = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(GIVE_UP_S)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        data = path.read_bytes()
        started = time.process_time()
        said = verdict(data) | {"seconds": time.process_time() - started}
        os.write(sink, json.dumps(said).encode())
        os._exit(0)
    os.close(sink)
    with os.fdopen(source, "rb") as answer:
        said = json.loads(answer.read() or b'{"code": "DIED", "size": null, "seconds": -1}')
    _, status, used = os.wait4(child, 0)
    return said | {"peak_mb": used.ru_maxrss / 1024, "status": status}


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(probe(Path(line.rstrip("\n")))) + "\n")
        sys.stdout.flush()
