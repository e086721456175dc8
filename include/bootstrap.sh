#!/bin/bash
# What an EMR node runs before anything else (bootstrap action of include/cluster.yaml).
#
#   bootstrap.sh --deadline 2026-01-31T04:00:00Z
#
# Arms a timer on the primary node that shuts the machine down at the deadline. EMR ends a cluster whose primary node
# is gone, so that no cluster outlives its deadline: without Airflow, and also when a step hangs (a hung step is never
# idle, so that EMR's idle auto-termination does not see it). The timer is the operating system's, no process of ours.
set -euo pipefail

usage() {
  printf 'usage: bootstrap.sh --deadline <ISO 8601 UTC, e.g. 2026-01-31T04:00:00Z>\n' >&2
  exit 2
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

main() {
  local deadline=
  while (($#)); do
    case $1 in
      --deadline)
        (($# >= 2)) || usage
        deadline=$2
        shift 2
        ;;
      --deadline=*)
        deadline=${1#*=}
        shift
        ;;
      *) usage ;;
    esac
  done
  # a zone is asked for: the node's own must not be taken for it
  [[ $deadline =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})$ ]] || usage
  if is_primary_node; then
    arm_deadline "$deadline"
  fi
}

main "$@"
