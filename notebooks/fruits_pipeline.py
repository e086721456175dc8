# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Fruits ! — la chaîne, cellule par cellule · *the chain, cell by cell*
#
# Ce carnet refait à la main ce que le DAG `fruits_pipeline` fait chaque nuit, **avec la même bibliothèque `fruits` et les
# mêmes travaux Spark** : rien n'y est programmé une seconde fois. On y regarde les photos, on les charge et les nettoie, on
# diffuse (broadcast) les poids de MobileNetV2 et on calcule les caractéristiques, on réduit la dimension par ACP, puis on
# interroge les tables et on cherche les fruits les plus proches d'une photo à soi.
#
# *This notebook does by hand what the DAG `fruits_pipeline` does every night,* ***with the same library `fruits` and the same
# Spark jobs***: *nothing is implemented a second time. It looks at the photos, loads and cleans them, broadcasts MobileNetV2's
# weights and computes features, reduces their dimension by PCA, then queries the tables and looks for the fruits nearest to
# a photo of one's own.*
#
# | | |
# |---|---|
# | sur ce poste · *on this machine* | `make notebook IMAGES=… WEIGHTS=…` |
# | sur un cluster EMR · *on an EMR cluster* | `make notebook-cluster`, puis/*then* `WHERE = "emr"` ci-dessous/*below* |
# | comme étape · *as a step* | `spark-submit --py-files … fruits_pipeline.py WHERE=emr PHOTOS=s3://… MODEL=s3://…` |
#
# Les photos montrées ici · *the photos shown here*: Fruits-360, Mihai Oltean,
# [CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/).

# %% [markdown]
# ## 1. Où l'on travaille · *Where we work*
#
# Un seul paramètre décide : `WHERE`. Sur EMR, tout est en `s3://` et le catalogue Iceberg est celui du cluster ; ici, ce sont
# des dossiers. Chaque valeur peut venir de la ligne de commande (`PHOTOS=…`) ou de l'environnement (`NOTEBOOK_PHOTOS`).
#
# *One parameter decides: `WHERE`. On EMR everything is in `s3://` and the Iceberg catalog is the cluster's; here they are
# folders. Each value may come from the command line (`PHOTOS=…`) or from the environment (`NOTEBOOK_PHOTOS`).*

# %% tags=["parameters"]
import os
import sys


def setting(name: str, otherwise: str) -> str:
    """A value from the command line, else from the environment, else as written here."""
    arguments = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
    return arguments.get(name) or os.environ.get(f"NOTEBOOK_{name}") or otherwise


WHERE = setting("WHERE", "local")  # or "emr"
PHOTOS = setting("PHOTOS", {"local": "../build/notebook/photos", "emr": "s3://LAKE-BUCKET/staging/"}[WHERE])
MODEL = setting("MODEL", {"local": "../.cache/models/MODEL-ID", "emr": "s3://LAKE-BUCKET/models/MODEL-ID"}[WHERE])
LAKE = setting("LAKE", {"local": "../build/notebook/lake", "emr": "s3://LAKE-BUCKET"}[WHERE])
CODE = setting("CODE", "")  # on EMR: s3://LAKE-BUCKET/code/DIGEST, unless spark-submit was given --py-files
MY_PHOTO = setting("MY_PHOTO", "")  # a photo of one's own; none: one of PHOTOS, turned and darkened
VARIANCE = float(setting("VARIANCE", "0.95"))
DATABASE = setting("DATABASE", "lake.fruits_notebook")  # never the nightly one

# %%
import importlib
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image
from pyspark.sql import SparkSession


