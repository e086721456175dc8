"""The process that decodes gives what decoding here gives, and may do nothing else when a photo has taken it over."""

from __future__ import annotations

import io
import os
import re
import resource
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from fruits.base import schemas
from fruits.images import decoding, loading, sandbox
from fruits.images.decoding import clean
from fruits.images.fetching import Source, local_etag
from fruits.images.rejects import ImageRejected, RejectCode
from fruits.images.sandbox import Decoder
from fruits.notebook.workbench import Workbench
from PIL import Image

from tests.spark_jobs import hostile, pictures
from tests.spark_jobs.pictures import encoded, fruit

linux = pytest.mark.skipif(sys.platform != "linux", reason="the filter of system calls is Linux's")


def outcome(decode, data):
    try:
        return decode(data)
    except ImageRejected as rejected:
        return rejected.code, rejected.detail


@pytest.mark.filterwarnings("ignore")
def test_its_pixels_and_rejects_are_those_of_decoding_here():
    originals = hostile.originals()
    photos = originals + [hostile.mutation(originals[seed % len(originals)], seed) for seed in range(300)]
    photos += [data for data, _ in pictures.broken().values()] + list(pictures.with_metadata().values())
    with Decoder() as decoder:
        assert [outcome(decoder.clean, data) for data in photos] == [outcome(clean, data) for data in photos]


def test_its_limits_are_those_of_the_job():
    with Decoder(max_pixels=100) as decoder:
        assert outcome(decoder.clean, encoded(fruit(1)))[0] == RejectCode.TOO_MANY_PIXELS
    with Decoder(max_bytes=100) as decoder:
        assert outcome(decoder.clean, encoded(fruit(1)))[0] == RejectCode.TOO_MANY_BYTES


ATTACKS = {
    "reads a file": "open('/proc/self/environ')",
    "reads a file by another call": "os.listdir('/')",
    "opens a socket": "socket.socket()",
    "opens a socket with system call numbers of 32 bits": "ctypes.CDLL(None).syscall(0x40000000 + 41, 2, 1, 0)",
    "forks": "os.fork()",
    "runs a program": "os.execv('/bin/true', ['true'])",
    "attaches to the worker": "ctypes.CDLL(None).ptrace(16, 0, 0, 0)",
    "signals another process": "os.kill(os.getppid(), 0)",
    "raises its own limits": "resource.setrlimit(resource.RLIMIT_NOFILE, (1, 1))",
    "makes memory a file": "os.memfd_create('x')",
}


def run_confined(attack: str) -> subprocess.CompletedProcess[str]:
    program = (
        "import ctypes, os, resource, socket, sys; from fruits.images.sandbox import confine\n"
        f"confine(); {attack}; sys.stdout.write('reached'); sys.stdout.flush()"
    )
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@linux
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_confined_process_that_asks_for_more_is_ended(attack):
    done = run_confined(attack)
    assert (done.returncode, done.stdout) == (-signal.SIGSYS, ""), done.stderr


def test_a_confined_process_takes_no_more_memory_than_its_limit():
    done = run_confined(f"bytearray({sandbox.MAX_MEMORY_BYTES})")
    assert "MemoryError" in done.stderr
    assert done.stdout == ""


