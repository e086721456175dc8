"""What is known about a run: its run.json and the metrics of its stages, of which nothing is trusted."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from fruits_airflow.report.units import number


class Facts:
    """A run's record, of which any part may be missing or of the wrong type.

    Readers need a report most urgently for a run that broke half-way, so nothing here raises: what is missing, or does
    not follow the schema, is None or empty.

    Args:
        run: run.json, parsed or as JSON has it. Where it is silent, the metrics of the stages count.
        stages: The stages' own metrics by stage name, parsed or as JSON has them.
    """

    def __init__(self, run: Mapping[str, Any] | BaseModel, stages: Mapping[str, Any]) -> None:
        self._merged: dict[str, Any] = {}
        self._stages = {name: facts for name, metrics in stages.items() if (facts := _facts_of(metrics))}
        for metrics in self._stages.values():
            _merge(self._merged, {key: part for key, part in metrics.items() if key != "seconds"})
        _merge(self._merged, _facts_of(run))

    def stage(self, name: str) -> Mapping[str, Any]:
        """Return the metrics of a stage; empty when it left none."""
        return self._stages.get(name, {})

    def has_metrics(self, name: str) -> bool:
        """Whether a stage left its metrics; if not, the zeros of a blank record mean `not known`."""
        return name in self._stages

    def get(self, *path: str) -> object:
        """Return the value at a path, or None."""
        value: object = self._merged
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def number(self, *path: str) -> float | None:
        """Return the finite number at a path, or None."""
        return number(self.get(*path))

    @property
    def dims(self) -> int:
        """The number of features of an image; records from before there were two networks do not name it."""
        return int(self.number("features", "dims") or 1280)

    def text(self, *path: str) -> str | None:
        """Return the text at a path; None when it is empty."""
        value = self.get(*path)
        return value if isinstance(value, str) and value.strip() else None

    def mapping(self, *path: str) -> Mapping[str, Any]:
        """Return the mapping at a path, or an empty one."""
        value = self.get(*path)
        return value if isinstance(value, Mapping) else {}

    def items(self, *path: str) -> list[Any]:
        """Return the list at a path, or an empty one."""
        value = self.get(*path)
        return list(value) if isinstance(value, list | tuple) else []


def _facts_of(record: object) -> Mapping[str, Any]:
    """Return the content of a record without the defaults of what it leaves out; empty for anything else."""
    if isinstance(record, BaseModel):
        return record.model_dump(exclude_unset=True)
    return record if isinstance(record, Mapping) else {}


def _merge(merged: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Put `more` over `merged`, part by part; None replaces nothing."""
    for key, part in more.items():
        if isinstance(part, Mapping):
            inner = merged.get(key)
            merged[key] = inner = dict(inner) if isinstance(inner, Mapping) else {}
            _merge(inner, part)
        elif part is not None:
            merged[key] = part
