"""What reaches the targets of the Makefile of the caller's environment and home folder."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests import hostile_caller
from tests.spark_jobs.conftest import ROOT
from tests.spark_jobs.pictures import orchard

SHOW = "--eval=show: ; @env -0"
AWKWARD = [
    "images/me~$x.jpg",
    "$(shell echo no) ${HOME} $$ $",
    "a b, c; d & e | f > g",
    "[1] {2} *.jpg ?",
    "'single' \"double\" `back` back\\slash \\",
    "#1 50% a=b :c !d",
    "été Яблоко 苹果",
    "-k",
]


def make(*arguments: str, caller: dict[str, str], **options) -> subprocess.CompletedProcess[str]:
    command = ["make", "-s", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, env=caller, capture_output=True, text=True, check=False, **options)


def shown(*arguments: str, caller: dict[str, str]) -> dict[str, str]:
    done = make(SHOW, "show", *arguments, caller=caller)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(variable.split("=", 1) for variable in done.stdout.rstrip("\0").split("\0"))


def test_of_a_hostile_caller_only_the_listed_variables_reach_a_target(tmp_path):
    caller = hostile_caller.environment(tmp_path / "home (é)") | {"IMAGES": "photos"}
    environ = shown(caller=caller)
    assert environ["IMAGES"] == "photos"
    same = {name for name, value in environ.items() if caller.get(name) == value}
    proxies = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"}
    assert same <= {"PATH", "HOME", "TERM", "JAVA_HOME", *proxies, "IMAGES"}
    constant = {"LC_ALL", "NO_PROXY", "no_proxy", "PYTHONUNBUFFERED", "UV_PYTHON_PREFERENCE"}
    of_make = {"PWD", "SHLVL", "_", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}
    assert environ.keys() <= same | constant | of_make


@pytest.mark.parametrize("flags", ["e", "ke"])
def test_the_callers_variables_never_replace_those_of_the_makefile(flags):
    done = make(SHOW, "show", caller={"PATH": os.environ["PATH"], "MAKEFLAGS": flags, "READY": "/nope"})
    assert done.returncode == 2
    assert "call it without -e" in done.stderr


@pytest.mark.parametrize(("goal", "more"), [("verify", set()), ("up", {"DOCKER_HOST"}), ("demo", None)])
def test_the_callers_aws_reaches_the_targets_on_an_account_only(goal, more):
    own = {"AWS_PROFILE": "team", "FRUITS_REGION": "eu-west-3"}
    caller = {"PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///run/docker.sock", **own}
    goals = f"--eval=MAKECMDGOALS := {goal}"  # before the Makefile is read
    environ = shown(goals, caller=caller)
    assert environ.keys() & {*own, "DOCKER_HOST"} == (set() if more is None else own.keys() | more)


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_loopback_goes_past_the_callers_proxy(name):
    environ = shown(caller={"PATH": os.environ["PATH"], "HTTP_PROXY": "http://proxy:8080", name: "intranet.example"})
    assert environ["HTTP_PROXY"] == "http://proxy:8080"
    assert environ["NO_PROXY"] == environ["no_proxy"]
    assert {"intranet.example", "127.0.0.1", "localhost", "::1"} <= set(environ["NO_PROXY"].split(","))


@pytest.mark.parametrize("value", AWKWARD)
@pytest.mark.parametrize("name", ["KEY", "IMAGES", "OUT", "WEIGHTS"])
def test_a_value_arrives_as_it_was_typed(name, value):
    caller = {"PATH": os.environ["PATH"], "HOME": "/root"}
    assert shown(f"{name}={value}", caller=caller)[name] == value
    assert shown(caller=caller | {name: value})[name] == value


@pytest.mark.parametrize(
    "name", ["FORCE", "KEEP", "PUBLISH", "UPLOAD", "YES", "DESTROY", "LEARN", "QUICK", "WAIT", "REPAIR"]
)
@pytest.mark.parametrize(
    ("value", "arrives"), [("0", ""), ("no", ""), ("False", ""), ("", ""), ("1", "1"), ("yes", "yes")]
)
def test_a_switch_is_off_when_its_value_says_so(name, value, arrives):
    caller = {"PATH": os.environ["PATH"], "HOME": "/root"}
    assert shown(f"{name}={value}", caller=caller)[name] == arrives
    assert shown(caller=caller | {name: value})[name] == arrives


def test_each_parameter_of_a_recipe_is_named_in_a_line_of_help_and_read_by_the_shell():
    text = (ROOT / "Makefile").read_text()
    offered = set(re.findall(r"[A-Z][A-Z_]*(?==)", "\n".join(re.findall(r"^[a-z-]+:.*## (.*)$", text, re.M))))
    assert set(re.findall(r"\$\$\{?([A-Z][A-Z_]*)", text)) - {"PWD", "HOME", "JAVA_HOME"} <= offered
    recipes = "\n".join(line for line in text.splitlines() if line.startswith("\t"))
    assert {name for name in offered if re.search(rf"(?<!\$\(if )\$\({name}\)", recipes)} == set()


@pytest.mark.parametrize("character", [":", '"', "\\", "\n"])
def test_a_clone_whose_path_cannot_work_is_refused_with_the_character(tmp_path, character):
    clone = tmp_path / f"my{character}clone"
    clone.mkdir()
    done = subprocess.run([ROOT / "dev" / "check_machine.sh"], cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    named = {"\n": "$'\\n'"}.get(character, character)
    assert re.search(rf"has the character \\?{re.escape(named)}, .*: move the clone", done.stderr)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_without_a_passwd_entry_is_refused():
    done = subprocess.run([ROOT / "dev" / "check_machine.sh"], user=54321, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("ERROR: user id 54321 has no entry in /etc/passwd")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("program", "prints", "said"),
    [
        ("awk", "4", "CLUSTER=yarn needs 5 GiB of free memory here, there are 4: end other programs, or leave it out."),
        ("uname", "Darwin", "CLUSTER=yarn needs Linux, where all of 127.0.0.0/8 is this machine: leave it out."),
    ],
)
@pytest.mark.parametrize("cluster", ["yarn", "local"])
def test_a_machine_that_cannot_run_yarn_is_refused_where_yarn_is_asked_for(tmp_path, program, prints, said, cluster):
    (tmp_path / program).write_text(f"#!/bin/sh\necho {prints}\n")
    (tmp_path / program).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CLUSTER": cluster}
    done = subprocess.run(
        [ROOT / "dev" / "check_machine.sh"], env=environment, capture_output=True, text=True, check=False
    )
    refusal = (1, f"ERROR: {said}\n")
    assert (done.returncode, done.stderr) == (refusal if cluster == "yarn" else (0, ""))


def test_an_unknown_kind_of_cluster_is_refused_by_the_targets_that_start_one():
    done = make("-n", "demo", "CLUSTER=hadoop", caller={"PATH": os.environ["PATH"]})
    assert "CLUSTER=hadoop is no kind of cluster: choose local or yarn" in done.stderr
    others = make("-n", "help", caller={"PATH": os.environ["PATH"], "CLUSTER": "production"})
    assert others.returncode == 0


@pytest.mark.parametrize(("cluster", "fetched"), [("yarn", True), ("local", False)])
def test_the_jars_of_hadoop_are_fetched_where_yarn_is_asked_for(cluster, fetched):
    done = make("-n", "-B", "demo", f"CLUSTER={cluster}", caller={"PATH": os.environ["PATH"]})
    assert ("-m dev.fetch_jars --yarn" in done.stdout) is fetched


def test_set_up_checks_the_machine_before_anything_else():
    done = make("-n", "-B", "setup", caller={"PATH": os.environ["PATH"]})
    assert done.stdout.splitlines()[0] == "dev/check_machine.sh"


def test_of_the_callers_home_a_process_gets_the_weights_only(tmp_path):
    (tmp_path / ".cache" / "ready").mkdir(parents=True)
    (tmp_path / ".cache" / "ready" / "java_home").write_text("/opt/a java\n")
    home = tmp_path / "home (é)"
    caller = hostile_caller.environment(home) | {"IMAGES": "~/my photos", "OUT": "a/~/b"}
    caller = {name: caller[name] for name in ("PATH", "HOME", "IMAGES", "OUT")}
    for _ in range(2):  # the second as if it were started by the first
        done = subprocess.run(
            [ROOT / "dev" / "launch.sh", "env", "-0"], cwd=tmp_path, env=caller, stdout=-1, check=True
        )
        environ = dict(variable.split("=", 1) for variable in done.stdout.decode().rstrip("\0").split("\0"))
        assert environ["JAVA_HOME"] == "/opt/a java"
        assert environ["HOME"] == str(tmp_path / ".cache" / "home")
        assert (environ["IMAGES"], environ["OUT"]) == (f"{home}/my photos", "a/~/b")
        (kept,) = Path(environ["HOME"]).rglob("*.*")
        assert (kept / "models").resolve() == home / ".keras" / "models"
        caller = environ


@pytest.mark.spark
@pytest.mark.timeout(600)
def test_model_and_jobs_run_for_a_hostile_caller_on_awkward_paths(tmp_path, models, model):
    awkward = """my fruits, [1] {2} #3 50% $x 'q' "q" été 苹果"""
    photos = orchard(tmp_path / awkward / "photos", labels=3, each=5)
    weights = photos.parent / "weights.h5"
    weights.symlink_to(models / model["reference_model_id"] / "weights.h5")
    caller = hostile_caller.environment(tmp_path / "home (é) $2")
    done = make("model", f"WEIGHTS={weights}", caller=caller)
    assert json.loads(done.stdout)["model_id"] == model["model_id"], done.stderr
    done = make("local", f"IMAGES={photos}", f"OUT={photos.parent / 'out'}", f"WEIGHTS={weights}", "K=4", caller=caller)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "15 seen, 15 loaded, 0 unchanged, 0 removed, 0 rejected" in done.stdout


def test_the_emulator_serves_a_hostile_caller(tmp_path):
    caller = hostile_caller.environment(tmp_path / "home (é) $2")
    command = ["make", "-s", "aws", "PORT=0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=caller, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            endpoint = next(line.split()[-1] for line in process.stdout if "ready on" in line)
            loopback = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with pytest.raises(urllib.error.HTTPError, match="403"):  # it answers, and wants a signature
                loopback.open(endpoint, timeout=60)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
