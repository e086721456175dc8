"""The notebook as a reader runs it: from the first cell, on photos; and its pairing with its source."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import jupytext
import nbclient
import nbformat
import pytest

from dev import run_notebook
from tests import hostile_caller

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOKS = [run_notebook.SOURCE.with_suffix(f".{language}.ipynb") for language in run_notebook.LANGUAGES]
SHARED = Path(os.environ.get("FRUITS_SHARED", REPOSITORY.parent / "shared"))
PHOTOS = SHARED / "images" / "fruits360_sample" / "Test"
WEIGHTS = SHARED / "weights" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
OUT = REPOSITORY / "build" / "notebook"
AWKWARD = 'my photos, [1] #2 50% $x "q" été'
LABELS, PHOTOS_EACH = 6, 10


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some photos of a few labels (real ones where they are at hand, else drawn), and a file that is none."""
    folder, source = tmp_path_factory.mktemp("photos") / AWKWARD, PHOTOS
    folder.mkdir()
    if not source.is_dir():
        source = tmp_path_factory.mktemp("drawn")
        drawing = [".venv-airflow/bin/python", "-m", "dev.demo.drawing", str(source)]
        subprocess.run(drawing, check=True, cwd=REPOSITORY)
    labels = sorted(path for path in source.iterdir() if path.is_dir())
    for label in labels[:: len(labels) // LABELS][:LABELS]:
        name = f"{label.name} $^$"  # to matplotlib a formula, which it cannot read
        (folder / name).mkdir()
        for path in sorted(label.iterdir())[:PHOTOS_EACH]:
            shutil.copyfile(path, folder / name / path.name)
    (folder / "page.jpg").write_text("<!doctype html><title>not a photo</title>")
    return folder


@pytest.fixture(scope="module")
def executed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """`make notebook` for a caller whose environment and home folder are hostile."""
    shutil.rmtree(OUT, ignore_errors=True)
    weights = [f"WEIGHTS={WEIGHTS}"] if WEIGHTS.is_file() else []  # else random ones, where no network is
    caller = hostile_caller.environment(tmp_path_factory.mktemp("home"))
    done = subprocess.run(
        ["make", "-s", "notebook", f"IMAGES={photos}", *weights],
        cwd=REPOSITORY,
        env=caller,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    french, english = (nbformat.read(OUT / path.name, as_version=4) for path in NOTEBOOKS)
    assert "La chaîne" in french.cells[0].source
    assert "The chain" in english.cells[0].source
    return english


def printed(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)


def pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.timeout(900)
def test_it_runs_from_the_first_cell_and_ends_with_all_photos_in_the_tables(executed: nbformat.NotebookNode) -> None:
    good = LABELS * PHOTOS_EACH - 1  # one is held out
    expected = {"images": good, "rejects": 1, "features": good, "pca": good}
    assert str(expected) in printed(executed)


def test_it_shows_photos_balance_curve_space_neighbours_and_volumes(executed: nbformat.NotebookNode) -> None:
    assert pictures(executed) == 7
    assert "labelled photos: at least 100 are needed" in printed(executed), "why these photos have no names"


def test_a_text_is_in_one_language(executed: nbformat.NotebookNode) -> None:
    text = "\n".join(cell.source for cell in executed.cells if cell.cell_type == "markdown")
    assert "## 2. Look at the photos" in text
    assert "Regarder" not in text
    assert "<!--" not in text


def test_a_cell_that_raises_fails_the_run(tmp_path: Path) -> None:
    source = tmp_path / "broken.md"
    source.write_text("```python\nassert 1 == 2\n```\n")
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        run_notebook.execute(source)


@pytest.mark.parametrize("language", run_notebook.LANGUAGES)
def test_the_committed_notebooks_have_the_cells_of_the_source(language: str) -> None:
    source = run_notebook.in_language(jupytext.read(run_notebook.SOURCE), language)
    committed = nbformat.read(run_notebook.SOURCE.with_suffix(f".{language}.ipynb"), as_version=4)
    assert [cell.source for cell in committed.cells] == [cell.source for cell in source.cells], (
        "run make notebook PUBLISH=1 and commit source and notebooks"
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=run_notebook.LANGUAGES)
def test_a_committed_notebook_has_the_outputs_of_one_run_from_top_to_bottom(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert pictures(notebook) == 9, "with those of the names, which the few photos of the tests get none of"
    assert "path" in printed(notebook) or "imagenet" in printed(notebook), "run with real weights"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=run_notebook.LANGUAGES)
def test_a_committed_notebook_names_no_machine(path: Path) -> None:
    text = path.read_text()
    assert str(REPOSITORY) not in text
    assert "/home/" not in text
    assert "Mihai Oltean" in text
    assert "CC BY-SA 4.0" in text
