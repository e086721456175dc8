"""Whether a step can have a disk of its own on this machine."""

from __future__ import annotations

import subprocess

from tests.emulator.clusters import UNSHARED


def why_no_small_disk() -> str:
    """Return why `disk_full` cannot be armed on this machine; the empty string when it can."""
    try:
        mounted = subprocess.run(
            [*UNSHARED, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt"],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if mounted.returncode == 0 else mounted.stderr.strip() or f"status {mounted.returncode}"
