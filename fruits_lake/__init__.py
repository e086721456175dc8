"""Ask the lake from any Python: vectors, photos, neighbours, and why a vector is so; results are pyarrow Tables.

Examples:
    >>> lake = Lake.open("build/local")
    >>> vectors = lake.vectors()
    >>> matrix(vectors).shape
    (6, 3)
    >>> lake.neighbours(vectors["image_id"][0].as_py(), k=2).column_names
    ['image_id', 'source_key', 'label', 'distance']
    >>> lake.why(vectors["image_id"][0].as_py())["is_current"].to_pylist()
    [True]
"""

from __future__ import annotations

import importlib
import io
import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fruits.base.batches import to_matrix
from pyarrow import fs
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, In, Reference
from pyiceberg.expressions.literals import literal

from fruits_lake.storage import MAX_JSON_BYTES, Storage, open_bucket, open_folder
from fruits_lake.storage import LakeError as LakeError

Matrix = npt.NDArray[np.float32]
_NAMES = ("run_id", "state", "seen", "loaded", "rejected", "weights", "pca_id", "k", "explained_variance")
_TYPES = ("string", "string", "int64", "int64", "int64", "string", "string", "int64", "double")
_KEPT_SCANS = 7  # as many as naming a photo takes
_RUN = pa.schema(zip(_NAMES, _TYPES, strict=True))


def matrix(vectors: pa.Table) -> Matrix:
    """Return the column `pca` for numpy or scikit-learn: (rows, k) float32."""
    column = vectors["pca"].combine_chunks()
    return to_matrix(column, len(column[0]) if len(column) else 0)


def _photo_library(module: str) -> Any:
    try:
        return importlib.import_module(f"fruits.{module}")
    except ModuleNotFoundError as error:
        raise LakeError(f"a photo needs {error.name}: pip install './fruits_lake[photos]'") from error


