"""Decoding of strangers' photos in a process that may do nothing else (ADR 23).

The process has no credentials, no environment and no open file but two pipes, and its kernel ends it when it asks for
a file, a socket or another process. Raw pixels come back, and the caller encodes them: no bytes of a decoder that a
photo has taken over reach a table or another decoder.
"""

import contextlib
import ctypes
import io
import os
import platform
import resource
import signal
import struct
import subprocess
import sys
from typing import Any

from PIL import Image

from fruits.images import decoding
from fruits.images.rejects import ImageRejected, RejectCode

MAX_MEMORY_BYTES = 2 * 1024**3  # address space: a photo takes 450 MB at most, interpreter and libraries 250 MB
MAX_CPU_SECONDS = 60  # for a photo; the slowest one takes some 3 s
_LENGTH = struct.Struct("<Q")
_MAX_TEXT_BYTES = 1000
_REPLY = struct.Struct("<?III")  # had metadata, width, height, bytes of the text that says why there are no pixels
# Memory, reads and writes of the two pipes, signals and the timer: read, write, mmap, mprotect, munmap, brk,
# rt_sigaction, rt_sigprocmask, rt_sigreturn, mremap, madvise, setitimer, exit, sysinfo (for glibc's qsort), futex,
# exit_group; and what a C library may ask another kernel or clock for: sched_yield, clock_gettime, getrandom. By the
# numbers of Linux in asm/unistd_64.h and asm-generic/unistd.h.
_SYSTEM_CALLS = {
    "x86_64": (0xC000003E, (0, 1, 9, 10, 11, 12, 13, 14, 15, 25, 28, 38, 60, 99, 202, 231, 24, 228, 318)),
    "aarch64": (0xC00000B7, (63, 64, 222, 226, 215, 214, 134, 135, 139, 216, 233, 103, 93, 179, 98, 94, 124, 113, 278)),
}


