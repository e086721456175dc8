"""The process: what it listens on, how it ends, what it leaves."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

from tests import hostile_caller
from tests.aws_keys import FOR_SERVER
from tests.local_aws.server import REPOSITORY, Server, alive, command, until

# A step whose processes run away: a child in a session of its own, as the daemon of Spark's Python workers is, and
# one that ignores SIGTERM.
RUNAWAY = """
setsid sh -c 'echo $$ > {0}/session.pid; exec sleep 600' &
sh -c 'trap "" TERM; echo $$ > {0}/stubborn.pid; while :; do sleep 1; done' &
echo $$ > {0}/shell.pid
wait
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "state")
    server.make_account()
    yield server
    server.stop(signal.SIGKILL)


def get(server: Server, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path, headers=headers)
    reply = connection.getresponse()
    return reply.status, reply.read(), dict(reply.getheaders())


def start(state_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(state_dir, *options), cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False
    )


def runaway_step(server: Server, folder: Path) -> list[int]:
    """Start the runaway step and return the ids of its processes."""
    cluster_id = server.run_job_flow()
    server.add_step(cluster_id, "bash", "-c", RUNAWAY.format(folder))
    files = [folder / f"{name}.pid" for name in ("session", "stubborn", "shell")]
    until(lambda: all(path.exists() and path.read_text().strip() for path in files))
    pids = [int(path.read_text()) for path in files]
    assert all(alive(pid) for pid in pids)
    return pids


def test_health_answers_without_a_signature(aws: Server) -> None:
    status, body, _ = get(aws, "/_local_aws/health")
    assert status == 200
    assert json.loads(body) == {"status": "ok", "endpoint": aws.endpoint}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.10", "example.org"])
def test_it_refuses_to_listen_on_anything_but_loopback(tmp_path: Path, host: str) -> None:
    ended = start(tmp_path / "state", "--host", host)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "loopback only" in ended.stderr
    assert host in ended.stderr
    assert not (tmp_path / "state").exists()


def test_a_port_in_use_is_one_line_and_exit_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = start(tmp_path / "state", "--port", str(port))
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert str(port) in ended.stderr


def test_a_second_server_on_the_same_state_directory_says_who_is_in_its_way(aws: Server) -> None:
    ended = start(aws.state_dir)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert str(aws.process.pid) in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_running_steps_with_all_their_processes(server: Server, tmp_path: Path, number: int) -> None:
    pids = runaway_step(server, tmp_path)
    assert server.stop(number) == 0
    assert [pid for pid in pids if alive(pid)] == []


def test_steps_die_with_a_server_that_is_killed(server: Server, tmp_path: Path) -> None:
    pids = runaway_step(server, tmp_path)
    server.stop(signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in pids), seconds=10)


def test_a_command_dies_with_its_supervisor(server: Server, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    cluster_id = server.run_job_flow()
    step_id = server.add_step(cluster_id, "bash", "-c", f"echo $$ > {pid_file}; exec sleep 600")
    until(lambda: pid_file.exists() and pid_file.read_text().strip())
    command_process = psutil.Process(int(pid_file.read_text()))
    command_process.parent().kill()
    until(lambda: not alive(command_process.pid), seconds=5)
    server.step_reaches(cluster_id, step_id, "FAILED")


def test_a_stop_without_steps_is_quick_and_leaves_only_logs(tmp_path: Path) -> None:
    server = Server(tmp_path / "state", "--terminate-seconds", "60")
    server.make_account()
    server.run_job_flow()
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 5
    assert sorted(path.name for path in server.state_dir.iterdir()) == [".lock", "access.jsonl"]


def test_nothing_survives_a_restart(tmp_path: Path) -> None:
    first = Server(tmp_path / "state")
    first.make_bucket("raw")
    first.stop()
    second = Server(tmp_path / "state")
    assert second.client("s3").list_buckets()["Buckets"] == []
    second.stop()


@pytest.mark.parametrize("headers", [{"Host": "attacker.example:80"}, {"Origin": "https://attacker.example"}])
def test_what_a_web_page_could_send_is_refused(aws: Server, headers: dict[str, str]) -> None:
    assert get(aws, "/", **headers)[0] == 403


def test_no_reply_invites_web_pages(aws: Server) -> None:
    aws.client("emr").list_clusters()
    assert not [name for name in get(aws, "/")[2] if name.lower().startswith("access-control")]
    reply = aws.client("emr").list_clusters()["ResponseMetadata"]["HTTPHeaders"]
    assert not [name for name in reply if name.startswith("access-control")]


def test_an_operation_that_is_not_there_is_an_error_that_nobody_retries(aws: Server) -> None:
    with pytest.raises(ClientError) as caught:
        aws.client("emr").list_studios()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert "ListStudios" in str(caught.value)


def test_the_access_log_names_each_object_that_is_deleted_with_others(aws: Server, bucket: str) -> None:
    s3 = aws.client("s3")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket=bucket, Key="a/ü.jpg", Body=b"1")["VersionId"]
    objects = [{"Key": "a/ü.jpg", "VersionId": version}, {"Key": "b&c"}]
    done = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    assert len(done["Deleted"]) == 2, "the service has read the body too"
    last = aws.access_log()[-1]
    assert last["operation"] == "DeleteObjects"
    assert last["deleted"] == [{"key": "a/ü.jpg", "version_id": version}, {"key": "b&c", "version_id": None}]


def test_each_request_is_a_line_in_the_access_log(aws: Server, bucket: str) -> None:
    aws.client("s3").put_object(Bucket=bucket, Key="a b/ü.jpg", Body=b"12345")
    aws.client("s3").get_object(Bucket=bucket, Key="a b/ü.jpg")
    aws.client("sts").get_caller_identity()
    aws.client("emr").list_clusters()
    log = aws.access_log()
    put, got = [line for line in log if line["bucket"] == bucket and line["key"]]
    assert put.keys() >= {"time", "method", "host", "path", "query", "service", "operation", "status", "bytes"}
    assert (put["operation"], put["key"], put["status"], put["request_bytes"] >= 5) == (
        "PutObject",
        "a b/ü.jpg",
        200,
        True,
    )
    assert (got["service"], got["operation"], got["bytes"], got["region"]) == ("s3", "GetObject", 5, "eu-west-1")
    assert "Boto3" in got["user_agent"]
    assert [(line["service"], line["operation"]) for line in log[-2:]] == [
        ("sts", "GetCallerIdentity"),
        ("emr", "ListClusters"),
    ]


def test_nothing_of_a_hostile_caller_reaches_the_emulator_or_its_steps(tmp_path: Path) -> None:
    caller = hostile_caller.environment(tmp_path / "home")
    hostile = {
        name: caller[name] for name in caller if name not in ("PATH", "TERM", "JAVA_HOME") and "PYTHON" not in name
    }
    server = Server(tmp_path / "state", environment=FOR_SERVER | hostile)
    try:
        server.make_account()
        cluster_id = server.run_job_flow()
        step_id = server.add_step(cluster_id, "env")
        server.step_reaches(cluster_id, step_id, "COMPLETED")
        variables = server.step_log(cluster_id, step_id, "stdout").splitlines()
        assert "LC_ALL=C.UTF-8" in variables
        assert set(variables) & {f"{name}={value}" for name, value in hostile.items()} == set()
    finally:
        server.stop(signal.SIGKILL)
