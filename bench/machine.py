"""What ran the benchmark: processor, cores, memory, versions, date, commit, and what else kept it busy."""

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from bench import commits, measure

PACKAGES = ("pyspark", "tensorflow-cpu", "tensorflow", "keras", "ai-edge-litert", "ray", "daft", "scikit-learn")


def describe() -> dict[str, Any]:
    """Describe the machine that the figures come from."""
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commits.here(),
        "load_average_before": measure.load_average(),
    }


def cpu() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of the contestants' packages."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed
