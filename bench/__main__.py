"""Run the benchmark: `make bench`, or `make bench QUICK=1` for less of everything in under ten minutes.

Writes build/bench/results.json and its tables, build/bench/README.md; every single run is in build/bench/runs.jsonl,
and a suite that was interrupted goes on from there with --resume. --publish puts the results into bench/README.md (of a
quick run, how long it took), and refuses those of a changed tree.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from bench import commits, machine
from bench.agreement import Disagreement
from bench.commits import NotPublishable
from bench.measure import RunFailed
from bench.photos import REPOSITORY, TooFewPhotos
from bench.report import readme, results
from bench.runs import SIZES
from bench.suite import SECTIONS, Suite

OUT = REPOSITORY / "build" / "bench"


def main() -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", choices=list(SIZES), default="full")
    parser.add_argument("--out", type=Path, default=OUT, help="default: build/bench")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--resume", action="store_true", help="keep the runs that are there already")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="these sections alone; may be repeated")
    parser.add_argument("--publish", action="store_true", help="write the results into bench/ as well")
    options = parser.parse_args()
    # So that a contestant is ended with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        before = machine.describe()
        if options.publish:
            commits.check([before["commit"]])
        suite = Suite(out, SIZES[options.sizes], options.workers, options.resume)
        suite.run(options.only or SECTIONS)
        is_uninterrupted = not options.resume and not options.only
        took_s = time.monotonic() - started if is_uninterrupted else None
        figures = results.summarize(suite.journal.runs, suite.sizes, options.workers, before, took_s)
        figures["details"] |= {"photos": suite.photos.kind, "weights": suite.model.origin}
        (out / "results.json").write_text(json.dumps(figures, indent=1) + "\n")
        (out / "README.md").write_text(f"# Results\n\n{readme.tables_of(figures)}\n")
        if options.publish:
            commits.check(figures["details"]["commits"])
            readme.publish(figures)
    except (RunFailed, Disagreement, TooFewPhotos, NotPublishable) as error:
        sys.stderr.write(f"ERROR {type(error).__name__}: {error}\n")
        return 1
    sys.stdout.write(f"{out / 'results.json'}\n{out / 'README.md'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