def optional(name: str):
    """A library that is not part of the chain, and that a cluster's nodes may lack."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        print(f"no {name} here, so its cells show nothing; on a cluster: requirements/node.in, then make environment")
        return None


plt, duckdb, pyiceberg = map(optional, ("matplotlib.pyplot", "duckdb", "pyiceberg.catalog"))
builder = SparkSession.builder.appName("fruits notebook")
if WHERE == "local":
    # What the cluster's own configuration says on EMR (include/cluster.yaml).
    os.environ["PYTHONPATH"] = str(Path("../spark_jobs").resolve())  # for the workers
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["PYSPARK_PYTHON"] = sys.executable
    sys.path.insert(0, os.environ["PYTHONPATH"])
    lake_folder = Path(LAKE).resolve()
    settings = {
        "spark.master": "local[*]",
        "spark.driver.extraClassPath": ":".join(map(str, Path("../.cache/jars").resolve().glob("iceberg-spark-*.jar"))),
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.lake.type": "hadoop",
        "spark.sql.catalog.lake.cache-enabled": "false",
        "spark.sql.catalog.lake.warehouse": str(lake_folder / "tables"),
        "spark.driver.memory": "2g",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    for key, value in settings.items():
        builder = builder.config(key, value)
    PHOTOS, MODEL, LAKE = (str(Path(item).resolve()) for item in (PHOTOS, MODEL, LAKE))
spark = builder.getOrCreate()
if CODE:
    for name in ("fruits.zip", "load_images.py", "featurize.py", "reduce_pca.py", "publish.py"):
        spark.sparkContext.addPyFile(f"{CODE}/{name}")

import featurize
import load_images
import publish
import reduce_pca
from fruits.base import batches, keys, objects
from fruits.model import embedding, artifacts, preprocessing
from fruits.images import decoding
from fruits.job import job_run
from fruits.lake import input_listing
from fruits.pca import principal_components
from fruits.publish import quality
from fruits.base import schemas
from fruits.job import stage_metrics
from fruits.pca import gramian
from fruits.lake import tables

spark = job_run.open_session("fruits notebook")
RUN_ID = datetime.now(UTC).strftime("notebook__%Y-%m-%dT%H-%M-%S")
RUN_FOLDER = objects.join(LAKE, f"runs/{RUN_ID}")
MODEL_ID = MODEL.rstrip("/").rsplit("/", 1)[-1]
print(f"Spark {spark.version}, {spark.sparkContext.defaultParallelism} cores, {WHERE}, model {MODEL_ID[:12]}…")

# %% [markdown]
# ## 2. Regarder les photos · *Look at the photos*
#
# On liste une fois, et l'on retient clé, empreinte (ETag) et taille : c'est ce que lira le chargement. La nuit, la tâche `plan`
# s'en charge. L'étiquette est le dernier dossier.
#
# *List once, and keep key, ETag and size: this is what loading will read. At night the task `plan` does it. The label is the
# last folder.*

# %%
import pyarrow as pa
import pyarrow.parquet as pq

LISTING = objects.join(RUN_FOLDER, "listing.parquet")
place = objects.parse_uri(PHOTOS)
if place.bucket is None:
    count, size = input_listing.write_folder_listing(Path(PHOTOS), LISTING)
else:
    pages = objects.open_boto3_client(objects.find_s3()).get_paginator("list_objects_v2")
    entries = [
        {"key": item["Key"], "etag": item["ETag"].strip('"'), "size_bytes": item["Size"]}
        for page in pages.paginate(Bucket=place.bucket, Prefix=place.key)
        for item in page.get("Contents", [])
        if not keys.is_leftover(item["Key"].removeprefix(place.key))
    ]
    columns = pa.schema({"key": pa.string(), "etag": pa.string(), "size_bytes": pa.int64()})
    with objects.writer(LISTING, None) as out:
        pq.write_table(pa.Table.from_pylist(sorted(entries, key=lambda item: item["key"]), columns), out)
    count, size = len(entries), sum(item["size_bytes"] for item in entries)

prefix = "" if place.bucket is None else place.key
root = PHOTOS if place.bucket is None else f"s3://{place.bucket}"
listed = pq.read_table(io.BytesIO(objects.read_bytes(LISTING))).to_pylist()
labels = sorted({keys.label(item["key"], prefix) or "—" for item in listed})
print(f"{count} objects, {size / 1e6:.1f} MB, {len(labels)} labels")
print(", ".join(labels))


# %%
def photo_of(key: str) -> bytes:
    """One object's bytes."""
    return objects.read_bytes(objects.join(root, key))


def show(pictures: list[tuple[str, Image.Image]], columns: int = 10) -> None:
    """Pictures in rows, each with its title."""
    if not plt:
        return
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.25 * columns, 1.55 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, picture) in zip(axes.flat, pictures, strict=False):
        axis.imshow(picture)
        axis.set_title(title, fontsize=7)
    figure.tight_layout()
    plt.show()