class Lake:
    """A lake, opened with `Lake.open`. Each call reads the tables as they are then; LakeError says what is missing."""

    def __init__(self, storage: Storage) -> None:
        self.uri, self._files, self._load = storage
        self._decoder: Any = None
        self._models: dict[str, Any] = {}
        self._scans: dict[tuple[object, ...], pa.Table] = {}
        self._embedded: dict[tuple[bytes, str], Matrix] = {}

    @classmethod
    def open(cls, uri: str | Path, database: str | None = None) -> Lake:
        """Open a folder, by default its only database, or ``s3://<lake bucket>``, by default Glue's ``fruits``."""
        if str(uri).startswith("s3://"):
            return cls(open_bucket(str(uri)[5:].rstrip("/"), database or "fruits"))
        return cls(open_folder(Path(uri), database))

    def runs(self) -> pa.Table:
        """List the runs, the earliest first: `state`, photos by what became of them, and the PCA model of each."""
        folders = self._files.get_file_info(fs.FileSelector("runs", allow_not_found=True))
        with ThreadPoolExecutor(16) as readers:
            records = list(readers.map(self._record, (folder.base_name for folder in folders)))
        return pa.Table.from_pylist(sorted(records, key=lambda record: record["run_id"].rpartition("__")[2]), _RUN)

    def vectors(self, run: str | None = None) -> pa.Table:
        """Return the vectors of the PCA model published last, or those that a run published.

        All are of one model, which the schema's metadata describes in JSON under ``fruits``. `pca` is list<float32>, of
        k values; `run_id` is the run that computed it; `source_key` is NULL for a photo that was removed since;
        `predicted` and `confidence` are of the current classifier, `predicted` NULL where it does not know.
        """
        if run:
            rows = pq.read_table(io.BytesIO(self._read(f"runs/{run}/pca.parquet")))
            model = json.loads(rows.schema.metadata[b"fruits"])
        else:
            model = self._publication()
            rows = self._scan("pca", "image_id", "label", "run_id", "pca", pca_id=model["pca_id"])
        images = self._scan("images", "image_id", "source_key")
        places = pc.index_in(rows["image_id"], images["image_id"])
        rows = rows.append_column("source_key", images["source_key"].take(places))
        rows = rows.append_column("pca_id", pa.repeat(model["pca_id"], len(rows)))
        current = self._newest("classifiers", "classifier_id") or {"classifier_id": ""}
        names = self._scan("predictions", "image_id", "label", "confidence", classifier_id=current["classifier_id"])
        places = pc.index_in(rows["image_id"], names["image_id"])
        rows = rows.append_column("predicted", names["label"].take(places))
        rows = rows.append_column("confidence", names["confidence"].take(places))
        rows = rows.select(["image_id", "source_key", "label", "predicted", "confidence", "run_id", "pca_id", "pca"])
        return rows.replace_schema_metadata({"fruits": json.dumps(model, default=str)})

    def photo(self, *image_ids: str) -> pa.Table:
        """Return photos as rows of ``images``, in this order; `pixels` is as of `clean`."""
        runs = self._scan("images", "image_id", "run_id", image_id=image_ids)  # name the files: not all pixels are read
        rows = self._scan("images", image_id=image_ids, run_id=tuple(runs["run_id"].unique().to_pylist()))
        places = pc.index_in(pa.array(image_ids), rows["image_id"])
        if places.null_count:
            raise LakeError(f"images has no row of one of {image_ids}: vectors() lists the published photos")
        return rows.take(places)

    def clean(self, photo: Path | bytes) -> bytes:
        """Return a photo as loading stores it, or raise `ImageRejected`: lossless WebP, upright, without metadata."""
        self._decoder = self._decoder or _photo_library("images.sandbox").Decoder()
        return bytes(self._decoder.clean(photo if isinstance(photo, bytes) else photo.read_bytes()).pixels)

    def neighbours(self, photo: str | Path | bytes, k: int = 5) -> pa.Table:
        """Find the k published photos whose vectors are nearest (float32, Euclidean), the nearest first.

        A text is an image_id, whose own row is left out. With the extra `photos`, a path or bytes are any photo; they
        raise `ImageRejected` where loading would reject them.
        """
        vectors, own = self.vectors(), -1
        points = matrix(vectors)
        if isinstance(photo, str):
            own = pc.index(vectors["image_id"], photo).as_py()
            if own < 0:
                raise LakeError(f"no published photo has the image_id {photo}; a file is given as Path({photo!r})")
            point = points[own]
        else:
            point = self._embed(photo, vectors["pca_id"][0].as_py())
        distances = np.linalg.norm(points - point, axis=1)
        nearest = [row for row in np.argsort(distances, kind="stable")[: k + 1] if row != own][:k]
        rows = vectors.take(nearest).select(["image_id", "source_key", "label"])
        return rows.append_column("distance", pa.array(distances[nearest], pa.float32()))

    def name(self, photo: Path | bytes) -> dict[str, Any]:
        """Name a photo by the current classifier: `label` (None: not known), `confidence`, `second_label`."""
        labels, answers = self.answer([photo])
        first, second = (labels[place] for place in answers.ranked[0][:2])
        label = first if answers.is_known[0] else None
        return {"label": label, "confidence": float(answers.confidence[0]), "second_label": second}

    def answer(self, photos: Sequence[Path | bytes]) -> tuple[list[str], Any]:
        """Return the labels of the current classifier, and its `Answers` for photos: `ranked` are places in them."""
        row = self._newest("classifiers", "*")
        if not row:
            raise LakeError(f"no classifier is published in {self.uri}: it needs labelled photos of two labels or more")
        vectors = np.concatenate([self._embed(photo, row["pca_id"]) for photo in photos])
        from fruits.classifier.discriminant import Classifier

        return row["labels"], Classifier.from_row(row).name(vectors)

    def recognise(self, photo: Path | bytes, k: int = 5) -> dict[str, Any]:
        """Return `label` and `confidence` as `name` does, both None without a classifier, and `neighbours`."""
        neighbours = self.neighbours(photo, k)
        try:
            return self.name(photo) | {"neighbours": neighbours}
        except LakeError:  # too few labelled photos: its neighbours still say something
            return {"label": None, "confidence": None, "second_label": None, "neighbours": neighbours}

    def compare(self, run_a: str, run_b: str) -> pa.Table:
        """Compare what two runs published, the largest distance first; NULL unless kept under one PCA model."""
        a, b = self.vectors(run_a), self.vectors(run_b)
        ids = pc.unique(pa.concat_tables([a, b])["image_id"])
        in_a, in_b = (pc.index_in(ids, table["image_id"]) for table in (a, b))
        change = pc.if_else(pc.is_null(in_a), "added", pc.if_else(pc.is_null(in_b), "removed", "kept"))
        same = np.flatnonzero(pc.fill_null(pc.equal(a["pca_id"].take(in_a), b["pca_id"].take(in_b)), False))
        distances = np.full(len(ids), np.nan, np.float32)
        distances[same] = np.linalg.norm(matrix(a.take(in_a.take(same))) - matrix(b.take(in_b.take(same))), axis=1)
        label = pc.coalesce(b["label"].take(in_b), a["label"].take(in_a))
        columns = {"image_id": ids, "label": label, "change": change, "distance": pa.array(distances, from_pandas=True)}
        return pa.table(columns).sort_by([("distance", "descending"), ("image_id", "ascending")])

    def why(self, image_id: str) -> pa.Table:
        """Say in one row why the current vector of a photo is what it is: object, runs, network, PCA model.

        `etag` and `content_sha256` are of the object as loaded last, which is the one of the vector if `is_current`.
        """
        model = self._publication()
        keys = {"image_id": image_id, "pca_id": model["pca_id"]}
        vector = self._row("pca", "content_sha256", "features_run_id", "run_id", **keys)
        columns = ("source_key", "label", "etag", "content_sha256", "loaded_at", "run_id")
        image = self._row("images", *columns, image_id=image_id)
        runs = {"loaded_by": image.pop("run_id"), "features_by": vector["features_run_id"]}
        runs |= {"projected_by": vector["run_id"], "published_by": model.pop("run_id")}
        weights = self._record(runs["published_by"])["weights"]
        facts = {"is_current": image["content_sha256"] == vector["content_sha256"], "weights": weights}
        return pa.Table.from_pylist([keys | image | runs | facts | model])

    def model_card(self, run: str | None = None, name: str = "model_card") -> str:
        """Return the model card of the last publication, or of that of a run, or its ``datasheet``: Markdown."""
        published = [row["run_id"] for row in self.runs().to_pylist() if row["state"] == "succeeded"]
        run = run or [self._publication()["run_id"], *published][-1]
        return self._read(f"runs/{run}/{name}.md").decode()

    def _scan(self, table: str, *columns: str, **keys: str | tuple[str, ...]) -> pa.Table:
        where: BooleanExpression = AlwaysTrue()
        for name, value in keys.items():
            values = {literal(part) for part in (value if isinstance(value, tuple) else [value])}
            where = And(where, In(term=Reference(name), values=values))
        try:
            now = self._load(table)
            key = (table, now.metadata.current_snapshot_id, columns, *keys.items())
            if key not in self._scans:  # what a table had is not read again while it has not changed
                self._scans = dict([*self._scans.items()][-_KEPT_SCANS:])
                self._scans[key] = now.scan(where, columns or ("*",)).to_arrow()
            return self._scans[key]
        except (FileNotFoundError, NoSuchTableError) as error:
            raise LakeError(f"{self.uri} has no table {table}, or lost it while it was read: {error}") from error

    def _row(self, table: str, *columns: str, **keys: str) -> dict[str, Any]:
        rows: list[dict[str, Any]] = self._scan(table, *columns, **keys).to_pylist()
        if not rows:
            raise LakeError(f"{table} has no row of {keys}: vectors() lists the published photos")
        return rows[0]

    def _publication(self) -> dict[str, Any]:
        row = self._newest("pca_models", "pca_id", "model_id", "k", "asked", "n", "run_id")
        if not row:
            raise LakeError(f"nothing is published in {self.uri} yet: runs() shows what each run came to")
        return row

    def _newest(self, table: str, *columns: str) -> dict[str, Any]:
        rows = self._scan(table, *columns, *(() if "*" in columns else ("published_at",))).to_pylist()
        return dict(max(rows, key=lambda row: row["published_at"])) if rows else {}

    def _embed(self, photo: Path | bytes, pca_id: str) -> Matrix:
        """Return the components of a photo, (1, k), by the decoding, the network and the PCA model of the jobs."""
        data = photo if isinstance(photo, bytes) else photo.read_bytes()
        if (data, pca_id) not in self._embedded:
            embedding, pixels = _photo_library("model.embedding"), pa.array([self.clean(data)], pa.binary())
            if pca_id not in self._models:
                Pca = _photo_library("pca.principal_components").Pca  # noqa: N806
                row = self._row("pca_models", *(field.name for field in fields(Pca)), pca_id=pca_id)
                arrays = {name: np.array(value) for name, value in row.items() if isinstance(value, list)}
                folder, model_id = f"{self.uri}/models/{row['model_id']}", row["model_id"]
                artifact = _photo_library("model.artifacts").read(folder, model_id, "litert")
                embedder = embedding.LiteRtEmbedder(artifact.data, 1, artifact.network)
                self._models = {pca_id: (Pca(**row | arrays), embedder)}
            pca, embedder = self._models[pca_id]
            self._embedded = {(data, pca_id): np.asarray(pca.project(embedding.embed_all(embedder, pixels)))}
        return self._embedded[data, pca_id]

    def _record(self, run: str) -> dict[str, Any]:
        """Read a run from its run.json or, where no Airflow wrote one, from what its stages measured."""
        # A list: a reader may not be allowed to ask for a missing object. Nodes write stages/, also a run.json there.
        files = self._files.get_file_info(fs.FileSelector(f"runs/{run}", allow_not_found=True, recursive=True))
        names = [file.path for file in files if file.path == f"runs/{run}/run.json"]
        names = names or [file.path for file in files if "/stages/" in file.path and file.extension == "json"]
        try:
            texts = (self._read(name, MAX_JSON_BYTES) for name in names)
            record = {key: value for text in texts for key, value in json.loads(text).items()}
            state = record.get("state", "succeeded" if record.get("published") else "not published")
            row = record.get("images", {}) | record.get("features", {}) | record.get("pca", {})
            rows = pa.Table.from_pylist([row | {"run_id": run, "state": state}], _RUN)
        except (AttributeError, LakeError, RecursionError, TypeError, ValueError):
            rows = pa.Table.from_pylist([{"run_id": run, "state": "unreadable"}], _RUN)
        return dict(rows.to_pylist()[0])

    def _read(self, path: str, limit: float = math.inf) -> bytes:
        if not Path(self.uri, path).resolve().is_relative_to(Path(self.uri, "runs").resolve()):  # also of a bucket
            raise LakeError(f"{self.uri}/{path} leads out of the lake's runs")
        try:
            with self._files.open_input_file(path) as file:
                if file.size() > limit:
                    raise LakeError(f"{self.uri}/{path} has {file.size():,} bytes; at most {limit:,} are read")
                return bytes(file.read())
        except FileNotFoundError as error:
            raise LakeError(f"{self.uri}/{path} is missing: did the run publish? runs() says so") from error
