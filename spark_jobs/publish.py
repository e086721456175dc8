"""Check the run and publish its PCA: project the features that are not projected yet, and commit.

If the current PCA model stays, the commit of its new rows is the publication. A new PCA model gets all of its rows
first, which no reader sees, and then its row in `pca_models`: that last commit is the publication. Until then, readers
see the previous PCA model. If a check fails, nothing is published, stages/publish.json holds the failed checks, and the
exit status is 3.

Before that last commit, the current classifier names new photos, or a new one names all (`fruits.publish.naming`). It
is published in the same way, right after the PCA model.

The PCA model before the current one is kept. To return to it, run this job again in the folder of the last run with
``--pca-id`` and its id: it gets the rows that it lacks and becomes current.
"""

import argparse
import json
import sys
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from fruits.base import schemas
from fruits.base.errors import InputError, QualityGateError
from fruits.base.objects import join
from fruits.classifier import registry as classifiers
from fruits.job import job_run, stage_metrics
from fruits.lake import align, tables
from fruits.lake.data_files import MappedRows, Selection
from fruits.lake.iceberg import Table
from fruits.model.networks import NETWORKS
from fruits.pca import gramian_store, principal_components, registry
from fruits.pca.principal_components import Pca
from fruits.publish import export, naming, pending, quality, samples, upkeep
from fruits.publish.pending import PublicationCounts
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

STAGE = "publish"
_FEW = 5_000


def parser() -> argparse.ArgumentParser:
    """Create the command line."""
    arguments = job_run.parser(STAGE, __doc__ or "")
    limits = quality.Limits()
    arguments.add_argument("--model-id", required=True, help="the model whose features were reduced")
    arguments.add_argument(
        "--network", choices=NETWORKS, default="MobileNetV2", help="its network (default %(default)s)"
    )
    arguments.add_argument("--pca-id", help="publish this kept PCA model again instead of the one from reduce_pca")
    agree = f"needs {limits.judged_photos} labelled photos and weights that are not random"
    share = partial(job_run.add_number, arguments, metavar="SHARE")
    share("--max-reject-rate", limits.reject_rate, "fail if more of the listed objects than this are rejects")
    share("--min-explained-variance", limits.explained_variance, "fail if the PCA model explains less of the variance")
    share("--min-agreement", 0.5, f"fail if fewer nearest neighbours have a photo's own label; {agree}")
    arguments.add_argument(
        "--weights",
        choices=("imagenet", "path", "random", "unknown"),
        required=True,
        help="where the model's weights came from, as its model.json says",
    )
    naming.add_arguments(arguments)
    return arguments


def publish(run: job_run.Run) -> None:
    """Check, project, commit, export."""
    spark, arguments = run.spark, run.arguments
    database = arguments.database
    tables.ensure(spark, database)
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "1024")  # for rows of 5 kB, not pixels
    fitted, explained = _read_pca(run)
    known = registry.requested_sizes(spark, database)
    previous = next((pca_id for pca_id in known if pca_id != fitted.pca_id), None)
    rows, counts = pending.find_pending(run, fitted.pca_id, previous, current=next(iter(known), None))
    projected = _project(run, rows, counts, fitted)

    facts = _gather_facts(run, counts, _measure(projected, len(fitted.mean)), explained)
    limits = _limits(arguments)
    checks = quality.gate(facts, limits)
    sample = None
    if all(check.ok for check in checks.values()):
        sample = samples.draw(run, rows, arguments.model_id)
        facts = replace(facts, **sample.measure(fitted))
        checks = quality.gate(facts, limits)
    failed = sorted(name for name, check in checks.items() if not check.ok)
    metrics = {
        "published": not failed,
        "quality": {
            "knn_accuracy_features": facts.agreement_features,
            "knn_accuracy_pca": facts.agreement_pca,
            "checks": quality.to_json(checks),
        },
    }
    if failed or sample is None:
        run.finish(metrics | {"bytes": {"pca": 0}})
        reasons = ", ".join(f"{name} is {checks[name].value:g}, limit {checks[name].limit:g}" for name in failed)
        raise QualityGateError(f"{reasons}: nothing was published, the last published PCA stays current")
    run.log(f"all {len(checks)} checks hold")

    _commit_rows(run, rows, counts, projected, fitted.pca_id)
    samples.store(run, sample)
    _export(run, fitted, counts.features)
    sample.write_shown(fitted, join(arguments.run_folder, "sample.parquet"))
    # Before the PCA model is current: a run that fails to name the photos has published nothing.
    names, classifier = naming.name_photos(run, rows, counts.images, fitted, previous)
    _make_current(run, fitted, known)
    if classifier:
        classifiers.publish(spark, database, classifier)
    if counts.others or len(known) > 2:
        registry.delete_others(spark, database, [fitted.pca_id, *([previous] if previous else [])])
    gramian_store.delete_other_models(run, registry.feature_models(spark, database))
    size = tables.size_bytes(spark, database, "pca", counts.features)
    metrics |= {
        "classifier": names,
        "bytes": {"pca": size},
        "upkeep": upkeep.maintain(run),
        "reads": ["images", "features"],
    }
    named = ["classifiers", "predictions"] if "classifier_id" in names else []
    run.finish(metrics, writes=["pca", "pca_models", "samples", *named])


