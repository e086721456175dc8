"""Check the run and publish its PCA: project what is not projected yet, and commit.

Where the published basis stays, the one commit of its new rows is the publication. A new basis gets all of its rows
first, which no reader sees, and then its row in `pca_models`: that last commit is the publication. Until it is
there, readers see the PCA published before. When a check fails nothing is published, the failing checks are in
stages/publish.json, and the exit status is 3.

The basis before the current one is kept. To go back to it, run this job again in the folder of the last run with
``--pca-id`` and its id: it gets the rows that it lacks and becomes the current one.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from fruits.base import schemas
from fruits.base.errors import InputError, QualityGateError
from fruits.base.objects import join
from fruits.job import job_run, stage_metrics
from fruits.lake import align, data_files, tables
from fruits.lake.iceberg import Table
from fruits.model.embedding import DIMS
from fruits.pca import gramian_store, principal_components, registry
from fruits.pca.principal_components import Pca
from fruits.publish import (
    export,
    pending,
    quality,
    samples,
    upkeep,
)
from fruits.publish.pending import Work
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

STAGE = "publish"
_FEW = 5_000


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    made = job_run.parser(STAGE, __doc__ or "")
    limits = quality.Limits()
    made.add_argument("--model-id", required=True, help="the model whose features were reduced")
    made.add_argument(
        "--pca-id", help="publish this basis again, which is kept, instead of the one that reduce_pca left"
    )
    made.add_argument(
        "--max-reject-rate",
        type=float,
        default=limits.reject_rate,
        metavar="SHARE",
        help="fail when more of the listed objects than this are rejects (default %(default)s)",
    )
    made.add_argument(
        "--min-explained-variance",
        type=float,
        default=limits.explained_variance,
        metavar="SHARE",
        help="fail when the basis explains less of the variance (default %(default)s)",
    )
    made.add_argument(
        "--min-agreement",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="fail when fewer nearest neighbours have a photo's own label (default %(default)s); only where there "
        f"are {limits.judged} labelled photos to judge, and not with random weights",
    )
    made.add_argument(
        "--weights",
        choices=("imagenet", "path", "random", "unknown"),
        required=True,
        help="where the model's weights came from, as its model.json says",
    )
    return made


def publish(run: job_run.Run) -> None:
    """Judge, project, commit, export."""
    spark, arguments = run.spark, run.arguments
    tables.ensure(spark, arguments.database)
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "1024")  # rows of 5 kB, not of pixels
    fitted, explained = _basis(run)
    known = registry.requested_sizes(spark, arguments.database)
    before = next((pca_id for pca_id in known if pca_id != fitted.pca_id), None)
    laid, work = pending.lay(run, fitted.pca_id, before)
    projected = _projected(run, laid, work, fitted)

    facts, limits = _facts(run, work, projected, explained), _limits(run)
    checks = quality.gate(facts, limits)
    sample = None
    if all(check.ok for check in checks.values()):
        sample = samples.draw(run, laid, arguments.model_id)
        by_features, by_pca, judged = sample.agreement(fitted)
        facts = replace(facts, agreement_features=by_features, agreement_pca=by_pca, judged=judged)
        checks = quality.gate(facts, limits)
    failed = sorted(name for name, check in checks.items() if not check.ok)
    metrics = {
        "published": not failed,
        "quality": {
            "knn_accuracy_features": facts.agreement_features,
            "knn_accuracy_pca": facts.agreement_pca,
            "checks": quality.as_json(checks),
        },
    }
    if failed or sample is None:
        run.finish(metrics | {"bytes": {"pca": 0}})
        said = ", ".join(f"{name} is {checks[name].value:g}, limit {checks[name].limit:g}" for name in failed)
        raise QualityGateError(f"{said}: nothing was published, the last published PCA stays current")
    run.log(f"all {len(checks)} checks hold")

    _commit_rows(run, laid, work, projected, fitted.pca_id)
    samples.keep(run, sample)
    _export(run, fitted, work.features)
    sample.write_shown(fitted, join(arguments.run_folder, "sample.parquet"))
    _make_current(run, fitted, known)
    if work.others or len(known) > 2:
        registry.delete_others(spark, arguments.database, [fitted.pca_id, *([before] if before else [])])
    gramian_store.delete_other_models(run, registry.feature_models(spark, arguments.database))
    size = tables.size_bytes(spark, arguments.database, "pca", work.features)
    run.finish(metrics | {"bytes": {"pca": size}, "upkeep": upkeep.done(run)})


def _basis(run: job_run.Run) -> tuple[Pca, float]:
    """Read tonight's basis and the share of tonight's variance that it explains."""
    arguments = run.arguments
    if arguments.pca_id:
        fitted = registry.read(run.spark, arguments.database, arguments.pca_id)
        explained = float(fitted.explained_variance_ratio.sum())
    else:
        fitted = principal_components.load(join(arguments.run_folder, "pca_model.npz"))
        try:
            said = stage_metrics.read(arguments.run_folder, "reduce_pca")["pca"]
        except FileNotFoundError as error:
            raise InputError(f"{error}: run reduce_pca first") from error
        if said["pca_id"] != fitted.pca_id:
            raise InputError(
                f"the run's metrics are of PCA {said['pca_id']}, its model is {fitted.pca_id}: run reduce_pca again"
            )
        explained = said["explained_variance"]
    if fitted.model_id != arguments.model_id:
        raise InputError(
            f"the run's PCA is of model {fitted.model_id}, asked for was {arguments.model_id}: run reduce_pca again"
        )
    return fitted, explained


def _projected(run: job_run.Run, laid: align.Laid, work: Work, fitted: Pca) -> pa.Table | DataFrame | None:
    """Project the features that this basis has no row of: all of them straight from the files, some by their runs.

    Returns:
        `schemas.PROJECTED` rows, few of them on the driver; None where there are none.
    """
    if not work.missing:
        return None
    arguments, spark = run.arguments, run.spark
    project = principal_components.project_mapper(fitted)
    name, schema = f"{arguments.database}.features", schemas.PROJECTED
    columns = ["image_id", "features"]
    of_model = {"model_id": [arguments.model_id]}
    if work.missing > _FEW:
        if work.missing == work.features:
            made = data_files.mapped(spark, name, columns, of_model, project, schema, run.cores)
        else:
            rows = tables.of_model(spark.table(name), arguments.model_id).where(
                F.col("run_id").isin(work.runs)
            )
            chosen = rows.select(*columns).join(
                laid.to_join(["image_id"], "missing"), "image_id", "left_semi"
            )
            made = data_files.Mapped(chosen, project, schema)
        return made.frame().persist(StorageLevel.DISK_ONLY)
    # 25 MB of features at most: starting Python on the executors takes longer than projecting them here.
    wanted = of_model | {"run_id": work.runs, "image_id": laid.ids("missing")}
    batches = project(data_files.here(spark, name, columns, wanted).to_batches())
    return pa.Table.from_batches(batches, schema)


def _measured(projected: pa.Table | DataFrame | None) -> dict[str, Any]:
    """Measure what was projected: rows, those with something wrong, and the range of norms."""
    if projected is None:
        projected = schemas.PROJECTED.empty_table()
    if isinstance(projected, pa.Table):
        counts = align.counts(
            projected=align.given(projected["pca"]),
            not_finite=~projected["finite"].to_numpy(),
            wrong_dims=~align.same(projected["dims"], DIMS),
        )
        norms = pc.min_max(projected["norm"]).as_py()
        return counts | {"smallest_norm": norms["min"], "largest_norm": norms["max"]}
    row = projected.agg(
        F.count("pca").alias("projected"),
        F.count_if(~F.col("finite")).alias("not_finite"),
        F.count_if(F.col("dims") != DIMS).alias("wrong_dims"),
        F.min("norm").alias("smallest_norm"),
        F.max("norm").alias("largest_norm"),
    ).collect()[0]
    return row.asDict()


def _facts(
    run: job_run.Run, work: Work, projected: pa.Table | DataFrame | None, explained: float
) -> quality.Facts:
    found = _measured(projected)
    return quality.Facts(
        images=work.images,
        rejects=Table(run.spark, f"{run.arguments.database}.rejects").rows,
        images_without_features=work.images_without_features,
        features_without_image=work.features_without_image,
        features_without_pca=abs(work.missing - found.pop("projected")),
        images_in_sums=gramian_store.image_count(run, run.arguments.model_id),
        **found,
        explained_variance=explained,
        agreement_features=None,
        agreement_pca=None,
        judged=0,
    )


def _limits(run: job_run.Run) -> quality.Limits:
    arguments = run.arguments
    return quality.Limits(
        reject_rate=arguments.max_reject_rate,
        explained_variance=arguments.min_explained_variance,
        agreement=None if arguments.weights in ("random", "unknown") else arguments.min_agreement,
    )


def _commit_rows(
    run: job_run.Run, laid: align.Laid, work: Work, projected: pa.Table | DataFrame | None, pca_id: str
) -> None:
    """Commit the rows that this basis lacks and remove those of images that are gone, in one commit."""
    spark, database = run.spark, run.arguments.database
    rows = orphans = None
    if projected is not None:
        versions = laid.to_join(["image_id", "label", "of_features", "of_run"], "missing")
        constants = {"pca_id": F.lit(pca_id), "run_id": F.lit(run.arguments.run_id)}
        schema = schemas.spark(schemas.PROJECTED)
        frame = align.from_arrow(spark, projected, schema) if isinstance(projected, pa.Table) else projected
        rows = frame.join(versions, "image_id", "inner").withColumns(constants)
        rows = rows.withColumnsRenamed({"of_features": "content_sha256", "of_run": "features_run_id"})
        rows = rows.coalesce(1) if laid.is_here else rows  # each further task compiles the same writer
    if work.orphans:
        gone = laid.to_join(["image_id"], "orphan")
        orphans = (
            spark.table(f"{database}.pca").select("image_id", "pca_id").join(gone, "image_id", "left_semi")
        )
    tables.merge(spark, database, "pca", rows, orphans, only_adds=not work.outdated)
    run.log(f"{work.missing} rows written to pca")


def _export(run: job_run.Run, fitted: Pca, rows: int) -> None:
    """Write the rows of this basis, and only these, as one Parquet file."""
    export.write_parquet(
        run.spark,
        f"{run.arguments.database}.pca",
        {"pca_id": [fitted.pca_id]},
        join(run.arguments.run_folder, "pca.parquet"),
        schemas.PCA_EXPORT,
        rows * (4 * fitted.k + 100),
    )


def _make_current(run: job_run.Run, fitted: Pca, known: dict[str, str]) -> None:
    """Make the basis the current one; of one that stays, only what was asked for may be new."""
    stays = next(iter(known), None) == fitted.pca_id
    if not stays or known[fitted.pca_id] != fitted.asked:
        registry.publish(run.spark, run.arguments.database, fitted, run.arguments.run_id)
    if stays:
        run.log(f"PCA {fitted.pca_id[:12]} stays the current one")
    else:
        run.log(f"published PCA {fitted.pca_id[:12]}: {fitted.k} components of {fitted.n} images")


if __name__ == "__main__":
    sys.exit(job_run.run(STAGE, parser().parse_args(), publish))
