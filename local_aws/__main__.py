"""`python -m local_aws`: exit 0 after SIGTERM or SIGINT, 2 when it cannot start."""

from __future__ import annotations

import logging
import sys

from local_aws.server import StartError, serve
from local_aws.settings import SettingsError, parse_command_line


def main() -> int:
    """Runs the server; returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # "task queue depth is 1": waitress says so for each request that waits for a thread
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    try:
        serve(parse_command_line())
    except (SettingsError, StartError) as error:
        print(f"local_aws: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
