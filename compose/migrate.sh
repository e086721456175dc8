#!/usr/bin/env bash
# Entry point of the service `migrate`: Airflow's tables, and what is encrypted in them under the first of the keys.
set -euo pipefail
airflow db migrate
if ! output=$(python -m compose.rotate_keys 2>&1); then
  echo "$output" >&2
  [[ $output != *InvalidToken* ]] || cat >&2 << 'TEXT'
ERROR: AIRFLOW_FERNET_KEY in .env does not decrypt what Airflow's database holds: connections, variables and waits.
Set AIRFLOW_FERNET_KEY=NEW,OLD, where NEW is the key that is there now, and call `make up`: it encrypts them under NEW.
Then remove OLD.
Where OLD is lost: `compose/stack.sh down --volumes` removes them, with all of Airflow's history.
TEXT
  exit 1
fi
