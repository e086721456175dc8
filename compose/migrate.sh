#!/usr/bin/env bash
# Entry point of the service `migrate`: Airflow's tables, and what is encrypted in them under the first of the keys.
set -euo pipefail
airflow db migrate
airflow rotate-fernet-key || {
  echo "ERROR: AIRFLOW_FERNET_KEY in .env does not decrypt what Airflow's database holds: connections, variables and waits." >&2
  echo "Set AIRFLOW_FERNET_KEY=NEW,OLD and call \`make up\`, which encrypts them under NEW; then remove OLD." >&2
  echo "Where OLD is lost: \`compose/stack.sh down --volumes\` removes them, with all of Airflow's history." >&2
  exit 1
}