def picture_of(key: str) -> Image.Image | None:
    """One object as a picture; none where it is no photo, which the loading below will say, too."""
    try:
        return Image.open(io.BytesIO(decoding.clean(photo_of(key)).pixels))
    except decoding.ImageRejected:
        return None


first_of = {keys.label(item["key"], prefix): item["key"] for item in reversed(listed)}
photo_by_label = {label: key for label, key in sorted(first_of.items(), key=str) if label and picture_of(key)}
show([(label, picture_of(key)) for label, key in photo_by_label.items()][:20])

# %% [markdown]
# ## 3. Charger et nettoyer · *Load and clean*
#
# D'abord **une** photo, à découvert. Celle-ci reçoit ce qu'un téléphone y mettrait : une position GPS, un appareil, une
# orientation. `images.clean` décode, redresse, et ne garde que les pixels, sans perte.
#
# *First* ***one*** *photo, in the open. It gets what a phone would put into it: a GPS position, a camera, an orientation.
# `images.clean` decodes it, turns it upright, and keeps nothing but pixels, without loss.*

# %%
from PIL import ExifTags

some_key = next(iter(photo_by_label.values()))
picture = Image.open(io.BytesIO(photo_of(some_key)))
exif = picture.getexif()
exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "Phone", 6
exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (44.93, 0.0, 0.0)
from_a_phone = io.BytesIO()
picture.transpose(Image.Transpose.ROTATE_90).save(from_a_phone, "JPEG", exif=exif, quality=95)

cleaned = decoding.clean(from_a_phone.getvalue())
kept = Image.open(io.BytesIO(cleaned.pixels))
show([("d'un téléphone / from a phone", Image.open(from_a_phone)), ("gardé / kept", kept)], columns=2)
print(f"had metadata: {cleaned.had_metadata}; now: {dict(kept.getexif())}; {kept.format}, {kept.size}, {kept.mode}")
assert cleaned.had_metadata
assert not kept.getexif()

# %% [markdown]
# Puis **toutes**, par le même travail que la nuit : `load_images`. Ce qui n'est pas une photo devient une ligne de `rejects`
# avec son motif ; jamais une tâche en échec.
#
# *Then* ***all of them***, *by the same job as at night: `load_images`. What is no photo becomes a row in `rejects` with its
# reason; never a failed task.*

# %%
METRICS: dict[str, stage_metrics.Metrics] = {}
for table in schemas.TABLES:  # this notebook's own database: each run of it begins with nothing
    spark.sql(f"DROP TABLE IF EXISTS {DATABASE}.{table} PURGE")


def run_stage(module, *arguments: str) -> stage_metrics.Metrics:
    """Runs a job of the pipeline in this session, and gives what it measured."""
    common = ["--database", DATABASE, "--run-id", RUN_ID, "--run-folder", RUN_FOLDER]
    parsed = module.parser().parse_args([*common, *arguments])
    getattr(module, module.STAGE)(job_run.Run(module.STAGE, parsed, spark))
    METRICS[module.STAGE] = stage_metrics.read(RUN_FOLDER, module.STAGE)
    return METRICS[module.STAGE]


# What was erased must not come back by a notebook either.
erased = objects.join(LAKE, "suppression")
run_stage(load_images, "--input", PHOTOS, "--complete", "--suppression", erased)["images"]

# %%
spark.sql(f"""
    SELECT label, count(*) AS photos, min(width_px) AS min_width_px, max(width_px) AS max_width_px,
           round(sum(length(pixels)) / 1e6, 2) AS pixels_mb
    FROM {DATABASE}.images GROUP BY label ORDER BY label
""").show(30, truncate=False)
spark.sql(f"SELECT source_key, error_code, detail FROM {DATABASE}.rejects").show(10, truncate=60)

