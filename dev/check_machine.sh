#!/usr/bin/env bash
# Refuses what set-up and Spark cannot work with here, in a line that says what and the remedy.
set -euo pipefail

die() {
  echo "ERROR: $*" >&2
  exit 1
}

# In PATH, PYTHONPATH and Java's class path a colon ends an entry; Spark's launcher takes the others as its own.
for character in : \" \\ $'\n'; do
  if [[ $PWD == *"$character"* ]]; then
    printf -v character %q "$character"
    die "the path of this clone, $PWD, has the character $character, which Java or Spark cannot have there: move the clone to a path without it."
  fi
done
# What the daemons of YARN, a driver and one executor of four cores take. Every node gets an address in 127.0.0.0/8.
yarn_needs_gib=5
if [[ ${CLUSTER-} == yarn ]]; then
  [[ $(uname -s) == Linux ]] || die "CLUSTER=yarn needs Linux, where all of 127.0.0.0/8 is this machine: leave it out."
  free_gib=$(awk '/^MemAvailable:/ {print int($2 / 1048576)}' /proc/meminfo)
  if ((free_gib < yarn_needs_gib)); then
    die "CLUSTER=yarn needs $yarn_needs_gib GiB of free memory here, there are $free_gib: end other programs, or leave it out."
  fi
fi
id -un > /dev/null 2>&1 || die "user id $(id -u) has no entry in /etc/passwd, without which Hadoop and Spark do not start: run as" \
  "a user with an entry, or add one (in a container: echo \"fruits:x:$(id -u):$(id -g)::/tmp:/bin/bash\" >> /etc/passwd as root)."
