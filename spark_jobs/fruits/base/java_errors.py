"""Summarize failures inside Java in one line: the innermost cause, the table and the remedy.

Spark and Iceberg wrap an exception several times, and py4j puts a name such as ``o62.planFiles`` before it. The text
of the error holds the whole chain.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException

from fruits.base import schemas
from fruits.base.errors import JavaError

_CLASS = r"([\w.$]+)(?:: (.*))?$"
_CAUSES = tuple(
    re.compile(before + _CLASS, re.MULTILINE)
    for before in (
        r"Traceback \(most recent call last\):\n(?: .*\n)*",  # of a Python worker
        r"^Caused by: ",
        r"\(\S+ executor \S+\): ",
        r"JVM stacktrace:\n",
        r"^: ",
    )
)
"""Patterns of causes, the deepest first: the innermost cause is the last match of the first pattern that matches."""
_TABLE = re.compile(
    r"(\w+)(?:\.db)?/(?P<by_path>{0})/(?:data|metadata)/|(\w+\.\w+\.(?:{0}))\b".format("|".join(schemas.TABLES))
)
_REMEDIES = (
    (
        r"NotFound|NoSuchKey|does not exist|No such file",
        "Restore the file, or roll the table back to a snapshot that has all of its files (docs/runbook.md, "
        "A file of a table is missing)",
    ),
    (r"CommitFailed|CommitStateUnknown|Concurrent", "Another writer changed the table: run the step again"),
    (
        r"Access ?Denied|Status Code: 403|not authorized|Permission denied",
        "Give the job's role this right: make verify compares the roles with the template",
    ),
    (
        r"OutOfMemory|MemoryError|Java side is empty",
        "The job ran out of memory: raise spark.driver.memory or executor_memory",
    ),
    (r"No space left", "Give the nodes larger disks (include/cluster.yaml), or free space on this one"),
    (r"Corrupt|not a Parquet file|Malformed|EOFException", "A file is damaged: restore it from a copy, or roll back"),
)
_DEFAULT_REMEDY = "Run the step again; if it fails again, the stack trace above shows where"


@contextmanager
def annotate_errors(table: str) -> Iterator[None]:
    """Add the table's name to errors, because messages such as S3's "Access Denied" do not name it."""
    try:
        yield
    except Exception as error:
        error.add_note(table)
        raise


def explain(error: Exception) -> JavaError | None:
    """Summarize an error of py4j or PySpark in one line.

    Returns:
        The innermost cause with table and remedy; None for any other error.
    """
    if not isinstance(error, (Py4JError, PySparkException)):
        return None
    text = str(error)
    name, message = next(
        (matches[-1] for matches in (pattern.findall(text) for pattern in _CAUSES) if matches),
        (type(error).__name__, text.strip().partition("\n")[0]),
    )
    cause = ": ".join(part for part in (name.rpartition(".")[2], message.strip().rstrip(".")) if part)
    remedy = next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, cause)), _DEFAULT_REMEDY)
    table = _find_table(cause) or next(iter(getattr(error, "__notes__", ())), None) or _find_table(text)
    return JavaError(f"{table}: {cause}. {remedy}" if table else f"{cause}. {remedy}")


def _find_table(text: str) -> str | None:
    matches = list(_TABLE.finditer(text))
    if not matches:
        return None
    match = matches[-1]
    return f"{match[1]}.{match['by_path']}" if match["by_path"] else str(match[3])
