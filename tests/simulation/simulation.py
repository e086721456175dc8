"""Plays a history against the control plane, and checks the rules after each night."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import Any

from tests.emulator.armed import Fault
from tests.simulation import clocks, product, rules
from tests.simulation.cloud import LAKE, RAW, Cloud, describe_request, pretty
from tests.simulation.guards import without
from tests.simulation.history import History, Night
from tests.simulation.loop import Actor, Loop
from tests.simulation.network import Network
from tests.simulation.rules import ERASURE, PIPELINE, SimulatedDeployment, photo_body, photo_key
from tests.simulation.scheduler import Airflow, DagRun, Task
from tests.simulation.steps import ScriptedStep

START = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
SWEEP_S = 900.0
LONGEST_NIGHT_S = 20 * 3600.0
RECOVERY_S = 6 * 3600.0
"""When AWS works again, whatever was armed."""


@dataclass
class Outcome:
    """What a history came to.

    Attributes:
        broken: The broken rules.
        digest: SHA-256 of the events.
        events: The events, one a line.
        reached: How often each kind struck at each moment, and in how many nights each pair of kinds did.
        states: How the runs ended.
    """

    seed: int
    broken: list[str] = field(default_factory=list)
    digest: str = ""
    events: list[str] = field(default_factory=list)
    reached: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    nights: int = 0


class World:
    """What is made once in a process: the emulator, and the control plane with its clocks replaced."""

    def __init__(self) -> None:
        product.set_environment(RAW, LAKE)
        product.install()
        self.cloud = Cloud()
        self.network = Network(self.cloud.served, self.cloud.plain, self._sent)
        self.network.install()
        ScriptedStep.network = self.network
        clocks.set_loop(Loop(START), 0)
        self.dags = product.load_dags(self.cloud.create())
        clocks.install()
        self.sent: Callable[[Actor, Any], None] = lambda _actor, _environ: None

    def _sent(self, actor: Actor, environ: Any) -> None:
        self.sent(actor, environ)


@cache
def world() -> World:
    """Return the world of this process."""
    return World()


def play(history: History, log: Callable[[str], None] | None = None, guard: str | None = None) -> Outcome:
    """Play a history from the first day on; the same history gives the same events to the byte.

    Args:
        history: What happens.
        log: Takes each event.
        guard: A guard of the product to take out.
    """
    with without(guard, world().dags):
        return _Play(world(), history, log).play()


class _Play:
    def __init__(self, made: World, history: History, log: Callable[[str], None] | None) -> None:
        self.world, self.history, self._print = made, history, log
        self.outcome = Outcome(history.seed)
        self._sha = hashlib.sha256()
        self.loop = Loop(START)
        clocks.set_loop(self.loop, history.seed)
        made.cloud.empty()
        made.sent = self._sent
        self.airflow = Airflow(self.loop, made.dags, Random(f"airflow {history.seed}"), self._log)
        self.airflow.on_start, self.airflow.on_end = self._started, self._ended
        self.photos: dict[str, bytes] = {}
        self.erasures: list[tuple[DagRun, str]] = []
        self.runs: list[DagRun] = []
        self.deployment = SimulatedDeployment(made.cloud, self.photos)
        self._kills: list[dict[str, Any]] = []
        self._faults: list[Fault] = []
        self._sweeps = 0
        self._disturbed: set[str] = set()

    def _log(self, text: str) -> None:
        line = f"{self.loop.now - START:12.3f} {text}"
        self._sha.update(line.encode())
        self.outcome.events.append(line)
        if self._print:
            self._print(line)

    def _sent(self, actor: Actor, environ: Any) -> None:
        self._log(f"  {actor.name} sends {describe_request(environ)}")

    def play(self) -> Outcome:
        try:
            for number, night in enumerate(self.history.nights):
                self._play_night(number, night)
                if self.outcome.broken:
                    break
            if not self.outcome.broken:
                self._play_quiet_night()
        finally:
            self.loop.close()
        self.outcome.digest = self._sha.hexdigest()
        return self.outcome

    # nights

    def _play_night(self, number: int, night: Night) -> None:
        self.loop.now = START + number * 86_400.0
        self.outcome.nights += 1
        for photo, pixel in night.put.items():
            self._put(photo_key(photo), photo_body(photo, pixel))
        self._disturbed = {"removed"} if night.removed else set()
        for photo in night.removed:
            self._remove(photo_key(photo))
        runs = [self._trigger(PIPELINE, f"night-{number}", **night.conf)]
        self._kills = [event for event in night.events if event["do"] == "kill_attempt"]
        for event in night.events:
            self.loop.spawn(event["do"], lambda event=event: self._happen(number, event, runs), event["at"])  # type: ignore[misc]
        self._work_until_quiet(runs)
        for pair in itertools.combinations(sorted(self._disturbed), 2):
            self.outcome.reached[" + ".join(pair)] += 1
        self._check(runs)

    def _happen(self, number: int, event: dict[str, Any], runs: list[DagRun]) -> None:
        airflow, do, run = self.airflow, event["do"], runs[0]
        if do == "kill_attempt":
            return  # see `_started`
        self._log(f"event {pretty(event)}")
        if do != "fault":
            self._disturbed.add(do)
            self.outcome.reached[do] += 1
        if do == "fault":
            fault = self.world.cloud.arm(event["spec"])
            self._faults.append(fault)
            self.loop.sleep(event["for_s"])
            self._disarm(fault)
        elif do == "run":
            runs.append(self._trigger(PIPELINE, f"manual-{number}", **event["conf"]))
        elif do == "erase":
            key = photo_key(event["photo"])
            erasure = self._trigger(ERASURE, f"erasure-{number}", keys=[key], expected_photos=1)
            self.erasures.append((erasure, key))
            runs.append(erasure)
        elif do == "stop_airflow" and airflow.is_up:
            airflow.stop_all()
            self.loop.sleep(event["for_s"])
            airflow.start_all()
        elif do == "restart_triggerer" and airflow.is_up:
            airflow.restart_triggerer()
        elif do == "clear_task" and run.tasks[event["task"]].state is not None and airflow.is_up:
            airflow.clear(run, event["task"])
        elif do == "clear_failed" and run.state == "failed" and airflow.is_up:
            airflow.clear_failed(run)
        elif do == "mark_failed" and run.state == "running" and airflow.is_up:
            airflow.mark_failed(run)

    def _started(self, run: DagRun, task: Task, actor: Actor) -> None:
        for kill in self._kills:
            if kill["task"] == task.task_id and run.dag.dag_id == PIPELINE:
                self._kills.remove(kill)
                self._disturbed.add("kill_attempt")
                self.outcome.reached[f"kill_attempt {kill['moment']}"] += 1
                self._log(f"will kill {run.key} {task.task_id} {kill['moment']} its request {kill['call']}")
                actor.kill_at = (kill["call"], kill["moment"])
                return

    def _ended(self, run: DagRun, task: Task, outcome: str) -> None:
        if task.task_id != "terminate_cluster" or outcome != "success":
            return
        name = f"{self.deployment.cluster_prefix}{run.dag.dag_id}/{run.run_id}"
        for cluster in self.world.cloud.live_clusters(name):
            if cluster["Name"] == name and cluster["Status"]["State"] != "TERMINATING":
                self.outcome.broken.append(f"terminated_is_gone: {run.run_id} left {cluster['Id']} alive")

    def _disarm(self, fault: Fault) -> None:
        if fault in self._faults:
            self._faults.remove(fault)
            if fault.struck:
                self.outcome.reached[f"{fault.kind} {fault.when}"] += fault.struck
                self._disturbed.add(fault.kind)
            self.world.cloud.faults.disarm(fault.id)

    def _work_until_quiet(self, runs: list[DagRun]) -> None:
        """Let the night and the janitor work until no run, cluster or lock is left."""
        began = self.loop.now
        next_sweep = began + self.airflow.draw.uniform(0, SWEEP_S)
        while self.loop.now < began + LONGEST_NIGHT_S:
            self.loop.run_until(next_sweep)
            next_sweep += SWEEP_S
            if self.loop.now > began + RECOVERY_S:
                for fault in list(self._faults):
                    self._disarm(fault)
            is_over = all(run.state in ("success", "failed") for run in runs)
            is_left = self.world.cloud.live_clusters(self.deployment.cluster_prefix) or self._locks()
            is_later = self.loop.now > began + 3 * 3600.0 + 1
            if is_over and not is_left and is_later:
                break
            if self.airflow.is_up and is_left:
                self._sweep()
        else:
            states = ", ".join(f"{run.run_id} {run.state}" for run in runs)
            self.outcome.broken.append(f"the_night_ends: {states}, locks {self._locks()}")
        for fault in list(self._faults):
            self._disarm(fault)
        for run in runs:
            self.outcome.states[f"{run.dag.dag_id} {run.state}"] += 1

    def _sweep(self) -> None:
        last = self.airflow.runs.get(("cluster_janitor", f"sweep-{self._sweeps}"))
        if last is None or last.state in ("success", "failed"):
            self._sweeps += 1
            self.airflow.trigger("cluster_janitor", f"sweep-{self._sweeps}")

    def _locks(self) -> list[str]:
        return self.world.cloud.keys(LAKE, "locks/")

    def _play_quiet_night(self) -> None:
        """Let a night without faults follow: it publishes, whatever was before."""
        self.outcome.nights += 1
        self.loop.now += 86_400.0
        self._disturbed = set()
        run = self._trigger(PIPELINE, "quiet", force=True)
        self._work_until_quiet([run])
        if run.state != "success":
            errors = [f"{task.task_id}: {task.error}" for task in run.tasks.values() if task.error]
            self.outcome.broken.append(f"the_next_night_is_green: {'; '.join(errors)}")
        self._check([run])

    def _check(self, runs: list[DagRun]) -> None:
        nightly = [run for run in runs if run.dag.dag_id == PIPELINE and "limit" not in run.conf]
        ended = [run for run in nightly if run.state in ("success", "failed")]
        self.runs += ended
        records = {run.run_id: self.deployment.record(run.run_id) for run in self.runs}
        publications = [run.ended_at for run in self.runs if (records[run.run_id] or {}).get("state") == "succeeded"]
        # An erasure takes rows from what is published, until the next publication.
        is_erased_after = any(erasure.ended_at > max(publications, default=0.0) for erasure, _ in self.erasures)
        last = max(ended, key=lambda run: run.ended_at, default=None)
        for run in ended:
            broken = rules.check_run(self.deployment, run, is_last=run is last and not is_erased_after)
            record = records[run.run_id]
            if run.state == "failed" and record is not None:
                wrong = rules.unexplained(record["reason"], self._disturbed)
                broken += [f"a_red_run_says_why: {wrong}"] if wrong else []
            self.outcome.broken += [f"{run.run_id}: {sentence}" for sentence in broken]
        erased = [key for erasure, key in self.erasures if erasure.state == "success"]
        for key in erased:
            self.photos.pop(key, None)
        self.outcome.broken += rules.check_rest(self.deployment, erased)

    # the account

    def _trigger(self, dag_id: str, run_id: str, **conf: Any) -> DagRun:
        return self.airflow.trigger(dag_id, run_id, **conf)

    def _put(self, key: str, body: bytes) -> None:
        self.photos[key] = body
        self.world.cloud.client("s3").put_object(Bucket=RAW, Key=key, Body=body)

    def _remove(self, key: str) -> None:
        if self.photos.pop(key, None) is not None:
            self.world.cloud.client("s3").delete_object(Bucket=RAW, Key=key)
