"""Runs one command and leaves none of its processes behind, whatever happens to whom.

Started by `local_aws` for each step, by path, with nothing imported but the standard library and psutil:

    python supervisor.py KILL_SECONDS PROGRAM [ARGUMENT...]

Standard input is a pipe that only `local_aws` holds. When it closes (a cancel, a termination, or the death of
`local_aws` by any signal) the command gets SIGTERM and, after KILL_SECONDS, SIGKILL; the byte `K` skips the wait.
The supervisor is a child subreaper, so that processes which left the command's process group or session (the
daemon of Spark's Python workers does) come back to it when their parent dies, and it ends only when none is left.

Exit status: the command's, 128 + n when signal n ended it, 127 when it could not be started (the reason is on
standard error).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
PROGRAM_NOT_STARTED = 127


def main(argv: list[str]) -> int:
    """Runs `argv[1:]`; returns the exit status."""
    kill_seconds, command = float(argv[0]), argv[1:]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_supervisor
        )
    except OSError as error:
        reason = f"error={error.errno}, {error.strerror}"
        sys.stderr.write(f'Cannot run program "{command[0]}" (in directory "."): {reason}\n')
        return PROGRAM_NOT_STARTED
    if not _wait(child, sys.stdin.fileno()):
        _ask_to_end(child, kill_seconds)
    _kill_descendants()
    status = child.wait()
    return 128 - status if status < 0 else status


def _prctl(option: int, value: int) -> None:
    """Linux's prctl; elsewhere process groups and psutil have to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _die_with_supervisor() -> None:
    """In the child, before it becomes the command: if somebody kills the supervisor, the command goes too."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait(child: subprocess.Popen[bytes], control: int) -> bool:
    """Waits for the child or for the control pipe; True when the child ended by itself."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while child.poll() is None:
        ready, _, _ = select.select([control, reader], [], [], 1.0)
        if control in ready:
            return False
        if reader in ready:
            os.read(reader, 4096)
    return True


def _ask_to_end(child: subprocess.Popen[bytes], kill_seconds: float) -> None:
    """SIGTERM to the command's group, then time to end, unless the control pipe says `K`."""
    if os.read(sys.stdin.fileno(), 1) == b"K":
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + kill_seconds
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


def _kill_descendants() -> None:
    """SIGKILL to every descendant, again and again until there is none."""
    me = psutil.Process()
    while True:
        left = [one for one in me.children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]
        if not left:
            return
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(left, timeout=1.0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
