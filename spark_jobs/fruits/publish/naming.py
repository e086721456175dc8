"""Name the photos: fit a classifier when the labelled photos call for one, and keep `predictions` complete.

The sums are not kept between runs: `features` has no labels, and a run that fits a new classifier names all photos
anyway. Other runs read neither the features nor the vectors of photos that have names.
"""

import argparse
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

from fruits.base import schemas
from fruits.base.batches import Mapper, to_matrix
from fruits.base.errors import NoClassifierError
from fruits.classifier import discriminant, evaluation, registry
from fruits.classifier.discriminant import Classifier
from fruits.classifier.label_sums import LabelSums, normalize
from fruits.classifier.split import LabelledPhoto, Split, near_equal, split
from fruits.job import job_run, stage_metrics
from fruits.lake import align, tables
from fruits.lake.data_files import Selection
from fruits.lake.tables import SparkRows
from fruits.model.networks import NETWORKS
from fruits.pca.principal_components import Pca

LEAST_PHOTOS = 100
LEAST_JUDGED = 30
_MOST_PHOTOS = 100_000
"""The most labelled photos that a classifier is fitted and judged on, the first by image id: 0.5 GB of features."""
_MOST_JUDGED = 20_000
_MOST_SCORES = 1_000_000  # judging takes some 15 s with so many
_FEW = 5_000
_EXAMPLES = 20
_PHOTO = ("label", "source_key", "features_content", "features_run")
_VECTOR = ["image_id", "pca", "label", "content_sha256", "features_run_id"]
_FLAGS = ("present", "labelled", "unlabelled", "unnamed", "gone")
_SCHEMA = pa.schema(
    [
        *schemas.required(image_id=pa.string()),
        *((name, pa.string()) for name in _PHOTO),
        *schemas.required(**dict.fromkeys(_FLAGS, pa.bool_())),
    ]
)

Counts = Mapping[str, int]
Named: TypeAlias = pa.Table | DataFrame  # `schemas.NAMED`: few on the driver, many on the executors' disks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the classifier to a command line."""
    parser.add_argument("--classifier", choices=("on", "off"), default="on", help="name the photos (default on)")
    for name, default, text in (
        ("--shrinkage", 0.1, "how much of the scatter within labels is replaced by that of a ball"),
        ("--held-out-share", 0.3, "of the labelled series, to judge by"),
        ("--refit-share", 0.1, "fit anew when more of the labelled photos than this changed"),
        ("--max-accuracy-loss", 0.1, "fit anew when the accuracy of new photos is lower by more than this"),
        ("--unknown-error", 0.1, "of wrong answers, and of known fruit not recognised, to choose thresholds for"),
    ):
        job_run.add_number(parser, name, default, text, "SHARE")


def name_photos(
    run: job_run.Run, rows: align.AlignedRows, images: int, pca: Pca, previous: str | None
) -> tuple[stage_metrics.Metrics, Classifier | None]:
    """Name the photos that the current classifier has not named, or all of them by a new one.

    No reader sees what a new classifier has named until it is published. Where none can be fitted, the
    published one stays while its PCA model is kept: `pca`, or the one before it, `previous`. `rows` are those of
    `pending.find_pending`, about as many as `images`.

    Returns:
        The part `classifier` of the stage's metrics, and a new classifier to publish.
    """
    spark, database, options = run.spark, run.arguments.database, run.arguments
    if options.classifier == "off":
        registry.delete_others(spark, database, "")
        return {"reason": "the classifier is off"}, None
    published = registry.current(spark, database)
    photos, tally = _align(run, rows, images, published)
    counts, named, totals = tally.counts, None, dict[str, int]()
    if counts["others"]:  # of a run that was killed
        registry.delete_others(spark, database, published.classifier_id if published else "")
    labels = sorted({normalize(label) or "" for label in tally.runs})
    settings = " ".join(
        f"{name}={getattr(options, name):g}" for name in ("shrinkage", "held_out_share", "unknown_error")
    )
    target = Target(pca.pca_id, settings, hashlib.sha256("\n".join(labels).encode()).hexdigest())
    reason = refit_reason(published, target, counts, options.refit_share)
    if published and reason is None and counts["unnamed"]:
        named, totals = _name(run, photos, counts, published, "unnamed")
        reason = accuracy_loss(published, totals, options.max_accuracy_loss)
    classifier, metrics = published, stage_metrics.Metrics(reason=reason)
    if reason is not None:
        try:
            run.log(f"fitting a classifier: {reason}")
            classifier = _fit(run, photos, counts["labelled"], target, pca)
        except NoClassifierError as error:
            run.log(f"no new classifier: {error}")
            metrics["failure"] = str(error)
    if classifier is None or classifier.pca_id not in (pca.pca_id, previous):  # others are no longer kept
        registry.delete_others(spark, database, "")
        return metrics, None
    is_new = classifier is not published
    if classifier.pca_id == pca.pca_id and (is_new or (named is None and counts["unnamed"])):
        named, totals = _name(run, photos, counts, classifier, "present" if is_new else "unnamed")
    only_adds = not (
        published and classifier.classifier_id == published.classifier_id and (is_new or counts["outdated"])
    )
    _commit(run, photos, counts, named, classifier.classifier_id, only_adds)
    metrics |= {"classifier_id": classifier.classifier_id, "is_new": is_new, "photos": classifier.n}
    metrics |= json.loads(classifier.evaluation) | totals
    metrics["examples"] = _examples(run, photos, classifier.classifier_id)
    return metrics, classifier if is_new else None


