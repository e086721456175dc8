from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from dev import class_archive, run_local
from tests.spark_jobs.conftest import ROOT
from tests.spark_jobs.pictures import orchard


def arguments(images, out, models=None, model=None) -> list[str]:
    options = ["--images", str(images), "--out", str(out), "--master", "local[2]", "--k", "4"]
    if model:
        source = models / model["reference_model_id"] / "weights.h5"
        options += ["--weights", str(source), "--models", str(models)]
    return options


@pytest.mark.spark
@pytest.mark.timeout(600)
def test_a_folder_goes_through_the_same_job_files_end_to_end(tmp_path, models, model):
    photos = orchard(tmp_path / "photos", labels=4, each=10)
    (photos / "Label 0" / "page.jpg").write_bytes(b"<html>")
    jpeg = photos / "Label 1" / "r0_0_100.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:900])
    done = subprocess.run(
        [sys.executable, "dev/run_local.py", *arguments(photos, tmp_path / "out", models, model)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "41 seen, 39 loaded, 0 unchanged, 0 removed, 2 rejected" in done.stdout
    assert "39 rows, 39 computed, weights: path" in done.stdout
    (run_folder,) = (tmp_path / "out" / "runs").iterdir()
    assert f"publication of run {run_folder.name}" in (run_folder / "model_card.md").read_text()
    assert "| truncated | 1 |" in (run_folder / "datasheet.md").read_text()
    loaded = json.loads((run_folder / "stages" / "load_images.json").read_text())
    assert loaded["rejects_by_code"] == {"not_an_image": 1, "truncated": 1}
    assert json.loads((run_folder / "stages" / "publish.json").read_text())["published"] is True
    for name in ("pca.parquet", "sample.parquet", "pca_model.npz"):
        assert (run_folder / name).stat().st_size > 0


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_folder_without_photos_is_one_clear_line_and_leaves_nothing(tmp_path, capsys, kind):
    photos = tmp_path / "photos"
    if kind == "empty":
        photos.mkdir()
    assert run_local.main(arguments(photos, tmp_path / "out")) == 2
    err = capsys.readouterr().err
    assert err.startswith("ERROR InputError: ")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("--k", "5.0"), ("--k", "0"), ("--k", "1281"), ("--variance", "nan"), ("--max-removed-share", "inf")],
)
def test_a_number_that_cannot_be_used_is_refused_before_anything_is_done(tmp_path, capsys, name, value):
    with pytest.raises(SystemExit):
        run_local.main(["--images", str(tmp_path), name, value])
    assert f"argument {name}: " in capsys.readouterr().err


@pytest.mark.parametrize("long_name", ["images", "out"])
def test_a_name_that_no_file_can_have_is_one_clear_line(tmp_path, capsys, long_name):
    photos = orchard(tmp_path / "photos", 1, 1)
    paths = {"images": photos, "out": tmp_path / "out"} | {long_name: tmp_path / (300 * "x")}
    assert run_local.main(arguments(paths["images"], paths["out"])) == 2
    assert re.fullmatch(r"ERROR .*/xxx.*: File name too long; mend that and call again\n", capsys.readouterr().err)


def test_results_below_a_file_are_one_clear_line(tmp_path, capsys):
    photos = orchard(tmp_path / "photos", 1, 1)
    (tmp_path / "file").write_bytes(b"mine")
    assert run_local.main(arguments(photos, tmp_path / "file")) == 2
    assert re.fullmatch(r"ERROR .*/file/runs.*: Not a directory; mend that and call again\n", capsys.readouterr().err)
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_an_interrupted_run_has_no_traceback(tmp_path, capsys, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_local, "run", interrupt)
    assert run_local.main(arguments(tmp_path, tmp_path)) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("where", [".", "results/today"])
def test_results_inside_the_photos_are_refused_before_anything_is_written(tmp_path, capsys, where):
    photos = orchard(tmp_path / "photos", 1, 1)
    before = sorted(photos.rglob("*"))
    assert run_local.main(arguments(photos, photos / where)) == 2
    assert "is inside --images" in capsys.readouterr().err
    assert sorted(photos.rglob("*")) == before


def test_jars_that_are_not_there_are_one_clear_line(tmp_path, capsys):
    options = arguments(orchard(tmp_path / "photos", 1, 1), tmp_path / "out")
    assert run_local.main([*options, "--jars", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"ERROR InputError: {tmp_path}/iceberg-")
    assert "make setup" in err
    assert not (tmp_path / "out").exists()


def test_each_job_starts_from_the_archive_of_classes(tmp_path):
    options = run_local.parser().parse_args(arguments(tmp_path, tmp_path))
    command = run_local._spark_submit(options, tmp_path, "featurize")
    for option in class_archive.options((ROOT / ".cache" / "jars").resolve()):
        assert option in command


@pytest.mark.parametrize(("engine", "environment"), [("litert", ".venv-node"), ("tensorflow", ".venv-spark")])
def test_jobs_run_in_the_python_of_a_node_unless_the_engine_needs_tensorflow(tmp_path, engine, environment):
    parsed = run_local.parser().parse_args([*arguments(tmp_path, tmp_path), "--engine", engine])
    command = run_local._spark_submit(parsed, tmp_path, "featurize")
    assert f"/{environment}/lib/" in command[0]
    assert [part for part in command if "python=" in part and environment not in part] == []


def test_a_node_python_that_is_not_there_is_one_clear_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run_local, "NODE_PYTHON", tmp_path / "python")
    assert run_local.main(arguments(orchard(tmp_path / "photos", 1, 1), tmp_path / "out")) == 2
    assert capsys.readouterr().err == f"ERROR InputError: {tmp_path}/python is missing: run make setup\n"


def test_no_java_is_one_clear_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert run_local.main(arguments(orchard(tmp_path / "photos", 1, 1), tmp_path / "out")) == 2
    assert "Java 17" in capsys.readouterr().err