def _read_pca(run: job_run.Run) -> tuple[Pca, float]:
    """Read the PCA model to publish, and the share of the current variance that it explains."""
    arguments = run.arguments
    if arguments.pca_id:
        fitted = registry.read(run.spark, arguments.database, arguments.pca_id)
        explained = float(fitted.explained_variance_ratio.sum())
    else:
        fitted = principal_components.load(join(arguments.run_folder, "pca_model.npz"))
        try:
            summary = stage_metrics.read(arguments.run_folder, "reduce_pca")["pca"]
        except FileNotFoundError as error:
            raise InputError(f"{error}: run reduce_pca first") from error
        if summary["pca_id"] != fitted.pca_id:
            raise InputError(
                f"the run's metrics are of PCA {summary['pca_id']}, its model is {fitted.pca_id}: run reduce_pca again"
            )
        explained = summary["explained_variance"]
    if fitted.model_id != arguments.model_id:
        raise InputError(
            f"the run's PCA is of model {fitted.model_id}, --model-id is {arguments.model_id}: run reduce_pca again"
        )
    return fitted, explained


def _project(
    run: job_run.Run, rows: align.AlignedRows, counts: PublicationCounts, fitted: Pca
) -> pa.Table | DataFrame | None:
    """Project the missing features: all features straight from the files, some from the files of their runs.

    Returns:
        `schemas.PROJECTION` rows, on the driver if they are few; None if there are none.
    """
    if not counts.missing:
        return None
    arguments, spark = run.arguments, run.spark
    project = principal_components.project_mapper(fitted)
    name, schema = f"{arguments.database}.features", schemas.PROJECTION
    columns = ["image_id", "features"]
    of_model = {"model_id": [arguments.model_id]}
    if counts.missing <= _FEW:
        # At most 25 MB of features: starting Python on the executors takes longer than projecting them here.
        ids = [row.image_id for row in rows.collect(["image_id"], "missing")]
        where = of_model | {"run_id": counts.runs, "image_id": ids}
        batches = project(Selection(spark, name, columns, where).read().to_batches())
        return pa.Table.from_batches(batches, schema)
    if counts.missing == counts.features:
        mapped = Selection(spark, name, columns, of_model).map(project, schema, run.cores)
    else:
        of_runs = Selection(spark, name, columns, of_model | {"run_id": counts.runs}).frame()
        missing = of_runs.join(rows.to_join(["image_id"], "missing"), "image_id", "left_semi")
        mapped = MappedRows(missing, project, schema)
    return mapped.frame().persist(StorageLevel.DISK_ONLY)


def _measure(projected: pa.Table | DataFrame | None, dims: int) -> dict[str, Any]:
    """Count projected rows and rows with defects, such as not `dims` features, and measure the range of norms."""
    if projected is None:
        projected = schemas.PROJECTION.empty_table()
    if isinstance(projected, pa.Table):
        counts = align.count_flags(
            projected=align.is_not_null(projected["pca"]),
            not_finite=~projected["finite"].to_numpy(),
            wrong_dims=~align.equals(projected["dims"], dims),
        )
        norms = pc.min_max(projected["norm"]).as_py()
        return counts | {"smallest_norm": norms["min"], "largest_norm": norms["max"]}
    row = projected.agg(
        F.count("pca").alias("projected"),
        F.count_if(~F.col("finite")).alias("not_finite"),
        F.count_if(F.col("dims") != dims).alias("wrong_dims"),
        F.min("norm").alias("smallest_norm"),
        F.max("norm").alias("largest_norm"),
    ).collect()[0]
    return row.asDict()