# %% [markdown]
# ## 4. Diffuser les poids, calculer les caractéristiques · *Broadcast the weights, compute features*
#
# Le driver lit le modèle **une fois**, vérifie son empreinte (c'est son nom) et le diffuse. Chaque worker Python garde son
# interpréteur d'une partition à l'autre. `mapInArrow` donne des tampons plats : ni pandas, ni listes.
#
# *The driver reads the model* ***once***, *checks its digest (which is its name) and broadcasts it. Each Python worker keeps its
# interpreter from partition to partition. `mapInArrow` hands over flat buffers: no pandas, no lists.*

# %%
artifact = artifacts.read(MODEL, MODEL_ID, None)
weights = spark.sparkContext.broadcast(artifact.data)
print(f"{artifact.engine}, weights: {artifact.weights}, {len(artifact.data) / 1e6:.1f} MB broadcast")

few = spark.table(f"{DATABASE}.images").select("image_id", "content_sha256", "pixels").orderBy("image_id").limit(8)
by_hand = few.mapInArrow(
    embedding.embed_mapper(weights, artifact.model_id, artifact.engine, 1), schemas.to_spark(schemas.EMBEDDING)
)
by_hand.selectExpr(
    "substr(image_id, 1, 12) AS image_id", "size(features) AS dims", "slice(features, 1, 4) AS begins"
).show(truncate=False)

# %% [markdown]
# Puis toutes, par le travail `featurize`. Les huit d'avant doivent en sortir identiques, au bit près.
#
# *Then all of them, by the job `featurize`. The eight from before must come out of it the same, to the bit.*

# %%
print(run_stage(featurize, "--model", MODEL, "--model-id", MODEL_ID)["features"])
stored = {row.image_id: row.features for row in spark.table(f"{DATABASE}.features").collect()}
same = all(stored[row.image_id] == row.features for row in by_hand.collect())
print(f"the same as by hand: {same}")
assert same

# %% [markdown]
# ## 5. Réduire la dimension · *Reduce the dimension*
#
# Une ACP n'a besoin que de sommes : effectif, somme, produits. Les exécuteurs les cumulent, exactement (virgule fixe, donc des
# entiers) ; le driver résout une petite matrice. Deux découpages différents donnent la même chose, au dernier bit.
#
# *A PCA needs nothing but sums: count, sum, products. Executors add them up exactly (fixed point, hence whole numbers); the
# driver solves a small matrix. Two different partitionings give the same, to the last bit.*

# %%
features = spark.table(f"{DATABASE}.features").where(f"model_id = '{MODEL_ID}'").select("features")


def summed(partitions: int) -> gramian.Gramian:
    """The sums of all features, over so many partitions."""
    parts = (
        features.repartition(partitions).mapInArrow(gramian.sum_mapper(), schemas.to_spark(schemas.GRAMIAN)).collect()
    )
    return gramian.merge_serialized(bytes(part.sums) for part in parts)


total = summed(2)
assert total.to_bytes() == summed(3).to_bytes()
by_hand_pca = principal_components.fit(total, MODEL_ID, variance=VARIANCE)
print(f"{total.count} images; {by_hand_pca.k} of {total.dims} components keep {VARIANCE:.0%} of the variance")

# %%
curve = by_hand_pca.variance_curve
if plt:
    figure, axis = plt.subplots(figsize=(8, 3.6))
    axis.plot(range(1, len(curve) + 1), curve, color="#2e7d4f", linewidth=2)
    for share in (0.5, 0.8, 0.9, VARIANCE):
        k = int(np.searchsorted(curve, share)) + 1
        axis.plot([k, k], [0, curve[k - 1]], color="#c8374a", linewidth=1, linestyle=":")
        axis.annotate(
            f"{share:.0%}: k = {k}", (k, curve[k - 1]), textcoords="offset points", xytext=(8, -10), fontsize=9
        )
    axis.set(
        xlabel="composantes · components",
        ylabel="variance",
        ylim=(0, 1.02),
        xlim=(0, min(len(curve), 3 * by_hand_pca.k)),
    )
    axis.spines[["top", "right"]].set_visible(False)
    plt.show()

# %% [markdown]
# Le travail `reduce_pca` fait de même et enregistre le modèle ; `publish` contrôle la qualité, projette et publie d'un seul
# commit.
#
# *The job `reduce_pca` does the same and saves the model; `publish` checks the quality, projects, and publishes in one commit.*