class Decoder(contextlib.AbstractContextManager["Decoder"]):
    """Decodes photos, in a process that starts with the first photo and ends with the `with` block."""

    def __init__(self, max_pixels: int = decoding.MAX_PIXELS, max_bytes: int = decoding.MAX_BYTES) -> None:
        self._arguments = [str(max_pixels), str(max_bytes)]
        self._process: Any = None  # subprocess.Popen

    def __exit__(self, *_: object) -> None:
        self._end()

    def clean(self, data: bytes) -> decoding.CleanImage:
        """Decode as `decoding.clean` does; a photo that ends the process, or makes it reply nonsense, is corrupt.

        Raises:
            ImageRejected: As of `decoding.clean`.
            MemoryError: As of `decoding.clean`, or the process was killed from outside.
            RuntimeError: The process does not start; its reason is on stderr.
        """
        self._process = self._process or self._start()
        try:
            self._process.stdin.write(_LENGTH.pack(len(data)) + data)
            self._process.stdin.flush()
            rgb, had_metadata = _read_reply(self._process.stdout)
        except (OSError, EOFError, ValueError) as error:
            status = self._end()
            if status == -signal.SIGKILL and not isinstance(error, ValueError):
                raise MemoryError("the decoder was killed; the node may be out of memory") from error
            reason = signal.Signals(-status).name if status < 0 else f"status {status}"
            raise ImageRejected(RejectCode.CORRUPT, f"the decoder failed on this photo ({reason})") from error
        return decoding.encode(rgb, had_metadata, data)

    def _start(self) -> Any:
        command = [sys.executable, "-P", "-s", "-W", "ignore", "-m", "fruits.images.sandbox", *self._arguments]
        # One thread: the filter of system calls holds for the thread that sets it.
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
        process: Any = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        if process.stdout.read(1) != b"+":
            raise RuntimeError(f"the decoder does not start (status {process.wait()}): its reason is on stderr")
        return process

    def _end(self) -> int:
        """End the process; return its exit status."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.kill()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # what the process has not read
            process.stdin.close()
        return int(process.wait())


def _read_reply(out: Any) -> tuple[Image.Image, bool]:
    """Read the reply of a process that a photo may have taken over: EOFError where it ends, ValueError for nonsense."""

    def read(size: int) -> bytes:
        if len(content := out.read(size)) < size:
            raise EOFError
        return bytes(content)

    had_metadata, width, height, length = _REPLY.unpack(read(_REPLY.size))
    if length > _MAX_TEXT_BYTES:
        raise ValueError(f"a text of {length} bytes")
    if length:
        code, _, detail = read(length).decode(errors="replace").partition("\n")
        raise ImageRejected(RejectCode(code), detail) if code else MemoryError(detail)
    if not 0 < min(width, height) <= 2 * decoding.STORED_PX or max(width, height) > decoding.MAX_SIDE_PX:
        raise ValueError(f"{width} x {height} px")
    return Image.frombytes("RGB", (width, height), read(3 * width * height)), had_metadata


def confine() -> None:
    """Take from this process, for good, whatever decoding does not need.

    Raises:
        OSError: The kernel refuses the filter, or the filter does not know the system calls of this machine.
    """
    for limit in ("NOFILE", "NPROC", "FSIZE", "CORE"):
        resource.setrlimit(getattr(resource, f"RLIMIT_{limit}"), (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    if sys.platform != "linux":
        return  # a developer's machine: the limits alone
    if platform.machine() not in _SYSTEM_CALLS:
        raise OSError(f"decoding runs on {' and '.join(_SYSTEM_CALLS)}: add the system calls of {platform.machine()}")
    machine, calls = _SYSTEM_CALLS[platform.machine()]
    # BPF of linux/filter.h as (code, true, false, operand): compare the machine, then the call with each allowed one
    jumps = [(0x15, len(calls) - place, 0, call) for place, call in enumerate(calls)]
    program = [(0x20, 0, 0, 4), (0x15, 1, 0, machine), (0x06, 0, 0, 0x80000000), (0x20, 0, 0, 0), *jumps]
    program += [(0x06, 0, 0, 0x80000000), (0x06, 0, 0, 0x7FFF0000)]  # end the process; allow
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
    filter_ = struct.pack("HP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    # PR_SET_NO_NEW_PRIVS, then PR_SET_SECCOMP with SECCOMP_MODE_FILTER
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filter_):
        raise OSError(ctypes.get_errno(), "the kernel refuses the filter of system calls")


def _warm_up() -> None:
    """Decode each format once: what Pillow and numpy import at first use cannot be opened afterwards."""
    for kind in ("JPEG", "PNG", "WEBP"):
        out = io.BytesIO()
        Image.new("RGBA" if kind != "JPEG" else "RGB", (900, 900)).save(out, kind)
        decoding.decode(out.getvalue(), decoding.MAX_PIXELS, decoding.MAX_BYTES)


def main() -> None:
    """Decode what arrives on stdin until it ends."""
    max_pixels, max_bytes = int(sys.argv[1]), int(sys.argv[2])
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _warm_up()
    confine()
    sink.write(b"+")
    sink.flush()
    while header := source.read(_LENGTH.size):
        data = source.read(*_LENGTH.unpack(header))
        signal.setitimer(signal.ITIMER_PROF, MAX_CPU_SECONDS)
        try:
            rgb, had_metadata = decoding.decode(data, max_pixels, max_bytes)
            reply = _REPLY.pack(had_metadata, rgb.width, rgb.height, 0) + rgb.tobytes()
        except (ImageRejected, MemoryError) as error:
            text = f"{error.code}\n{error.detail}" if isinstance(error, ImageRejected) else f"\n{error}"
            line = text.encode(errors="replace")[:_MAX_TEXT_BYTES]
            reply = _REPLY.pack(False, 0, 0, len(line)) + line
        signal.setitimer(signal.ITIMER_PROF, 0)
        sink.write(reply)
        sink.flush()


if __name__ == "__main__":
    main()
