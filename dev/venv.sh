#!/usr/bin/env bash
# Makes .venv-NAME on Python 3.11 from requirements/NAME.lock, hashes checked.
# .venv-node also gets PySpark and Py4J, which a node's image brings, in the versions of spark.lock.
# .venv-lint also gets the Node.js packages of requirements/lint/package-lock.json.
# Usage: dev/venv.sh UV NAME
set -euo pipefail
uv=$1 name=$2 venv=.venv-$2
needed_gib=5 locks=("requirements/$2.lock")

free_gib=$(df -Pk . | awk 'NR == 2 {print int($4 / 1048576)}')
if ((free_gib < needed_gib)); then
  echo "ERROR: $venv needs $needed_gib GiB of free space here, there are $free_gib: free some, or clone to a larger disk." >&2
  exit 1
fi

echo "Setting up $venv"
if ! "$uv" venv -q --clear --python 3.11 "$venv"; then
  echo "ERROR: no Python 3.11. Install one (Debian: apt-get install python3.11-venv; pyenv install 3.11;" \
    "or, with open network, $uv python install 3.11) and call again." >&2
  exit 1
fi
if [[ $name == node ]]; then
  image=$(mktemp)
  trap 'rm -f "$image"' EXIT
  awk '/^[a-z]/ {on_image = /^(pyspark|py4j)==/} on_image' requirements/spark.lock >"$image"
  locks+=("$image")
fi
# With bytecode: where Python may not keep it (PYTHONDONTWRITEBYTECODE), each process would compile all that it imports.
if ! "$uv" pip sync -q --compile-bytecode --python "$venv/bin/python" --require-hashes "${locks[@]}"; then
  echo "ERROR: $venv could not be filled from ${locks[0]} (cause above). Check that the package index" \
    "can be reached, and call again." >&2
  exit 1
fi

if [[ -d requirements/$name ]]; then
  mkdir -p "$venv/lib/node"
  cp requirements/"$name"/package*.json "$venv/lib/node"
  if ! "$venv/bin/npm" ci --prefix "$venv/lib/node" --cache .cache/npm --ignore-scripts --no-audit --no-fund \
    --loglevel error >/dev/null; then
    echo "ERROR: $venv could not be filled from requirements/$name/package-lock.json (cause above). Check that the" \
      "package index of npm can be reached, and call again." >&2
    exit 1
  fi
fi

# Spark puts these first on the path of every driver and worker, and a zip has no bytecode: reading and compiling them
# takes half a second of each start. Without them Python finds the same packages beside them.
rm -f "$venv"/lib/python3.11/site-packages/pyspark/python/lib/{pyspark,py4j-*-src}.zip
