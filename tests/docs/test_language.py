"""Plain language, as far as it can be counted: short sentences, and nouns for variables."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.plugins.laptop import REPOSITORY

FOLDERS = ("bench", "compose", "dags", "dev", "fruits_lake", "local_aws", "notebooks", "ops", "plugins", "spark_jobs")
PAGES = ("README.md", "CONTRIBUTING.md", "bench/README.md", "docs/**/*.md")
MOST_WORDS = 40
NO_NOUNS = frozenset({"one", "asked", "told", "made", "given", "found", "said", "wanted", "laid"})
SENTENCE_END = re.compile(r'(?<=[.;:?!])["”)*]*\s+')
NEW_PARAGRAPH = re.compile(r"\n\s*\n|\n\s*(?:[-*] |\d+\. |#+ |[\w, ]+: )")


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py")):
        yield str(path.relative_to(REPOSITORY)), ast.parse(path.read_text())


def long_sentences(text: str) -> list[str]:
    """Return the sentences of more than MOST_WORDS words; tables are lists, not sentences."""
    paragraphs = [part for part in NEW_PARAGRAPH.split(text) if "|" not in part]
    sentences = (sentence for part in paragraphs for sentence in SENTENCE_END.split(" ".join(part.split())))
    return [sentence for sentence in sentences if len(sentence.split()) > MOST_WORDS]


def test_a_sentence_of_a_docstring_is_short() -> None:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = (
        (name, doc)
        for name, module in modules()
        for node in ast.walk(module)
        if isinstance(node, kinds) and (doc := ast.get_docstring(node))
    )
    assert [(name, sentence) for name, doc in docstrings for sentence in long_sentences(doc)] == []


def test_a_sentence_of_a_page_is_short() -> None:
    paths = [path for pattern in PAGES for path in REPOSITORY.glob(pattern)]
    assert [(str(path), sentence) for path in paths for sentence in long_sentences(prose(path))] == []


def prose(path: Path) -> str:
    """Return a page without its code and the targets of its links."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    return re.sub(r"`[^`]*`", "X", re.sub(r"\]\([^)]*\)", "]", text))


def test_a_variable_is_a_noun() -> None:
    names = [
        (path, node.lineno, name)
        for path, module in modules()
        for node in ast.walk(module)
        if (name := stored_name(node)) in NO_NOUNS
    ]
    # PcaModel.asked is a field of pca_model.npz.
    assert names == [("spark_jobs/fruits/pca/principal_components.py", names[0][1], "asked")]


def stored_name(node: ast.AST) -> str | None:
    """Return the name that a node binds: a variable, a parameter or a field."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id.strip("_")
    return node.arg.strip("_") if isinstance(node, ast.arg) else None
