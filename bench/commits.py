"""Which commit is measured, and whether its figures may be published: only those of a commit that others find."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
MEASURED = ("spark_jobs", "dev", "bench")
WRITTEN = ("bench/README.md", "bench/results.json", "bench/quick.json")
"""What publishing writes: it makes no other measurement."""


class NotPublishable(Exception):
    """Figures of files that are in no commit."""


def here() -> str:
    """Return the commit of this tree, with a `+` when files that are measured differ from it."""
    excluded = (f":(exclude){path}" for path in WRITTEN)
    changed = git("status", "--porcelain", "--", *MEASURED, *excluded)[1]
    return git("rev-parse", "--short=12", "HEAD")[1] + ("+" if changed else "")


def check(commits: Iterable[str]) -> None:
    """Require commits that everybody can look up.

    Raises:
        NotPublishable: One is a changed tree, or none of the commits that this tree came from.
    """
    for commit in commits:
        if not commit or commit.endswith("+"):
            raise NotPublishable(
                f"measured at {commit or 'no commit'}: files of {', '.join(MEASURED)} differ from it. Commit them, "
                "then make bench PUBLISH=1"
            )
        if git("merge-base", "--is-ancestor", commit, "HEAD")[0] != 0:
            raise NotPublishable(
                f"commit {commit} is not in this history: it was rebased or amended away. Measure the present one: "
                "make bench PUBLISH=1"
            )


def git(*arguments: str) -> tuple[int, str]:
    """Run a git command; return its exit status and output."""
    try:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return 127, ""
    return done.returncode, done.stdout.strip()
