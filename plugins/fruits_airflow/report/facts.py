"""What is known about a run: its run.json and what its stages wrote, read without trusting either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from fruits_airflow.report.units import number


class Facts:
    """A run's record, of which any part may be missing or of the wrong type.

    A report is made most urgently for a run that broke half-way, so nothing here raises: what is not there, or is
    not what the schema says, is None or empty.
    """

    def __init__(self, run: Mapping[str, Any] | BaseModel, stages: Mapping[str, Any]) -> None:
        """Remember the run's record; where it is silent, what the stages wrote counts.

        Args:
            run: run.json, parsed or as JSON has it.
            stages: the stages' own metrics by stage name, parsed or as JSON has them.
        """
        self._known: dict[str, Any] = {}
        self._stages = {name: written for name, metrics in stages.items() if (written := _written(metrics))}
        for metrics in self._stages.values():
            _fill(self._known, {key: part for key, part in metrics.items() if key != "seconds"})
        _fill(self._known, _written(run))

    def stage(self, name: str) -> Mapping[str, Any] | None:
        """What that stage wrote, None when it wrote nothing."""
        return self._stages.get(name) or None

    def wrote(self, name: str) -> bool:
        """Whether that stage left its metrics; if not, the zeros of a blank record mean `not known`."""
        return self.stage(name) is not None

    def get(self, *path: str) -> object:
        """Whatever is at that path, None when nothing is."""
        here: object = self._known
        for key in path:
            here = here.get(key) if isinstance(here, Mapping) else None
        return here

    def number(self, *path: str) -> float | None:
        """The finite number at that path."""
        return number(self.get(*path))

    def text(self, *path: str) -> str | None:
        """The text at that path, None when it is empty."""
        found = self.get(*path)
        return found if isinstance(found, str) and found.strip() else None

    def mapping(self, *path: str) -> Mapping[str, Any]:
        """The mapping at that path, empty when there is none."""
        found = self.get(*path)
        return found if isinstance(found, Mapping) else {}

    def items(self, *path: str) -> list[Any]:
        """The list at that path, empty when there is none."""
        found = self.get(*path)
        return list(found) if isinstance(found, list | tuple) else []


def _written(facts: object) -> Mapping[str, Any]:
    """What a record says, without the defaults of what it does not say; empty for anything that is no record."""
    if isinstance(facts, BaseModel):
        return facts.model_dump(exclude_unset=True)
    return facts if isinstance(facts, Mapping) else {}


def _fill(known: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Put `more` over `known`, part by part; None says nothing and replaces nothing."""
    for key, part in more.items():
        if isinstance(part, Mapping):
            inner = known.get(key)
            known[key] = inner = dict(inner) if isinstance(inner, Mapping) else {}
            _fill(inner, part)
        elif part is not None:
            known[key] = part
