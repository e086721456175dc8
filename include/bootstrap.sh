#!/bin/bash
# What an EMR node runs before anything else (bootstrap action of include/cluster.yaml).
#
#   bootstrap.sh --deadline=2026-01-31T04:00:00Z [--environment=s3://LAKE/env/SHA256/environment.tar.gz]
#
# Arms a timer on the primary node that shuts the machine down at the deadline. EMR ends a cluster whose primary node
# is gone, so that no cluster outlives its deadline: without Airflow, and also when a step hangs (a hung step is never
# idle, so that EMR's idle auto-termination does not see it). The timer is the operating system's, no process of ours.
#
# Then unpacks the libraries of the jobs from our own bucket, on every node, into a Python of their own. The archive
# must have the digest that its name says. Where the image lacks Python 3.11 before its applications are installed, it
# comes from the image's own package repository; nothing is fetched from anywhere else.
set -euo pipefail

readonly home=/opt/fruits
readonly python=python3.11 # as spark.pyspark.python
# What the jobs import, and pandas, which PySpark's mapInArrow imports on the driver.
readonly modules='ai_edge_litert.interpreter, boto3, botocore.config, botocore.exceptions, botocore.utils, numpy.typing,
  obstore.exceptions, obstore.store, pandas, PIL.Image, PIL.WebPImagePlugin, pyarrow.compute, pyarrow.parquet'

usage() {
  printf 'usage: bootstrap.sh --deadline=<ISO 8601 UTC, e.g. 2026-01-31T04:00:00Z> [--environment=s3://<lake>/env/<sha256>/environment.tar.gz]\n' >&2
  exit 2
}

die() {
  printf 'bootstrap.sh: %s\n' "$*" >&2
  exit 1
}

is_primary_node() {
  grep -Eq '"isMaster"[[:space:]]*:[[:space:]]*true' /mnt/var/lib/info/instance.json
}

arm_deadline() {
  local deadline=$1 seconds
  seconds=$(($(date -u -d "$deadline" +%s) - $(date -u +%s)))
  if ((seconds <= 0)); then
    printf 'bootstrap.sh: the deadline %s has passed: shutting down now\n' "$deadline" >&2
    sudo shutdown -h now
    return
  fi
  # a monotonic timer: a clock that is set wrong, or right, later does not move it
  sudo systemd-run --unit=fruits-deadline --on-active="${seconds}s" /usr/sbin/shutdown -h now
  printf 'bootstrap.sh: this node shuts down at %s, in %d s\n' "$deadline" "$seconds"
}

install_python() {
  if command -v "$python" >/dev/null; then
    printf 'bootstrap.sh: %s is on the image\n' "$python"
    return
  fi
  sudo dnf install -y -q "$python" || true
  command -v "$python" >/dev/null ||
    die "$python is neither on this image nor in its package repository: take a release whose image has it, and in a network without internet access let the S3 endpoint's policy allow s3:GetObject on al2023-repos-<region>-*"
  printf 'bootstrap.sh: %s comes from the repository of the image\n' "$python"
}

install_environment() {
  local uri=$1 digest archive libraries machine
  digest=${uri%/*}
  digest=${digest##*/}
  libraries=$home/lib/$python/site-packages
  archive=$(mktemp --suffix=.tar.gz)
  aws s3 cp --only-show-errors "$uri" "$archive" || die "$uri cannot be fetched: run make environment, and see that the node role may read env/"
  printf '%s  %s\n' "$digest" "$archive" | sha256sum --check --status ||
    die "$uri is not what its digest says: find out who writes there, remove it and run make environment"
  install_python
  # without pip: the image need have none for this Python, and nothing is installed from an index
  sudo "$python" -m venv --without-pip "$home"
  sudo tar -xzf "$archive" --no-same-owner -C "$libraries"
  rm -f "$archive"
  machine=$(uname -m)
  grep -q "\"architecture\": \"$machine\"" "$libraries/fruits-environment.json" ||
    die "$uri is not for $machine: pack it with ARCHITECTURE=, or take instance types of its architecture"
  # as root, so that their bytecode is kept: a job's own user may not write here, and would compile them in each process
  sudo "$home/bin/python" -c "import ${modules//$'\n'/}" ||
    die "$uri lacks a module that the jobs import, or needs newer system libraries than this image has (cause above): run make environment, and set node_environment to what it prints"
  printf 'bootstrap.sh: libraries %s unpacked to %s after %d s\n' "${digest:0:12}" "$home" "$SECONDS"
}

main() {
  local deadline='' environment=''
  while (($#)); do
    case $1 in
      --deadline=*) deadline=${1#*=} ;;
      --environment=*) environment=${1#*=} ;;
      *) usage ;;
    esac
    shift
  done
  # a zone is asked for: the node's own must not be taken for it
  [[ $deadline =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})$ ]] || usage
  [[ -z $environment || $environment =~ ^s3://[a-z0-9.-]+/env/[0-9a-f]{64}/environment\.tar\.gz$ ]] || usage
  # first the timer: an installation that hangs is ended by it too
  if is_primary_node; then
    arm_deadline "$deadline"
  fi
  if [[ -n $environment ]]; then
    install_environment "$environment"
  fi
}

main "$@"
