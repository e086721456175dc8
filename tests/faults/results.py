"""What was injected and what held, one entry per test, kept in build/faults/results.json as soon as a test has ended.

Runs of a part add to what other runs have found; each entry says when and on which commit it was found. `make faults`
begins with an empty file.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = _REPOSITORY / "build" / "faults" / "results.json"
_TESTED = ("plugins", "dags", "spark_jobs", "local_aws", "include", "demo", "tests/faults")


def keep(entries: list[dict[str, Any]], path: Path = RESULTS) -> None:
    """Puts entries in the place of those of the same tests; safe beside another process that does the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tests = {one["test"] for one in entries}
        known = json.loads(path.read_text()) if path.is_file() else []
        found = [one for one in known if one["test"] not in tests] + entries
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(found, indent=1) + "\n")
        fresh.replace(path)


def stamp() -> dict[str, str]:
    """When and what: the moment (UTC), and the commit, with `+` when what is tested differs from it."""
    commit = _git("rev-parse", "--short=10", "HEAD")
    changed = "+" if _git("status", "--porcelain", "--", *_TESTED) else ""
    return {"when": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit + changed}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=_REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.strip() if done.returncode == 0 else ""
