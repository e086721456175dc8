"""Fit the PCA of all features of one model and leave it in the run's folder as pca_model.npz.

Executors add up exact sums, the driver solves for the components: the result is the same to the last bit however
the rows are partitioned. Nothing is published yet; `publish` does that.
"""

from __future__ import annotations

import argparse
import sys

from fruits import data_files, job, objects, pca, schemas, sums, tables

STAGE = "reduce_pca"
_MAX_PARTS = 16


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    made = job.parser(STAGE, __doc__ or "")
    made.add_argument("--model-id", required=True, help="the model whose features to reduce")
    how_many = made.add_mutually_exclusive_group(required=True)
    how_many.add_argument(
        "--variance", type=float, help="keep the fewest components with this share, e.g. 0.95"
    )
    how_many.add_argument("--k", type=int, help="keep this many components")
    return made


def reduce_pca(run: job.Run) -> None:
    """Sum on the executors, fit on the driver, save the model."""
    spark, arguments = run.spark, run.arguments
    tables.ensure(spark, arguments.database)
    total = _summed(run)
    run.say(f"summed {0 if total is None else total.count} images")
    fitted = pca.fit(total, arguments.model_id, arguments.variance, arguments.k)
    if arguments.k is not None and fitted.k < arguments.k:
        run.say(f"k = {arguments.k} is more than {fitted.n} images can carry: keeping k = {fitted.k}")
    objects.write_bytes(objects.join(arguments.run_folder, "pca_model.npz"), fitted.to_bytes())
    explained = float(fitted.explained_variance_ratio.sum())
    run.say(f"{fitted.k} components explain {explained:.1%} of the variance of {fitted.n} images")
    run.finish(
        {
            "pca": {"pca_id": fitted.pca_id, "k": fitted.k, "explained_variance": explained, "n": fitted.n},
            "variance_curve": fitted.variance_curve.tolist(),
        }
    )


def _summed(run: job.Run) -> sums.Sums | None:
    schema, arguments = schemas.spark(schemas.SUMS), run.arguments
    features = f"{arguments.database}.features"
    parts = data_files.mapped(
        run.spark, features, ["features"], arguments.model_id, sums.summer(), schema, run.cores
    )
    if parts.rdd.getNumPartitions() > _MAX_PARTS:
        # 13 MB each: the driver gets a few, whatever the size of the table.
        parts = parts.repartition(_MAX_PARTS).mapInArrow(sums.merger(), schema)
    return sums.merged_sums(bytes(row.sums) for row in parts.collect())


if __name__ == "__main__":
    sys.exit(job.main(STAGE, parser(), reduce_pca, None))
