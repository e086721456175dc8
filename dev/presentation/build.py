"""Build the presentation: one Typst source, a PDF in each language, every figure read from a file.

Run by `make presentation`, in .venv-docs. Figures come from data/ (a real run, see take_run.py), from
bench/results.json where it is published, and from the code's own constants (`facts`).
"""

import argparse
import ast
import json
import re
import runpy
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import font_source_sans_pro
import typst

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "presentation"
BUILD = ROOT / "build" / "presentation"
BENCH = ROOT / "bench" / "results.json"
SOURCE = FOLDER / "presentation.typ"
LANGUAGES = ("fr", "en")


def main(argv: list[str] | None = None) -> int:
    """Build both languages; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=BUILD, help="folder of the PDFs (default: %(default)s)")
    parser.add_argument("--bench", type=Path, default=BENCH, help="published benchmark, if there is one")
    parser.add_argument("--png", action="store_true", help="each page as a picture too, in build/presentation/")
    arguments = parser.parse_args(argv)
    write_inputs(arguments.bench)
    for language in LANGUAGES:
        path = arguments.out / f"presentation.{language}.pdf"
        path.parent.mkdir(parents=True, exist_ok=True)
        pages = compiler(SOURCE, language)
        pages.compile(output=str(path), format="pdf", timestamp=_measured_on())
        print(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
        if arguments.png:
            pages.compile(output=str(arguments.out / f"{language}-{{0p}}.png"), format="png", ppi=110)
    return 0


def write_inputs(bench: Path) -> None:
    """Write what the source reads besides data/: the code's constants, and the benchmark or `{}`."""
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "facts.json").write_text(json.dumps(facts(), indent=1))
    (BUILD / "bench.json").write_text(bench.read_text() if bench.exists() else "{}")


def compiler(source: Path, language: str) -> typst.Compiler:
    """Return a compiler that knows the bundled fonts only, so that every machine makes the same pages."""
    return typst.Compiler(
        input=str(source),
        root=str(ROOT),
        font_paths=[str(Path(font_source_sans_pro.__file__).parent / "files")],
        ignore_system_fonts=True,
        sys_inputs={"lang": language},
    )


def facts() -> dict[str, Any]:
    """Read the constants that the pages name from the code."""
    jobs, control = ROOT / "spark_jobs" / "fruits", ROOT / "plugins" / "fruits_airflow"
    network = runpy.run_path(str(jobs / "model" / "networks.py"))["MOBILENET_V2"]
    settings = _defaults(control / "config" / "settings.py", "Settings")
    return {
        "dims": network.dims,
        "input_px": network.input_px,
        "reject_codes": len(_defaults(jobs / "images" / "rejects.py", "RejectCode")),
        "eu_regions": len(_constant(control / "config" / "regions.py", "EU_REGIONS")),
        "release": settings["release_label"],
        "idle_minutes": settings["idle_timeout_s"] / 60,
        "tables": len(_constant(jobs / "base" / "schemas.py", "TABLES")),
        "spark": _pinned("spark", "pyspark"),
        "airflow": _pinned("airflow", "apache-airflow"),
        "iceberg": _constant(ROOT / "dev" / "fetch_jars.py", "ICEBERG_VERSION"),
    }


def _constant(path: Path, name: str) -> Any:
    value = _assignments(ast.parse(path.read_text()).body).get(name)
    if value is None:
        raise SystemExit(f"ERROR: {path} has no constant {name}, which the presentation names")
    return _literal(value)


def _defaults(path: Path, name: str) -> dict[str, Any]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return {key: _literal(value) for key, value in _assignments(node.body).items()}
    raise SystemExit(f"ERROR: {path} has no class {name}, which the presentation names")


def _literal(value: ast.expr) -> Any:
    # Of frozenset({...}), MappingProxyType({...}) and Field(...) the first argument counts.
    return ast.literal_eval(value.args[0] if isinstance(value, ast.Call) else value)


def _assignments(body: list[ast.stmt]) -> dict[str, ast.expr]:
    """Return the assigned expressions of a module or class by name."""
    values: dict[str, ast.expr] = {}
    for node in body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name) and node.value:
            values[target.id] = node.value
    return values


def _pinned(environment: str, package: str) -> str:
    lock = (ROOT / "requirements" / f"{environment}.lock").read_text()
    match = re.search(rf"^{re.escape(package)}==(\S+)", lock, re.M)
    if match is None:
        raise SystemExit(f"ERROR: requirements/{environment}.lock has no {package}, which the presentation names")
    return match[1]


def _measured_on() -> datetime:
    """Return the run's date, so that the same inputs give the same PDF."""
    date = json.loads((FOLDER / "data" / "machine.json").read_text())["date"]
    return datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(main())
