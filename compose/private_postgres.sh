#!/usr/bin/env bash
# Entry point of the stand-in for the official PostgreSQL image (compose/engine.sh): the same variables, the same
# folder, the same order, as far as docker-compose.yaml uses them.
set -euo pipefail

if ((EUID == 0)); then
  install -d -o postgres -g postgres -m 700 "$PGDATA"
  install -d -o postgres -g postgres -m 755 /var/run/postgresql
  exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

if [[ ! -e $PGDATA/PG_VERSION ]]; then
  : "${POSTGRES_PASSWORD:?}"
  user=${POSTGRES_USER:-postgres}
  database=${POSTGRES_DB:-$user}
  initdb --pgdata "$PGDATA" --username "$user" --encoding UTF8 --locale C.UTF-8 \
    --auth-local trust --auth-host scram-sha-256 --pwfile <(echo "$POSTGRES_PASSWORD") > /dev/null
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  if [[ $database != postgres ]]; then
    echo "CREATE DATABASE \"$database\"" | postgres --single -D "$PGDATA" postgres > /dev/null
  fi
fi
exec "$1" -D "$PGDATA" -c listen_addresses='*' "${@:2}"
