"""The flow of a run, stage by stage: what happened, how long it took, where it stopped."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from fruits_airflow.emr.clusters import ENDED_STATES
from fruits_airflow.emr.stage_steps import STAGES
from fruits_airflow.report.facts import Facts
from fruits_airflow.report.units import count, number
from fruits_airflow.report.units import seconds as duration

NAMES = {
    "cluster_start": "Start cluster",
    "load_images": "Load images",
    "featurize": "Featurize",
    "reduce_pca": "Reduce (PCA)",
    "publish": "Publish",
    "terminate": "Terminate",
}


class StageState(StrEnum):
    """How a stage ended, in the words of the page."""

    DONE = "done"
    GOING = "going on"
    STOPPED = "stopped here"
    UNSEEN = "end not seen"
    NOT_RUN = "did not run"
    NOT_YET = "not yet"


@dataclass(frozen=True)
class Stage:
    """A stage of the flow; a number is None when it is not known."""

    name: str  # name on the page
    state: StageState  # how it ended
    seconds: float | None  # time of the step, including the start of Spark
    job_seconds: float | None  # time of the job itself
    share: float | None  # its part of the run's seconds, 0 to 1
    facts: list[str]  # what it did, in few words


def flow(facts: Facts) -> list[Stage]:
    """Return the stages in their order; those after a stage that stopped the run did not run, or not yet."""
    total = facts.number("seconds", "total")
    stages = []
    for stage, state in _states(facts).items():
        has_run = state not in (StageState.NOT_RUN, StageState.NOT_YET)
        seconds = facts.number("seconds", stage) or None if has_run else None  # a blank record has zero
        stages.append(
            Stage(
                name=NAMES[stage],
                state=state,
                seconds=seconds,
                job_seconds=number(facts.stage(stage).get("seconds")),
                share=seconds / total if seconds is not None and total else None,
                facts=list(_work(stage, facts)) if has_run else [],
            )
        )
    return stages


def rest_seconds(facts: Facts) -> float | None:
    """Return the run's seconds outside its stages (planning, upload, waiting between tasks); None if not known."""
    total = facts.number("seconds", "total")
    known = [seconds for stage in NAMES if (seconds := facts.number("seconds", stage)) is not None]
    return max(0.0, total - sum(known)) if total is not None and known else None


def _states(facts: Facts) -> dict[str, StageState]:
    """Return the state of each stage: a job that left its metrics is done, and the run stopped at the next one."""
    has_succeeded = facts.get("state") == "succeeded"
    had_cluster = facts.text("cluster", "id") is not None
    tasks = facts.mapping("tasks")  # of a run that goes on
    done = {job: has_succeeded or facts.has_metrics(job) or tasks.get(f"{job}.wait") == "success" for job in STAGES}
    done["publish"] = facts.get("published") is True
    is_ready = tasks.get("cluster_ready") == "success"
    done["cluster_start"] = is_ready or any(done.values()) or bool(facts.number("seconds", "cluster_start"))

    is_running = facts.get("state") == "running"
    first_undone, later = StageState.STOPPED, StageState.NOT_RUN
    if is_running:
        has_failed = "failed" in tasks.values()
        first_undone, later = StageState.STOPPED if has_failed else StageState.GOING, StageState.NOT_YET
    states = {}
    is_planned = is_running and tasks.get("plan", "success") == "success"
    is_reached = is_planned or had_cluster or any(done.values())
    for stage in ("cluster_start", *STAGES):
        states[stage] = StageState.DONE if done[stage] else first_undone if is_reached else later
        is_reached = is_reached and done[stage]
    has_ended = facts.text("cluster", "state") in ENDED_STATES or tasks.get("terminate_cluster") == "success"
    is_ending = tasks.get("terminate_cluster") == "running"
    end = StageState.GOING if is_ending else StageState.UNSEEN if had_cluster and not is_running else later
    states["terminate"] = StageState.DONE if has_ended else end
    return states


def _work(stage: str, facts: Facts) -> Iterator[str]:
    seconds, dims = number(facts.stage(stage).get("seconds")), facts.dims
    if (left := facts.number("left", stage)) is not None:
        yield f"about {duration(left)} left" if left else "takes longer than past runs"
    if stage == "cluster_start":
        yield from filter(None, [facts.text("cluster", "release")])
    elif stage == "load_images":
        if facts.has_metrics(stage):
            yield from _counted(facts.number("images", "loaded"), "loaded")
        yield from _counted(facts.number("images", "rejected") or None, "rejected")
        yield from _rate(facts.number("images", "new"), seconds)
    elif stage == "featurize":
        yield from _counted(facts.number("features", "rows") or None, f"vectors of {dims}")
        yield from _rate(facts.number("features", "computed"), seconds)
    elif stage == "reduce_pca":
        if facts.number("pca", "k"):
            yield f"{dims} → {count(facts.number('pca', 'k'))} numbers"
    elif stage == "publish":
        yield "published" if facts.get("published") is True else "nothing published"
    else:
        yield from filter(None, [facts.text("cluster", "state")])


def _counted(things: float | None, what: str) -> Iterator[str]:
    if things is not None:
        yield f"{count(things)} {what}"


def _rate(images: float | None, seconds: float | None) -> Iterator[str]:
    if images and seconds:
        yield f"{images / seconds:,.0f} images/s"
