"""The notebook's cells as a step of a cluster: s3:// paths and the Glue catalog, no local files."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.local_aws.server import REPOSITORY, Server, tables_in_glue

SHARED = Path(os.environ.get("FRUITS_SHARED", REPOSITORY.parent / "shared"))
PHOTOS = SHARED / "images" / "fruits360_sample" / "Test"
WEIGHTS = SHARED / "weights" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
JOBS = ("load_images", "featurize", "reduce_pca", "publish")
LABELS, PHOTOS_EACH = 4, 6

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def model_id(aws: Server, spark_python: str) -> str:
    weights = str(WEIGHTS) if WEIGHTS.is_file() else "random"
    make = [spark_python, "dev/make_model.py", "--weights", weights]
    made_model = subprocess.run(make, check=True, cwd=REPOSITORY, capture_output=True, text=True)
    model_id = str(json.loads(made_model.stdout)["model_id"])
    for path in (REPOSITORY / ".cache" / "models" / model_id).iterdir():
        aws.client("s3").upload_file(str(path), "lake", f"models/{model_id}/{path.name}")
    return model_id


@pytest.fixture(scope="module")
def photos(aws: Server, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many photos are in the bucket."""
    source = PHOTOS
    if not source.is_dir():
        from dev.demo.drawing import draw_fruits

        source = tmp_path_factory.mktemp("drawn")
        draw_fruits(source)
    labels = sorted(path for path in source.iterdir() if path.is_dir())
    chosen = [
        path for label in labels[:: len(labels) // LABELS][:LABELS] for path in sorted(label.iterdir())[:PHOTOS_EACH]
    ]
    s3 = aws.client("s3")
    aws.make_bucket("photos-of-a-notebook")
    for path in chosen:
        s3.upload_file(str(path), "photos-of-a-notebook", f"photos/{path.parent.name}/{path.name}")
    return len(chosen)


@pytest.fixture(scope="module")
def code(aws: Server) -> str:
    """Upload the library, the jobs and the script to where upload_code puts them."""
    archive, jobs = io.BytesIO(), REPOSITORY / "spark_jobs"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (jobs / "fruits").rglob("*.py"):
            file.write(path, path.relative_to(jobs).as_posix())
    s3 = aws.client("s3")
    s3.put_object(Bucket="lake", Key="code/notebook/fruits.zip", Body=archive.getvalue())
    for path in (jobs / f"{name}.py" for name in JOBS):
        s3.upload_file(str(path), "lake", f"code/notebook/{path.name}")
    source = (REPOSITORY / "notebooks" / "fruits_pipeline.md").read_text()
    cells = re.findall(r"^```python[^\n]*\n(.*?)^```", source, re.MULTILINE | re.DOTALL)
    s3.put_object(Bucket="lake", Key="code/notebook/fruits_pipeline.py", Body="\n\n".join(cells).encode())
    return "s3://lake/code/notebook"


@pytest.mark.timeout(900)
def test_the_cells_run_as_a_step_over_s3(aws: Server, model_id: str, photos: int, code: str) -> None:
    cluster_id = aws.run_job_flow(Configurations=tables_in_glue())
    libraries = ",".join(f"{code}/{name}" for name in ("fruits.zip", *(f"{job}.py" for job in JOBS)))
    step_id = aws.add_step(
        *(cluster_id, "spark-submit", "--deploy-mode", "client", "--name", "notebook", "--py-files", libraries),
        *(f"{code}/fruits_pipeline.py", "WHERE=emr", "PHOTOS=s3://photos-of-a-notebook/photos/", "LAKE=s3://lake"),
        *(f"MODEL=s3://lake/models/{model_id}", "VARIANCE=0.9"),
    )
    status = aws.step_reaches(cluster_id, step_id, "COMPLETED", "FAILED", "CANCELLED", seconds=800)
    assert status["State"] == "COMPLETED", aws.step_log(cluster_id, step_id, "stderr")[-4000:]
    loaded = photos - 1  # one is held out
    counts = {"images": loaded, "rejects": 0, "features": loaded, "pca": loaded}
    assert str(counts) in aws.step_log(cluster_id, step_id, "stdout")
    tables = aws.client("glue").get_tables(DatabaseName="fruits_notebook")["TableList"]
    assert {"images", "features", "pca", "pca_models"} <= {table["Name"] for table in tables}
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])
