"""The faults that need no scheduler, each with the moments at which it strikes and the end that is right for it.

`before` the effect, `during` it, `after` it. What is armed is in the words of `local_aws.faults`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """One fault at one moment.

    Attributes:
        fault: its number.
        moment: before, during or after the effect.
        what: in one line, for docs/reliability.md.
        armed: the faults to arm before the run.
        end: how run.json must say that the run ended.
        clusters: most clusters that the run may have had, one after the other.
        quick: whether it is in the selection of `make test`.
        note: distinguishes cases of one fault and moment.
    """

    fault: str
    moment: str
    what: str
    armed: tuple[dict[str, Any], ...]
    end: str = "succeeded"
    clusters: int = 1
    quick: bool = False
    note: str = ""

    @property
    def id(self) -> str:
        """The test's name."""
        return "-".join(filter(None, (self.fault, self.moment, self.note)))


def lost(operation: str, moment: str, **more: Any) -> tuple[dict[str, Any], ...]:
    """A reply of EMR that is lost."""
    return ({"kind": "lost", "service": "emr", "operation": operation, "when": moment, "times": 1} | more,)


CASES = (
    # F1: RunJobFlow's reply is lost
    Case("F1", "before", "RunJobFlow is lost on its way", lost("RunJobFlow", "before")),
    Case(
        "F1",
        "during",
        "the client of RunJobFlow is cut off, the cluster is made a second later",
        lost("RunJobFlow", "during", seconds=1.0),
        quick=True,
    ),
    Case("F1", "after", "RunJobFlow's reply is lost", lost("RunJobFlow", "after"), quick=True),
    Case("F1", "after", "RunJobFlow's reply is reset", lost("RunJobFlow", "after", reset=True), note="reset"),
    Case(
        "F1",
        "after",
        "RunJobFlow's reply is cut in the middle",
        ({"kind": "cut", "service": "emr", "operation": "RunJobFlow", "when": "after", "times": 1},),
        note="cut",
    ),
    # F2: AddJobFlowSteps' reply is lost
    Case("F2", "before", "AddJobFlowSteps is lost on its way", lost("AddJobFlowSteps", "before", skip=1)),
    Case(
        "F2",
        "during",
        "the client of AddJobFlowSteps is cut off, the step is added a second later",
        lost("AddJobFlowSteps", "during", skip=1, seconds=1.0),
    ),
    Case(
        "F2",
        "after",
        "the replies to all four AddJobFlowSteps are lost",
        lost("AddJobFlowSteps", "after", times=4),
        quick=True,
    ),
    # F3: TerminateJobFlows' reply is lost
    Case("F3", "before", "TerminateJobFlows is lost on its way", lost("TerminateJobFlows", "before")),
    Case(
        "F3",
        "during",
        "the client of TerminateJobFlows is cut off, it takes effect a second later",
        lost("TerminateJobFlows", "during", seconds=1.0),
    ),
    Case("F3", "after", "TerminateJobFlows' reply is lost", lost("TerminateJobFlows", "after"), quick=True),
)
