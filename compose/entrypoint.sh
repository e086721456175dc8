#!/usr/bin/env bash
# Entry point of the Airflow image: `fruits-entrypoint COMMAND...` is `airflow COMMAND...`, with the deployment's settings.
set -euo pipefail

# Buckets and model, as the service `account` found or made them; with a real account they come by environment.
settings=/var/lib/fruits/deployment/settings.env
if [[ -r $settings ]]; then
  set -a
  # shellcheck source=/dev/null
  . "$settings"
  set +a
  # An AWS that was filled again has other ids: end, and be started again with them.
  before=$(< "$settings")
  (while sleep 2 && [[ $(< "$settings") == "$before" ]]; do :; done && kill -TERM $$) &
fi

# Airflow's simple auth manager reads the passwords of its users from a file.
if [[ ${1-} == api-server ]]; then
  umask 077
  python -S -c 'import json, os; print(json.dumps({name: os.environ[f"{name.upper()}_PASSWORD"] for name in ("admin", "viewer")}))' \
    > "$AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"
  umask 022
fi

exec airflow "$@"
