"""Bring the PCA sums up to date and leave the basis to use tonight in the run's folder as pca_model.npz.

The sums are exact and kept between nights (`fruits.pca.gramian_store`): a night reads the features that came and
    those that
went. The driver solves for the components. While the published basis still fits, it is tonight's; when the images
have drifted away from it, or something else is asked for, a new one is. Nothing is published yet; `publish` does
that.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from fruits.base import objects
from fruits.job import job_run
from fruits.lake import tables
from fruits.pca import (
    drift,
    gramian_store,
    principal_components,
    registry,
)

STAGE = "reduce_pca"


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    made = job_run.parser(STAGE, __doc__ or "")
    made.add_argument("--model-id", required=True, help="the model whose features to reduce")
    how_many = made.add_mutually_exclusive_group(required=True)
    how_many.add_argument(
        "--variance", type=float, help="keep the fewest components with this share, e.g. 0.95"
    )
    how_many.add_argument("--k", type=int, help="keep this many components")
    made.add_argument(
        "--max-drift-degrees",
        type=float,
        default=90.0,
        metavar="DEGREES",
        help="make a new basis when the published one is further from tonight's (default %(default)s, which is never: "
        "with many components the last ones change places for nothing)",
    )
    made.add_argument(
        "--max-variance-loss",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="make a new basis when the published one loses more of the variance (default %(default)s)",
    )
    made.add_argument(
        "--full-refresh", action="store_true", help="sum all features again and make a new basis"
    )
    return made


def reduce_pca(run: job_run.Run) -> None:
    """Bring the sums up to date, compare, and save tonight's basis."""
    spark, arguments = run.spark, run.arguments
    tables.ensure(spark, arguments.database)
    with gramian_store.up_to_date(run, arguments.model_id, arguments.full_refresh) as kept:
        run.say(kept.how)
        found = principal_components.spectrum(kept.sums)
    fresh = principal_components.choose(found, arguments.model_id, arguments.variance, arguments.k)

    limits = drift.Limits(arguments.max_drift_degrees, arguments.max_variance_loss)
    published = registry.current(spark, arguments.database)
    comparable = published is not None and published.model_id == arguments.model_id
    drifted = drift.measure(published, found) if published is not None and comparable else None
    new = drift.why_new(published, fresh, drifted, limits, arguments.variance)
    if new is None and arguments.full_refresh:
        new = "asked to make it anew"
    # What stays may have been asked for otherwise: the next night compares with what was asked for tonight.
    chosen = fresh if new is not None or published is None else replace(published, asked=fresh.asked)
    if new is None:
        run.say(f"the published PCA {chosen.pca_id[:12]} stays")
    else:
        run.say(f"new basis: {new}")
        if arguments.k is not None and fresh.k < arguments.k:
            run.say(f"k = {arguments.k} is more than {fresh.n} images can carry: keeping k = {fresh.k}")
    objects.write_bytes(objects.join(arguments.run_folder, "pca_model.npz"), chosen.to_bytes())

    explained = drift.measure(chosen, found).explained_variance
    run.say(f"{chosen.k} components explain {explained:.1%} of the variance of {found.sums.count} images")
    run.finish(
        {
            "pca": {
                "pca_id": chosen.pca_id,
                "k": chosen.k,
                "explained_variance": explained,
                "n": found.sums.count,
            },
            "variance_curve": fresh.variance_curve.tolist(),
            "drift": drift.as_json(drifted, new, limits, arguments.variance, chosen.n),
        }
    )


if __name__ == "__main__":
    sys.exit(job_run.main(STAGE, parser(), reduce_pca, None))