@linux
def test_it_has_no_credentials_no_open_files_and_one_thread(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret of the node")
    kept = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(kept, True)
    with Decoder() as decoder:
        decoder.clean(encoded(fruit(1)))
        process = Path(f"/proc/{decoder._process.pid}")
        assert b"AWS" not in (process / "environ").read_bytes()
        assert sorted(path.name for path in (process / "fd").iterdir()) == ["0", "1", "2"]
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
        assert [status[name].strip() for name in ("Threads", "NoNewPrivs", "Seccomp")] == ["1", "1", "2"]
        assert resource.prlimit(decoder._process.pid, resource.RLIMIT_NOFILE) == (0, 0)
        assert resource.prlimit(decoder._process.pid, resource.RLIMIT_AS)[1] == sandbox.MAX_MEMORY_BYTES
    os.close(kept)


@pytest.mark.parametrize("end", [signal.SIGSEGV, signal.SIGSYS, signal.SIGPROF], ids=lambda end: end.name)
def test_a_photo_that_ends_it_is_a_reject_and_the_next_one_is_loaded(end):
    with Decoder() as decoder:
        decoder.clean(encoded(fruit(1)))
        decoder._process.send_signal(end)
        code, detail = outcome(decoder.clean, encoded(fruit(2)))
        assert (code, end.name in detail) == (RejectCode.CORRUPT, True)
        assert decoder.clean(encoded(fruit(2))) == clean(encoded(fruit(2)))


def test_no_photo_is_rejected_because_the_system_has_killed_it():
    with Decoder() as decoder:
        decoder.clean(encoded(fruit(1)))
        decoder._process.kill()
        with pytest.raises(MemoryError, match="out of memory"):
            decoder.clean(encoded(fruit(2)))


NONSENSE = {
    "a picture of gigabytes": struct.pack("<?III", False, 2**31, 2**31, 0),
    "no picture": struct.pack("<?III", False, 0, 5, 0),
    "pixels that are missing": struct.pack("<?III", False, 100, 100, 0) + b"few",
    "a code of its own": struct.pack("<?III", False, 0, 0, 3) + b"own",
    "a text of gigabytes": struct.pack("<?III", False, 0, 0, 2**31),
    "half a header": b"\0\0",
}


@pytest.mark.parametrize("reply", NONSENSE.values(), ids=NONSENSE)
def test_what_it_replies_once_it_is_taken_over_is_checked(reply):
    program = f"import sys; sys.stdin.buffer.read(9); sys.stdout.buffer.write({reply!r})"
    with Decoder() as decoder:
        decoder._process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        code, detail = outcome(decoder.clean, b"a photo")
    assert (code, "the decoder failed" in detail) == (RejectCode.CORRUPT, True)


def test_one_that_does_not_start_is_an_error_and_no_reject():
    decoder = Decoder()
    decoder._arguments = ["no number", "1"]
    with pytest.raises(RuntimeError, match="does not start"):
        decoder.clean(b"a photo")


def test_load_images_decodes_nowhere_else(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(encoded(fruit(1)))
    listed = {"source_key": ["a.jpg"], "etag": [local_etag(tmp_path / "a.jpg")]}
    listed["size_bytes"] = [(tmp_path / "a.jpg").stat().st_size]
    batch = pa.RecordBatch.from_pydict(listed)
    expected = clean((tmp_path / "a.jpg").read_bytes()).pixels

    def decode(*_):
        raise AssertionError("decoded in the worker, which has the role of the node")

    monkeypatch.setattr(decoding, "decode", decode)
    mapper = loading.load_mapper(Source(None, str(tmp_path), None), "", decoding.MAX_PIXELS)
    [loaded] = mapper([batch])
    assert loaded.schema == schemas.LOAD_RESULT
    assert loaded["pixels"].to_pylist() == [expected]


def test_a_notebook_decodes_nowhere_else(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(encoded(fruit(1)))
    expected = Image.open(io.BytesIO(clean((tmp_path / "a.jpg").read_bytes()).pixels)).tobytes()

    def decode(*_):
        raise AssertionError("decoded in the notebook, which has a role or is its user")

    monkeypatch.setattr(decoding, "decode", decode)
    bench = Workbench(str(tmp_path), str(tmp_path / "lake"))
    with bench.decoder:
        assert bench.picture_of("a.jpg").tobytes() == expected


def test_the_notebooks_cells_decode_in_the_process_what_they_did_not_make_themselves():
    cells = (Path(__file__).parents[3] / "notebooks" / "fruits_pipeline.md").read_text()
    assert re.findall(r"[\w.]*\.clean\(\w+", cells) == [
        "decoding.clean(from_a_phone",
        "bench.decoder.clean(photo",
        "bench.decoder.clean(mine",
    ]
    assert not re.search(r"Image\.open\(io\.BytesIO\((mine|held_out_photo|bench\.read_photo)", cells)
