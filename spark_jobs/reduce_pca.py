"""Update the PCA's Gramian and write this run's PCA model to the run's folder as pca_model.npz.

The Gramian is exact and kept from run to run (`fruits.pca.gramian_store`): a run reads the features that came and
those that went. The driver solves for the components. While the published PCA model still fits, it is this run's; when
the images have drifted away from it, or another size is requested, a new one is. `publish` publishes it.
"""

import argparse
import sys
from dataclasses import replace

from fruits.base import objects
from fruits.job import job_run
from fruits.lake import tables
from fruits.model.networks import NETWORKS
from fruits.pca import drift, gramian_store, principal_components, registry

STAGE = "reduce_pca"


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    parser = job_run.parser(STAGE, __doc__ or "")
    parser.add_argument("--model-id", required=True, help="the model whose features to reduce")
    parser.add_argument("--network", choices=NETWORKS, default="MobileNetV2", help="its network (default %(default)s)")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--variance", type=float, help="keep the fewest components with this share, e.g. 0.95")
    size.add_argument("--k", type=int, help="keep this many components")
    never = "90 is never, since with many components the last ones change places for nothing"
    new = "make a new PCA model when the published one"
    job_run.add_number(parser, "--max-drift-degrees", 90.0, f"{new} is further from the images; {never}", "DEGREES")
    job_run.add_number(parser, "--max-variance-loss", 0.01, f"{new} loses more of the variance", "SHARE")
    parser.add_argument("--full-refresh", action="store_true", help="sum all features again and make a new PCA model")
    return parser


def reduce_pca(run: job_run.Run) -> None:
    """Update the Gramian, compare, and save this run's PCA model."""
    arguments, network = run.arguments, NETWORKS[run.arguments.network]
    tables.ensure(run.spark, arguments.database)
    with gramian_store.refresh(run, arguments.model_id, arguments.full_refresh, network) as current:
        run.log(current.description)
        spectrum = principal_components.solve(current.gramian)
    fresh = principal_components.choose(spectrum, arguments.model_id, arguments.variance, arguments.k)

    limits = drift.Limits(arguments.max_drift_degrees, arguments.max_variance_loss)
    published = registry.current(run.spark, arguments.database)
    comparable = published is not None and published.model_id == arguments.model_id
    measured = drift.measure(published, spectrum) if published is not None and comparable else None
    reason = drift.replacement_reason(published, fresh, measured, limits, arguments.variance)
    if reason is None and arguments.full_refresh:
        reason = "a full refresh is requested"
    # The size of a model that stays may have been requested otherwise: the next run compares with this request.
    pca = fresh if reason is not None or published is None else replace(published, asked=fresh.asked)
    if reason is None:
        run.log(f"the published PCA {pca.pca_id[:12]} stays")
    else:
        run.log(f"new PCA model: {reason}")
        if arguments.k is not None and fresh.k < arguments.k:
            run.log(f"k = {arguments.k} is more than {fresh.n} images can carry: keeping k = {fresh.k}")
    objects.write_bytes(objects.join(arguments.run_folder, "pca_model.npz"), pca.to_bytes())

    explained, images = drift.measure(pca, spectrum).explained_variance, spectrum.gramian.count
    run.log(f"{pca.k} components explain {explained:.1%} of the variance of {images} images")
    run.finish(
        {
            "pca": {"pca_id": pca.pca_id, "k": pca.k, "explained_variance": explained, "n": images},
            "variance_curve": fresh.variance_curve.tolist(),
            "drift": drift.to_metrics(measured, reason, limits, arguments.variance, pca.n),
            "reads": ["features", "pca_models"],
        },
        writes=["pca_sums"],
    )


if __name__ == "__main__":
    sys.exit(job_run.run(STAGE, parser().parse_args(), reduce_pca))
