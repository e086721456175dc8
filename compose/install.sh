#!/usr/bin/env bash
# Puts the packages that LIST names into the environment VENV, in the versions of LOCK, hashes checked.
# Usage, in a build: install.sh VENV LIST LOCK
set -euo pipefail
venv=$1 list=$2 lock=$3
export UV_CACHE_DIR=/var/cache/uv UV_LINK_MODE=copy UV_COMPILE_BYTECODE=${UV_COMPILE_BYTECODE:-1}

[[ -d $venv ]] || /opt/uv/bin/uv venv -q --python 3.11 "$venv"
/opt/uv/bin/uv pip install -q --python "$venv/bin/python" --requirement "$list" --constraint "$lock"

# As in dev/venv.sh: Spark would start every Python with these, which have no bytecode.
rm -f "$venv"/lib/python3.11/site-packages/pyspark/python/lib/{pyspark,py4j-*-src}.zip

# A package that the lock does not name would have come without a hash.
if /opt/uv/bin/uv pip freeze --python "$venv/bin/python" | grep -vxF -f <(sed -n 's/^\([a-z][^ ]*\).*/\1/p' "$lock"); then
  echo "ERROR: the packages above are in $list and not in $lock: name them in requirements/ and run make lock." >&2
  exit 1
fi
