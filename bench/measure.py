"""One run of one contestant: its answer, its wall time, the memory of its processes."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

SAMPLE_S = 0.5
"""Between two looks at the process tree: often enough for seconds-long peaks, too seldom to cost anything."""

TIMEOUT_S = 3600
STAGES = ("load_images", "featurize", "reduce_pca", "publish")


class RunFailed(Exception):
    """A contestant ended with an error, or did not answer."""


@dataclass
class Memory:
    """Peaks of resident memory, MB."""

    total: float = 0.0  # all processes together (shared pages counted in each)
    driver: float = 0.0  # Spark's JVM and the Python beside it: in local mode the executor's JVM is the same process
    worker: float = 0.0  # the largest single Python worker of Spark


@dataclass(frozen=True)
class Measured:
    """What one run gave.

    `cpu_s` are processor seconds up to the last sample of each process: of `driver` (Spark's JVMs and the Python beside
    each), `worker` (its Python workers) and `other`.
    """

    answer: dict[str, Any]  # the JSON object of its last line of output, empty if it gave none
    wall_s: float  # from the start of the process to its end
    memory: Memory  # its peaks
    cpu_s: dict[str, float] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """Return the figures for the journal; `seconds` only if the contestant has counted them."""
        figures = {"wall_s": round(self.wall_s, 3), "memory_mb": round(self.memory.total)}
        return {"seconds": self.answer["seconds"], **figures} if "seconds" in self.answer else figures


def run(command: Sequence[object], log: Path, env: Mapping[str, str], cwd: Path) -> Measured:
    """Run one contestant to its end, with its output in `log`.

    Raises:
        RunFailed: It ended with an error.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
        sampler = Sampler(process.pid)
        sampler.start()
        try:
            stdout, _ = process.communicate(timeout=TIMEOUT_S)
        finally:
            sampler.stop()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    wall = time.perf_counter() - started
    with log.open("ab") as output:
        output.write(stdout)
    if process.returncode:
        tail = log.read_text(errors="replace")[-2000:]
        raise RunFailed(f"{' '.join(map(str, command[:4]))}... ended with {process.returncode}; {log}:\n{tail}")
    return Measured(last_json(stdout.decode(errors="replace")), wall, sampler.memory, sampler.cpu_s)


def last_json(output: str) -> dict[str, Any]:
    """Return the last line that is a JSON object."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            answer: dict[str, Any] = json.loads(line)
            return answer
    return {}


class Sampler(threading.Thread):
    """Looks at a process tree every half second and keeps the peaks, and what processor time each process had."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.memory = Memory()
        self._root = psutil.Process(pid)
        self._commands: dict[int, str] = {}
        self._cpu_s: dict[int, float] = {}
        self._roles: dict[int, str] = {}
        self._over = threading.Event()

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        self.join()

    @property
    def cpu_s(self) -> dict[str, float]:
        """Processor seconds by role, of all processes that were seen."""
        seconds = dict.fromkeys(("driver", "worker", "other"), 0.0)
        for pid, role in self._roles.items():
            seconds[role] += self._cpu_s.get(pid, 0.0)
        return seconds

    def run(self) -> None:
        """Sample until stopped."""
        while not self._over.wait(SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return
        sizes: dict[int, float] = {}
        parents: dict[int, int] = {}
        for process in processes:
            try:
                sizes[process.pid] = process.memory_info().rss / 1e6
                times = process.cpu_times()
                self._cpu_s[process.pid] = times.user + times.system
                parents[process.pid] = process.ppid()
                # A process that has just been forked still shows its parent's command line.
                known = self._commands.get(process.pid, "")
                if "java" not in known and "pyspark.daemon" not in known:
                    self._commands[process.pid] = " ".join(process.cmdline())
            except psutil.Error:
                continue
        self._keep(sizes, parents)

    def _keep(self, sizes: Mapping[int, float], parents: Mapping[int, int]) -> None:
        memory, commands = self.memory, self._commands
        memory.total = max(memory.total, sum(sizes.values()))
        java = [pid for pid in sizes if is_java(commands.get(pid, ""))]
        roles = {pid: role_of(commands.get(pid, ""), parents.get(pid) in java) for pid in sizes}
        self._roles |= roles
        driver = sum(sizes[pid] for pid in sizes if roles[pid] == "driver")
        worker = max((sizes[pid] for pid in sizes if roles[pid] == "worker"), default=0.0)
        memory.driver, memory.worker = max(memory.driver, driver), max(memory.worker, worker)


def role_of(command: str, below_java: bool) -> str:
    """Return the role of a process by its command line: `driver`, `worker` or `other`."""
    if is_java(command):
        # Below another one it is that JVM itself, about to start something, and shares its memory.
        return "other" if below_java else "driver"
    if "pyspark.daemon" in command:
        return "worker"
    return "driver" if below_java else "other"


def is_java(command: str) -> bool:
    """Tell whether a command line is a JVM's."""
    return command.split(" ", 1)[0].endswith("java")


def load_average() -> float:
    """Return the machine's load over the last minute."""
    return round(os.getloadavg()[0], 2)
