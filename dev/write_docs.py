"""Write commands.md, data_dictionary.md, settings.md, dags.md and map.md in docs/, from the code and docs/reference/.

Run by `make docs`, in .venv-airflow. With --check it only reports the pages that differ from what the code gives.
"""

import argparse
import ast
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from string import Template
from typing import Any, get_type_hints

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
TEMPLATES = DOCS / "reference"
SCHEMAS = ROOT / "spark_jobs" / "fruits" / "base" / "schemas.py"
sys.path.insert(0, str(ROOT / "plugins"))

from fruits_airflow.config.settings import SETTINGS_FILE, Settings  # noqa: E402 - after the path

_COLUMN = re.compile(r"^(?P<name>\w+) (?P<type>[A-Z<>]+)(?P<required> NOT NULL)?(?: COMMENT '(?P<what>.*)')?,?$")
_SETTING = re.compile(r"^(?:# )?(?P<key>[a-z_]+):[^#]*(?:#\s*(?P<what>.*))?$")
_REQUIRED = re.compile(r"^#   (?P<key>[a-z_]+) {2,}(?P<what>.*)$")
_MORE = re.compile(r"^#? {12,}#? *(?P<what>\S.*)$")
UNITS = {"_px": "pixels", "_bytes": "bytes", "_at": "UTC", "_s": "seconds", "_minutes": "minutes", "_eur": "EUR"}
PACKAGES = ("plugins", "spark_jobs", "fruits_lake", "local_aws", "ops", "dev", "bench")
SCRIPTS = ("plugins", "spark_jobs")
"""Their own files are entry points, not modules of a package."""
PLACEHOLDERS = {"deployment_id": "docs", "raw_bucket": "raw-bucket", "lake_bucket": "lake-bucket"}


class Undocumented(Exception):
    """Something that the page must explain has no explanation in the code."""


def main(argv: list[str] | None = None) -> int:
    """Write or check the pages; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(argv).check
    stale = []
    for name, text in pages().items():
        path = DOCS / name
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text)
    print(f"{'stale' if check else 'written'}: {', '.join(stale) or 'nothing'}")
    return 1 if check and stale else 0


def pages() -> dict[str, str]:
    """Return each page's text, by its name in docs/."""
    writers = {write.__name__: write for write in (commands, dags, data_dictionary, settings)} | {"map": code_map}
    return {f"{name}.md": write() for name, write in writers.items()}


def data_dictionary() -> str:
    """Describe every table, column and unit, and how to query them."""
    tables, keys = _literal("TABLES"), _literal("KEYS")
    template = Template((TEMPLATES / "data_dictionary.md").read_text())
    if unsaid := sorted(set(tables) - set(template.get_identifiers())):
        raise Undocumented(f"docs/reference/data_dictionary.md: say what the tables {unsaid} are, with ${{name}}")
    parts = {}
    for table, sql in tables.items():
        rows = [
            (f"`{name}`", kind.lower(), "" if required else "yes", _unit(name), what)
            for name, kind, required, what in columns(table, sql)
        ]
        key = ", ".join(f"`{column}`" for column in keys[table])
        head = ("column", "type", "may be NULL", "unit", "what it holds")
        parts[table] = f"Key: {key}.\n\n{_table(head, rows)}"
    query = _literal("CURRENT_PCA").strip()
    for engine, database in {"spark": "lake.fruits.", "athena": "fruits."}.items():
        parts[f"current_pca_in_{engine}"] = query.replace("{database}.", database)
    return template.substitute(parts)


def columns(table: str, sql: str) -> Iterator[tuple[str, str, bool, str]]:
    """Yield name, type, whether it is required, and the comment of each column of a table.

    Raises:
        Undocumented: a column has no COMMENT, or is written in a way that this does not read.
    """
    for line in filter(None, map(str.strip, sql.splitlines())):
        match = _COLUMN.match(line)
        if match is None or not match["what"]:
            raise Undocumented(f"schemas.TABLES[{table!r}]: give the column a COMMENT that says what it holds: {line}")
        yield match["name"], match["type"], bool(match["required"]), match["what"].replace("''", "'")


def settings() -> str:
    """Describe every setting with its type, default and purpose."""
    texts, kinds = setting_texts(SETTINGS_FILE.read_text()), get_type_hints(Settings)
    rows = []
    for field in fields(Settings):
        if field.name not in texts:
            raise Undocumented(f"{SETTINGS_FILE.name}: say what {field.name} is for, in a comment beside it")
        default = "required" if field.default is MISSING else _default(field.default)
        kind = getattr(kinds[field.name], "__name__", str(kinds[field.name])).replace(" | None", " or nothing")
        rows.append((f"`{field.name}`", kind, default, _unit(field.name), texts[field.name]))
    table = _table(("key", "type", "default", "unit", "what for"), rows)
    return Template((TEMPLATES / "settings.md").read_text()).substitute(settings=table)


