"""Run the notebook from its first cell and write it with its outputs: behind `make notebook`, in .venv-notebook.

notebooks/fruits_pipeline.md is the source (jupytext). The notebooks beside it, in French and in English, are its cells
with the outputs of a real run. Without --publish they go to build/notebook/.
"""

import argparse
import base64
import copy
import io
import os
import re
import sys
from pathlib import Path

import jupytext
import nbclient
import nbformat
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "notebooks" / "fruits_pipeline.md"
LANGUAGES = ("fr", "en")
_MARKER = re.compile(rf"^<!-- ({'|'.join(LANGUAGES)}) -->\n", re.MULTILINE)
CELL_SECONDS = 900
COLOURS = 200


def main(argv: list[str] | None = None) -> int:
    """Run the notebook and write it; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos, in one folder per label")
    parser.add_argument("--model", type=Path, required=True, help="folder of the model that make model wrote")
    parser.add_argument("--lake", type=Path, default=ROOT / "build" / "notebook" / "lake", help="default: %(default)s")
    parser.add_argument("--my-photo", type=Path, help="find the fruits nearest to this photo")
    parser.add_argument("--publish", action="store_true", help="write the notebooks in notebooks/")
    arguments = parser.parse_args(argv)
    if arguments.my_photo and not arguments.my_photo.is_file():
        parser.error(f"MY_PHOTO={arguments.my_photo} is not a file: name a photo, or leave it out")
    folder = SOURCE.parent if arguments.publish else ROOT / "build" / "notebook"
    for name in ("photos", "model", "lake", "my_photo"):
        if value := getattr(arguments, name):
            os.environ[f"NOTEBOOK_{name.upper()}"] = str(value.resolve())
    try:
        executed = execute(SOURCE)
    except nbclient.exceptions.CellExecutionError as error:
        sys.stderr.write(f"ERROR {error}\n")
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    for language in LANGUAGES:
        out = folder / f"{SOURCE.stem}.{language}.ipynb"
        nbformat.write(in_language(executed, language), out)
        print(out.relative_to(ROOT))
    return 0


def in_language(notebook: nbformat.NotebookNode, language: str) -> nbformat.NotebookNode:
    """Return the notebook with the texts of one language, which follow its marker: `<!-- fr -->` or `<!-- en -->`."""
    chosen = copy.deepcopy(notebook)
    for cell in chosen.cells:
        if cell.cell_type == "markdown":
            common, *parts = _MARKER.split(cell.source)
            texts = dict(zip(parts[::2], parts[1::2], strict=True))
            cell.source = (common + texts.get(language, "")).strip()
    return chosen


def execute(source: Path) -> nbformat.NotebookNode:
    """Run a source as a notebook, with this Python as its kernel.

    Raises:
        CellExecutionError: a cell raised; the message has the cell and the traceback.
    """
    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"  # the same on every run, so that a diff shows what changed
    client = nbclient.NotebookClient(
        notebook, timeout=CELL_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(source.parent)}}
    )
    return cleaned(client.execute())


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop the logs on stderr and the execution times, which differ in each run, and make the pictures smaller."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = _smaller(output.data["image/png"])
    notebook.metadata.pop("language_info", None)
    return notebook


def _smaller(png: str) -> str:
    """Reduce a base64 picture to a palette of its own: a third of the bytes, no visible difference."""
    out = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


if __name__ == "__main__":
    sys.exit(main())
