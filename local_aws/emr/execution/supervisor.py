"""Run a command and leave none of its processes behind, whichever process dies first.

`local_aws` starts this program for each step, by its path, with the standard library and psutil only:

    python supervisor.py KILL_SECONDS PROGRAM [ARGUMENT...]

Standard input is a pipe that only `local_aws` holds. When it closes (a cancel, a termination, or the death of
`local_aws` by any signal) the command gets SIGTERM and, after KILL_SECONDS, SIGKILL; the byte `K` skips the wait.
The supervisor is a child subreaper, so that processes which left the command's process group or session (the
daemon of Spark's Python workers does) come back to it when their parent dies, and it ends only when none is left.

Exit status: the command's, 128 + n when signal n ended it, 127 when it could not be started (the reason is on
standard error).
"""

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
KILL_AT_ONCE = b"K"


def main(argv: list[str]) -> int:
    """Run `argv[1:]` and return the exit status."""
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
    """Call Linux's prctl. Elsewhere process groups and psutil must suffice."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _die_with_supervisor() -> None:
    """Have the kernel kill the command when the supervisor is killed; runs in the child before the command."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait(child: subprocess.Popen[bytes], control: int) -> bool:
    """Wait for the child or for the control pipe; return whether the child ended by itself."""
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
    """Send SIGTERM to the command's group and give it time to end, unless the control pipe says `K`."""
    if os.read(sys.stdin.fileno(), 1) == KILL_AT_ONCE:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + kill_seconds
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


def _kill_descendants() -> None:
    """Send SIGKILL to every descendant until there is none."""
    me = psutil.Process()
    while True:
        left = [child for child in me.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
        if not left:
            return
        for child in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(left, timeout=1.0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