def setting_texts(yaml: str) -> dict[str, str]:
    """Return the comment of settings.yaml on each key."""
    texts: dict[str, str] = {}
    last = ""
    for line in yaml.splitlines():
        if (match := _SETTING.match(line) or _REQUIRED.match(line)) and match["what"]:
            last = match["key"]
            texts[last] = match["what"]
        elif last and (more := _MORE.match(line)):
            texts[last] += f" {more['what']}"
        else:
            last = ""
    return texts


def dags() -> str:
    """Describe each DAG, its tasks and its parameters."""
    parts = []
    for dag_id, dag in sorted(load_dags().items()):
        doc = re.sub(r"^(#+) ", r"##\1 ", dag.doc_md.strip(), flags=re.M)
        parts.append(f"## `{dag_id}`\n\n{doc}\n\nSchedule, with the settings as they come: {_schedule(dag)}.")
        rows = [(f"`{task.task_id}`", _oneline(task_doc(task))) for task in dag.topological_sort()]
        parts.append(_table(("task", "what it does"), rows))
        params = [(name, dag.params.get_param(name)) for name in dag.params]
        if params:
            described = [
                (f"`{name}`", _default(param.value), _oneline(param.description or "")) for name, param in params
            ]
            parts.append(_table(("parameter of a manual run", "default", "what for"), described))
    return Template((TEMPLATES / "dags.md").read_text()).substitute(dags="\n\n".join(parts))


def _schedule(dag: Any) -> str:
    expression = getattr(dag.timetable, "expression", None)
    return f"`{expression}` in {dag.timetable.timezone}" if expression else "none, it runs when it is asked to"


def task_doc(task: Any) -> str:
    """Return the first paragraph of a task's documentation.

    Raises:
        Undocumented: it says nothing.
    """
    text = task.doc_md or getattr(getattr(task, "python_callable", None), "__doc__", None)
    if not text:
        raise Undocumented(f"{task.dag_id}.{task.task_id}: give the task a docstring or doc_md")
    return str(text).strip().split("\n\n")[0]


def code_map(root: Path = ROOT) -> str:
    """List every package with the first sentence of its docstring.

    Raises:
        Undocumented: A folder of modules is no package, or its package has no docstring.
    """
    rows = []
    for top in PACKAGES:
        folders = {path.parent for path in (root / top).rglob("*.py")} - {root / top for top in SCRIPTS}
        for folder in sorted(folders):
            init = folder / "__init__.py"
            doc = ast.get_docstring(ast.parse(init.read_text())) if init.is_file() else None
            name = folder.relative_to(root).as_posix()
            if not doc:
                raise Undocumented(f"{name}/__init__.py: say in a docstring what the folder is for")
            rows.append((f"`{name}/`", _oneline(doc.split("\n\n")[0])))
    table = _table(("package", "what"), rows)
    return Template((TEMPLATES / "map.md").read_text()).substitute(rooms=table)


def commands() -> str:
    """List every target of the Makefile with its line of help, by section."""
    parts = []
    _, *sections = re.split(r"^## —— (.*?) —+$", (ROOT / "Makefile").read_text(), flags=re.M)
    for title, targets in zip(sections[::2], sections[1::2], strict=True):
        rows = [(f"`make {name}`", text) for name, text in re.findall(r"^([a-z-]+):.*?## (.*)$", targets, re.M)]
        parts.append(f"## {title}\n\n{_table(('command', 'what it does'), rows)}")
    return Template((TEMPLATES / "commands.md").read_text()).substitute(commands="\n\n".join(parts))


def load_dags() -> dict[str, Any]:
    """Load all DAGs, with the default settings and placeholders for the required ones."""
    for name in [name for name in os.environ if name.startswith("FRUITS_")]:
        del os.environ[name]
    os.environ |= {f"FRUITS_{key.upper()}": value for key, value in PLACEHOLDERS.items()}
    home = tempfile.mkdtemp(prefix="write-docs-")
    os.environ |= {"AIRFLOW_HOME": home} if "airflow" not in sys.modules else {}
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(ROOT / "dags"))
    if bag.import_errors:
        raise SystemExit(f"ERROR: {bag.import_errors}")
    return dict(bag.dags)


def _literal(name: str) -> Any:
    """Read a constant of schemas.py without importing Spark."""
    for node in ast.parse(SCHEMAS.read_text()).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            return ast.literal_eval(node.value) if node.value else {}
    raise Undocumented(f"schemas.py has no literal {name}")


def _unit(name: str) -> str:
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")


def _default(value: Any) -> str:
    return "none" if value is None else f"`{value}`"


def _oneline(text: str) -> str:
    return " ".join(text.split())


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