# %%
print(run_stage(reduce_pca, "--model-id", MODEL_ID, "--variance", str(VARIANCE))["pca"])
for name, check in run_stage(publish, "--model-id", MODEL_ID, "--weights", artifact.weights)["quality"][
    "checks"
].items():
    print(f"{'ok' if check['ok'] else 'NO'}  {name}: {json.dumps(check)}")
fitted = principal_components.load(objects.join(RUN_FOLDER, "pca_model.npz"))
assert fitted.k == by_hand_pca.k
assert np.array_equal(fitted.components, by_hand_pca.components)

# %% [markdown]
# ## 6. L'espace réduit · *The reduced space*
#
# Les deux premières composantes, avec les photos elles-mêmes : celles qui se ressemblent se touchent.
#
# *The first two components, with the photos themselves: those that look alike lie together.*

# %%
vectors = tables.current_pca(spark, DATABASE).select("image_id", "label", "pca").orderBy("image_id").toArrow()
points = batches.to_matrix(vectors.column("pca").combine_chunks(), fitted.k)
sample = pq.read_table(io.BytesIO(objects.read_bytes(objects.join(RUN_FOLDER, "sample.parquet")))).to_pylist()
if plt:
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    figure, axis = plt.subplots(figsize=(10, 7))
    axis.scatter(points[:, 0], points[:, 1], s=4, color="#cfd8d2")
    for row in sample[:: max(1, len(sample) // 120)]:
        thumbnail = OffsetImage(np.asarray(Image.open(io.BytesIO(row["thumbnail"]))), zoom=0.45)
        axis.add_artist(AnnotationBbox(thumbnail, (row["pc1"], row["pc2"]), frameon=False))
    axis.set(xlabel="composante 1 · component 1", ylabel="composante 2 · component 2")
    axis.spines[["top", "right"]].set_visible(False)
    plt.show()

# %% [markdown]
# ## 7. Interroger les tables · *Query the tables*
#
# Les tables sont des tables Iceberg : Spark n'est qu'un lecteur parmi d'autres. **pyiceberg** lit la table sans JVM, **DuckDB**
# l'interroge en SQL.
#
# *The tables are Iceberg tables: Spark is only one reader among others.* ***pyiceberg*** *reads them without a JVM,* ***DuckDB***
# *queries them in SQL.*


# %%
def iceberg(table: str):
    """A table as pyiceberg sees it."""
    if WHERE == "local":
        from pyiceberg.table import StaticTable

        folder = Path(LAKE, "tables", DATABASE.split(".")[1], table, "metadata")
        version = (folder / "version-hint.text").read_text().strip()
        return StaticTable.from_metadata(str(folder / f"v{version}.metadata.json"))
    where = objects.find_s3()
    catalog = pyiceberg.load_catalog(
        "lake", type="glue", **{"glue.region": where.region, "s3.region": where.region, "s3.endpoint": where.endpoint}
    )
    return catalog.load_table((DATABASE.split(".")[1], table))


if pyiceberg:
    pca_rows = iceberg("pca").scan(selected_fields=("image_id", "label", "pca")).to_arrow()
    print(f"{pca_rows.num_rows} rows, snapshots: {len(iceberg('pca').history())}")
    assert pca_rows.num_rows == len(points)
if pyiceberg and duckdb:
    duckdb.sql("""
        SELECT label, count(*) AS photos, round(avg(pca[1]), 2) AS mean_pc1, round(stddev(pca[1]), 2) AS sd_pc1
        FROM pca_rows GROUP BY label ORDER BY mean_pc1
    """).show(max_rows=30)

# %% [markdown]
# ## 8. Les fruits les plus proches d'une photo à soi · *The nearest fruits to a photo of one's own*
#
# Même nettoyage, même modèle, même projection ; puis une distance. Sans photo à soi, on en prend une, tournée et assombrie,
# comme prise au téléphone.
#
# *The same cleaning, the same model, the same projection; then a distance. Without a photo of one's own we take one, turned and
# darkened, as if by a phone.*

# %%
if MY_PHOTO:
    mine, truth = objects.read_bytes(MY_PHOTO), "?"
else:
    truth, key = list(photo_by_label.items())[len(photo_by_label) // 2]
    original = Image.open(io.BytesIO(photo_of(key))).convert("RGB")
    turned = original.rotate(20, fillcolor=(255, 255, 255)).point(lambda value: int(value * 0.85))
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", quality=80)
    mine = buffer.getvalue()


def vector_of(photo: bytes) -> np.ndarray:
    """One photo in the published space: (k,) float32."""
    embedder = embedding.LiteRtEmbedder(artifact.data, 1)
    preprocessing.fill(decoding.clean(photo).pixels, embedder.buffer[0])
    return fitted.project(embedder.embed())[0]


distances = np.linalg.norm(points - vector_of(mine), axis=1)
nearest = np.argsort(distances)[:8]
ids = vectors.column("image_id").to_pylist()
id_list = ", ".join(f"'{ids[i]}'" for i in nearest)
pixels = {
    row.image_id: row for row in spark.sql(f"SELECT * FROM {DATABASE}.images WHERE image_id IN ({id_list})").collect()
}
show(
    [(f"à moi / mine ({truth})", Image.open(io.BytesIO(mine)))]
    + [(f"{pixels[ids[i]].label}\n{distances[i]:.1f}", Image.open(io.BytesIO(pixels[ids[i]].pixels))) for i in nearest],
    columns=9,
)

# %% [markdown]
# ## 9. Comparer aux étiquettes · *Compare with the labels*
#
# Le plus proche voisin a-t-il la même étiquette ? Les vues d'une même rotation ne comptent pas : ce sont presque des copies, que
# même des poids aléatoires retrouveraient.
#
# *Does the nearest neighbour have the same label? Photos of one rotation do not count: they are nearly copies, which even random
# weights would find.*

# %%
names = [str(label) for label in vectors.column("label").to_pylist()]
source = {
    row.image_id: row.source_key for row in spark.table(f"{DATABASE}.images").select("image_id", "source_key").collect()
}
rotations = [keys.sequence(source[image_id]) for image_id in ids]
full = batches.to_matrix(
    spark.table(f"{DATABASE}.features").orderBy("image_id").toArrow().column("features").combine_chunks(),
    embedding.DIMS,
)
for what, rows in (
    (f"{embedding.DIMS} features", full),
    (f"{fitted.k} components", points),
    ("2 components", points[:, :2]),
):
    agreement, judged = quality.neighbour_agreement(np.ascontiguousarray(rows), names, rotations)
    print(f"{what:>15}: {'no label to compare' if agreement is None else f'{agreement:.1%} of {judged} photos'}")

# %% [markdown]
# ## 10. Les volumes, avant et après chaque étape · *Volumes before and after each step*

# %%
volumes = {
    "photos (JPEG)": METRICS["load_images"]["bytes"]["input"],
    "images.pixels": METRICS["load_images"]["bytes"]["pixels"],
    "features": METRICS["featurize"]["bytes"]["features"],
    f"pca (k = {fitted.k})": METRICS["publish"]["bytes"]["pca"],
}
if plt:
    figure, axis = plt.subplots(figsize=(8, 2.4))
    bars = axis.barh(
        list(volumes), [size / 1e6 for size in volumes.values()], color=["#66736c", "#e9a825", "#3a78a8", "#2e7d4f"]
    )
    axis.bar_label(bars, labels=[f"{size / 1e6:.2f} MB" for size in volumes.values()], padding=4, fontsize=9)
    axis.invert_yaxis()
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    axis.set_xticks([])
    plt.show()
for stage, metrics in METRICS.items():
    print(f"{stage:>12}: {metrics['seconds']:.1f} s")

# %% [markdown]
# ## 11. Fin · *The end*
#
# Les tables restent dans la base `fruits_notebook`. Sur EMR, le cluster du carnet a sa propre échéance et s'éteint seul ;
# l'éteindre tout de suite coûte moins.
#
# *The tables stay in the database `fruits_notebook`. On EMR the notebook's cluster has a deadline of its own and ends by itself;
# ending it now costs less.*

# %%
counts = {table: spark.table(f"{DATABASE}.{table}").count() for table in ("images", "rejects", "features", "pca")}
assert counts["images"] + counts["rejects"] == count
assert counts["features"] == counts["images"] == len(points)
print(counts)
spark.stop()
