"""`python -m local_aws` exits with 0 after SIGTERM or SIGINT, with 2 when it cannot start."""

import logging
import sys

from local_aws.server import StartError, serve
from local_aws.settings import SettingsError, parse_command_line


def main() -> int:
    """Run the server and return the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # waitress warns "task queue depth is 1" for each request that waits for a thread
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    try:
        serve(parse_command_line())
    except (SettingsError, StartError) as error:
        print(f"local_aws: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
