"""Child processes that end with the demo, however the demo ends."""

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

MARKER = "DEMO_FOLDER"
"""Environment variable of every process of a demo, by which the next demo finds the leftovers of a killed one."""

STOP_SECONDS = 15


class ProcessEnded(Exception):
    """A process that should serve has ended."""


class Processes:
    """The processes of a demo, each in a session of its own, so that Ctrl-C reaches only the demo itself.

    Their logs go to `logs/<name>.log` in the demo's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, argv: Sequence[str | Path], env: Mapping[str, str]) -> None:
        """Start a process in the background."""
        self._running[name] = self._popen(name, argv, env)

    def run(self, name: str, argv: Sequence[str | Path], env: Mapping[str, str]) -> None:
        """Run a process to its end.

        Raises:
            ProcessEnded: It failed; the message has the end of its log.
        """
        process = self._popen(name, argv, env)
        self._running[name] = process
        if process.wait():
            raise ProcessEnded(f"{name} failed:\n{self.log_tail(name)}")
        del self._running[name]

    def check(self) -> None:
        """Raise ProcessEnded, with the end of its log, when a background process has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise ProcessEnded(f"{name} ended with {process.returncode}:\n{self.log_tail(name)}")

    def log_path(self, name: str) -> Path:
        """Return the file of the process's stdout and stderr."""
        return self._folder / "logs" / f"{name}.log"

    def log_tail(self, name: str, lines: int = 15) -> str:
        """Return the last lines that the process wrote."""
        return "\n".join(self.log_path(name).read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """End every process, the last started first, and the processes that they left behind."""
        for process in reversed(self._running.values()):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        end_leftovers(self._folder)
        for process in self._running.values():
            process.wait()
        self._running.clear()

    def _popen(self, name: str, argv: Sequence[str | Path], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        log = self.log_path(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            return subprocess.Popen(
                [str(part) for part in argv],
                env={**env, MARKER: str(self._folder)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def end_leftovers(folder: Path) -> int:
    """End every process that a demo in `folder` started, also a killed demo; return how many."""
    marked = list(_marked(str(folder.resolve())))
    for process in marked:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _gone, alive = psutil.wait_procs(marked, timeout=STOP_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=STOP_SECONDS)
    return len(marked)


def _marked(folder: str) -> list[psutil.Process]:
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARKER) == folder:
                processes.append(process)
    return processes