def _gather_facts(
    run: job_run.Run, counts: PublicationCounts, measured: dict[str, Any], explained: float
) -> quality.Facts:
    rejects = f"{run.arguments.database}.rejects"
    return quality.Facts(
        images=counts.images,
        rejects=Table(run.spark, rejects).rows,
        images_of_run=counts.of_run,
        rejects_of_run=len(Selection(run.spark, rejects, ["image_id"], {"run_id": [run.arguments.run_id]}).read()),
        images_without_features=counts.images_without_features,
        features_without_image=counts.features_without_image,
        features_without_pca=abs(counts.missing - measured.pop("projected")),
        images_in_sums=gramian_store.image_count(run, run.arguments.model_id),
        **measured,
        explained_variance=explained,
        agreement_features=None,
        agreement_pca=None,
        judged_photos=0,
    )


def _limits(arguments: argparse.Namespace) -> quality.Limits:
    network = NETWORKS[arguments.network]
    return quality.Limits(
        largest_norm=max(-network.low, network.high) * network.dims**0.5,
        reject_rate=arguments.max_reject_rate,
        explained_variance=arguments.min_explained_variance,
        agreement=None if arguments.weights in ("random", "unknown") else arguments.min_agreement,
    )


def _commit_rows(
    run: job_run.Run,
    rows: align.AlignedRows,
    counts: PublicationCounts,
    projected: pa.Table | DataFrame | None,
    pca_id: str,
) -> None:
    """Commit the missing rows and delete those of deleted images, in one commit."""
    spark, database = run.spark, run.arguments.database
    upserts = deletes = None
    if projected is not None:
        versions = rows.to_join(["image_id", "label", "features_content", "features_run"], "missing")
        constants = {"pca_id": F.lit(pca_id), "run_id": F.lit(run.arguments.run_id)}
        schema = schemas.to_spark(schemas.PROJECTION)
        frame = align.from_arrow(spark, projected, schema) if isinstance(projected, pa.Table) else projected
        upserts = frame.join(versions, "image_id", "inner").withColumns(constants)
        upserts = upserts.withColumnsRenamed({"features_content": "content_sha256", "features_run": "features_run_id"})
        upserts = upserts.coalesce(1) if rows.is_on_driver else upserts  # each task compiles the same writer
    if counts.orphans:
        orphans = rows.to_join(["image_id"], "orphan")
        keys = spark.table(f"{database}.pca").select("image_id", "pca_id")
        deletes = keys.join(orphans, "image_id", "left_semi")
    tables.merge(spark, database, "pca", upserts, deletes, only_adds=not counts.outdated)
    run.log(f"{counts.missing} rows written to pca")


def _export(run: job_run.Run, fitted: Pca, rows: int) -> None:
    """Write the rows of this PCA model as a single Parquet file, whose metadata says what they are."""
    where = {"pca_id": [fitted.pca_id]}
    about = {name: getattr(fitted, name) for name in ("pca_id", "model_id", "k", "asked", "n")}
    about |= {name: getattr(run.arguments, name) for name in ("run_id", "network", "weights")} | {"format_version": 1}
    network = NETWORKS[run.arguments.network]
    features = f"averages of {network.name}'s output, from {network.low:g} to {network.high:g}"
    units = {"pca": f"none: (features - mean) @ components.T, of features that are {features}"}
    export.write_parquet(
        Selection(run.spark, f"{run.arguments.database}.pca", schemas.PCA_EXPORT.names, where),
        join(run.arguments.run_folder, "pca.parquet"),
        schemas.PCA_EXPORT.with_metadata({"fruits": json.dumps(about | {"units": units})}),
        rows * (4 * fitted.k + 100),
    )


def _make_current(run: job_run.Run, fitted: Pca, known: dict[str, str]) -> None:
    """Make the PCA model current; write its row again if only the request for it has changed."""
    is_current = next(iter(known), None) == fitted.pca_id
    if not is_current or known[fitted.pca_id] != fitted.asked:
        registry.publish(run.spark, run.arguments.database, fitted, run.arguments.run_id)
    if is_current:
        run.log(f"PCA {fitted.pca_id[:12]} stays the current one")
    else:
        run.log(f"published PCA {fitted.pca_id[:12]}: {fitted.k} components of {fitted.n} images")


if __name__ == "__main__":
    sys.exit(job_run.run(STAGE, parser().parse_args(), publish))