class Target(NamedTuple):
    """What a classifier is fitted for; its fields are columns of `classifiers`."""

    pca_id: str
    settings: str
    label_set: str


def refit_reason(published: Classifier | None, target: Target, counts: Counts, limit: float) -> str | None:
    """Return why a new classifier must be fitted; None when the published one still fits."""
    if published is None:
        return "none is published yet"
    if published.pca_id != target.pca_id:
        return "the PCA model is another"
    if published.settings != target.settings:
        return f"other settings are requested: {target.settings} after {published.settings}"
    if published.label_set != target.label_set:
        return "a label came or went"
    changed = (counts["labelled"] + published.n - 2 * counts["kept"]) / max(1, published.n)
    return f"{changed:.1%} of the labelled photos changed, limit {limit:.1%}" if changed > limit else None


def accuracy_loss(published: Classifier, counts: Counts, limit: float) -> str | None:
    """Return why new labelled photos, of which a classifier has seen none, call for a new one; None if they do not."""
    labelled = counts["named"] - counts["unlabelled"]
    if labelled < LEAST_JUDGED or counts["right"] / labelled >= published.top1 - limit:
        return None
    return (
        f"{counts['right'] / labelled:.1%} of {labelled} new photos are right, {published.top1:.1%} of those held out"
    )


def _align(
    run: job_run.Run, rows: align.AlignedRows, images: int, published: Classifier | None
) -> tuple[align.AlignedRows, align.Tally]:
    """Align the photos and their names; the `runs` of the tally are the labels."""
    table, columns = rows.rows, ["image_id", *_PHOTO, "present"]
    is_table = isinstance(table, pa.Table)
    names = {"classifier_id": "classifier_id", "named_content": "content_sha256"}
    names |= {"named_features": "features_run_id", "named_run": "run_id"}
    sides = (
        table.select(columns) if is_table else SparkRows(table.select(*columns), images),
        align.key_columns(run.spark, f"{run.arguments.database}.predictions", **names),
    )
    ids = (published.classifier_id, published.run_id) if published else ("", "")
    return align.align(run.spark, sides, partial(_classify, classifier_id=ids[0], fitted_by=ids[1]), _SCHEMA)


def _classify(rows: pa.Table, classifier_id: str, fitted_by: str) -> tuple[pa.Table, align.Tally]:
    """Find the photos that a classifier has not named, those that it was fitted on, and names of removed photos."""
    has_name, of_this = align.is_not_null(rows["classifier_id"]), align.equals(rows["classifier_id"], classifier_id)
    image = align.group_by_image(
        rows["image_id"],
        {name: rows[name] for name in (*_PHOTO, "present")}
        | {name: align.null_unless(of_this, rows[name]) for name in ("named_content", "named_features", "named_run")},
        {"names": has_name.astype(np.int64), "others": (has_name & ~of_this).astype(np.int64)},
    )
    present, has_label = align.equals(image["present"], True), align.is_not_null(image["label"])
    is_named = present & align.equals(image["named_content"], image["features_content"])
    is_named &= align.equals(image["named_features"], image["features_run"])
    flags = {"present": present, "labelled": present & has_label, "unlabelled": present & ~has_label}
    flags |= {"unnamed": present & ~is_named, "gone": (np.asarray(image["names"]) > 0) & ~present}
    counts = align.count_flags(
        **flags,
        kept=is_named & has_label & align.equals(image["named_run"], fitted_by),
        outdated=flags["unnamed"] & align.is_not_null(image["named_run"]),
        others=np.asarray(image["others"]) > 0,
    )
    labels = frozenset(pc.unique(image["label"].filter(pa.array(flags["labelled"]))).to_pylist())
    return align.with_flags(image, _SCHEMA, **flags), align.Tally(counts, labels)


def _fit(run: job_run.Run, photos: align.AlignedRows, n: int, target: Target, pca: Pca) -> Classifier:
    """Fit and judge a classifier, unless the same photos and settings have failed before.

    Raises:
        NoClassifierError: The labelled photos do not suffice, or it is no better than the most frequent label.
    """
    options = run.arguments
    if n < LEAST_PHOTOS:
        raise NoClassifierError(f"{n} labelled photos: at least {LEAST_PHOTOS} are needed")
    rows = photos.collect(["image_id", "label", "source_key", "features_content"], "labelled", limit=_MOST_PHOTOS)
    named = [LabelledPhoto(row[0], label, row[2], row[3]) for row in rows if (label := normalize(row[1]))]
    facts = sorted((photo.image_id, photo.label, photo.content) for photo in named)
    attempt = hashlib.sha256(repr((target, facts)).encode()).hexdigest()
    if reason := registry.failure(run.spark, options.database, attempt):
        raise NoClassifierError(reason)
    try:
        return _judge(run, split(named, options.held_out_share), n, target, pca)
    except NoClassifierError as error:
        registry.record_failure(run.spark, options.database, attempt, str(error))
        raise


def _judge(run: job_run.Run, sides: Split, n: int, target: Target, pca: Pca) -> Classifier:
    options = run.arguments
    _require_enough(labels := len({photo.label for photo in sides.learned}), sides.folds)  # before features are read
    most = min(_MOST_JUDGED, _MOST_SCORES // labels)
    sides = replace(sides, held_out=sides.held_out[:most], folds=sides.folds[:most])
    sums, vectors, is_near = _sum(run, sides, pca)
    model, folds = discriminant.fit(sums, pca, options.shrinkage), sides.folds[~is_near]
    _require_enough(labels, folds)
    truth = np.searchsorted(model.labels, [photo.label for photo in sides.held_out])[~is_near]
    scores = model.score(vectors[~is_near])
    result = evaluation.evaluate(scores, truth, folds, model.labels, options.unknown_error)
    result |= {"learned": len(sides.learned), "near_equal": int(is_near.sum()), "contradictory": sides.contradictory}
    top1, guess = result["top1"], np.bincount(truth).max() / len(truth)
    text = f"{top1['share']:.1%} of {len(truth)} photos held out are right, {guess:.1%} by guessing"
    if top1["low"] <= guess:
        raise NoClassifierError(text)
    run.log(text)
    identity = [*target, *(photo.image_id + photo.content for photo in sides.held_out)]
    return Classifier(
        classifier_id=hashlib.sha256("\n".join(identity).encode() + sums.to_bytes()).hexdigest(),
        **target._asdict(),
        n=n,
        **vars(model),
        **evaluation.calibrate(scores, truth, options.unknown_error)._asdict(),
        top1=top1["share"],
        evaluation=json.dumps(result, allow_nan=False),
        run_id=options.run_id,
    )


def _require_enough(labels: int, folds: npt.NDArray[np.int64]) -> None:
    if labels < 2:
        raise NoClassifierError(f"{labels} label(s) to learn from: a classifier needs at least 2")
    if len(folds) < LEAST_JUDGED or len(np.unique(folds)) < 2:
        raise NoClassifierError(f"{len(folds)} photos are held out: {LEAST_JUDGED} of two series are needed")


def _sum(run: job_run.Run, sides: Split, pca: Pca) -> tuple[LabelSums, npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Sum the photos to learn from; return the held-out vectors, and which of them are nearly equal to one of these."""
    database, model = run.arguments.database, {"model_id": [run.arguments.model_id]}
    ids = [photo.image_id for photo in sides.held_out]
    where = {"pca_id": [pca.pca_id], "image_id": ids}
    rows = Selection(run.spark, f"{database}.pca", ["image_id", "pca"], where).read().sort_by("image_id")
    held_out = to_matrix(rows["pca"].combine_chunks(), pca.k)  # in the order of the photos
    label_of = {photo.image_id: photo.label for photo in sides.learned}
    features = Selection(run.spark, f"{database}.features", ["image_id", "features"], model | {"image_id": [*label_of]})
    slices = features.slices()
    sums, labels, vectors = LabelSums(len(pca.mean), NETWORKS[run.arguments.network].limit), [], []
    for batch in features.frame().toArrow().to_batches() if slices is None else features.batches(slices):
        matrix = to_matrix(batch.column("features"), len(pca.mean))
        labels += [label_of[image_id] for image_id in batch.column("image_id").to_pylist()]
        vectors.append(pca.project(matrix))
        sums.add(labels[-len(matrix) :], matrix)
    learned, own = np.concatenate(vectors or [held_out]), [photo.label for photo in sides.held_out]
    return sums, held_out, near_equal(held_out, own, learned, labels)


def name_mapper(classifier: Classifier) -> Mapper:
    """Make the mapper from rows of `pca` to `schemas.NAMED`."""
    labels = np.array(classifier.labels, dtype=object)

    def map_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            answers = classifier.name(to_matrix(batch.column("pca"), len(classifier.whitening)))
            first, second = labels[answers.ranked[:, 0]], labels[answers.ranked[:, 1]]
            own = [normalize(label) for label in batch.column("label").to_pylist()]
            columns = {
                "label": pa.array(first, pa.string(), mask=~answers.is_known),
                "confidence": pa.array(answers.confidence),
                "second_label": pa.array(second, pa.string()),
                "is_known": pa.array(answers.is_known),
                "is_right": pa.array([label and label == name for label, name in zip(own, first, strict=True)]),
            }
            columns |= {name: batch.column(name) for name in ("image_id", "content_sha256", "features_run_id")}
            arrays = [columns[field.name].cast(field.type) for field in schemas.NAMED]
            yield pa.record_batch(arrays, schema=schemas.NAMED)

    return map_batches


def _name(
    run: job_run.Run, photos: align.AlignedRows, counts: Counts, classifier: Classifier, flag: str
) -> tuple[Named, dict[str, int]]:
    """Name the photos that have a flag (`present` or `unnamed`); return them and their counts (`_count`)."""
    where, name = {"pca_id": [classifier.pca_id]}, name_mapper(classifier)
    vectors = Selection(run.spark, f"{run.arguments.database}.pca", _VECTOR, where)
    if counts[flag] <= _FEW:
        ids = [row.image_id for row in photos.collect(["image_id"], flag)]
        few = replace(vectors, where=where | {"image_id": ids}).read()
        table = pa.Table.from_batches(name(few.to_batches()), schemas.NAMED)
        return table, _count(table)
    lacking = photos.to_join(["image_id"], flag)
    named = vectors.map(name, schemas.NAMED, run.cores).frame().join(lacking, "image_id", "left_semi")
    named = named.persist(StorageLevel.DISK_ONLY)
    return named, _count(named)


def _count(named: Named) -> dict[str, int]:
    """Count named photos: in all, right by their own label, without one, and of these those whose name is known."""
    by = ["is_known", "is_right"]
    if isinstance(named, pa.Table):
        rows = named.group_by(by).aggregate([([], "count_all")]).rename_columns([*by, "count"]).to_pylist()
    else:
        rows = named.groupBy(*by).count().toArrow().to_pylist()
    unlabelled = [row for row in rows if row["is_right"] is None]
    return {
        "named": sum(row["count"] for row in rows),
        "right": sum(row["count"] for row in rows if row["is_right"]),
        "unlabelled": sum(row["count"] for row in unlabelled),
        "unlabelled_known": sum(row["count"] for row in unlabelled if row["is_known"]),
    }


def _commit(
    run: job_run.Run,
    photos: align.AlignedRows,
    counts: Counts,
    named: Named | None,
    classifier_id: str,
    only_adds: bool,
) -> None:
    """Commit names and delete those of removed photos."""
    spark, database = run.spark, run.arguments.database
    upserts = deletes = None
    if named is not None:
        is_table = isinstance(named, pa.Table)
        frame = align.from_arrow(spark, named, schemas.to_spark(schemas.NAMED)).coalesce(1) if is_table else named
        constants = {"classifier_id": classifier_id, "run_id": run.arguments.run_id}
        upserts = frame.withColumns({name: F.lit(value) for name, value in constants.items()})
    if counts["gone"]:
        keys = spark.table(f"{database}.predictions").select("image_id", "classifier_id")
        deletes = keys.join(photos.to_join(["image_id"], "gone"), "image_id", "left_semi")
    tables.merge(spark, database, "predictions", upserts, deletes, only_adds=only_adds)


def _examples(run: job_run.Run, photos: align.AlignedRows, classifier_id: str) -> list[tuple[str, str | None, float]]:
    """Return the names of some unlabelled photos, for the report: image id, name and confidence."""
    ids = [row["image_id"] for row in photos.collect(["image_id"], "unlabelled", limit=_EXAMPLES)]
    if not ids:
        return []
    columns, where = ["image_id", "label", "confidence"], {"image_id": ids, "classifier_id": [classifier_id]}
    names = Selection(run.spark, f"{run.arguments.database}.predictions", columns, where)
    named, most = names.read().sort_by("image_id").to_pylist(), evaluation.MOST_CHARACTERS
    return [(name["image_id"], (name["label"] or "")[:most] or None, name["confidence"]) for name in named]
