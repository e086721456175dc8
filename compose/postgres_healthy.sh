#!/usr/bin/env bash
# Health check of PostgreSQL: it answers, and its role has the password of .env. The image sets POSTGRES_PASSWORD when it
# makes the data folder and never again, so a changed one would lock Airflow out of a volume that exists. The local
# socket, which only this container has, asks for no password.
set -euo pipefail
done=/tmp/password-is-set # the container's own: another password is another container

pg_isready --quiet --host=127.0.0.1 --username="$POSTGRES_USER"
[[ ! -e $done ]] || exit 0
psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" "$POSTGRES_DB" << 'SQL'
\getenv password POSTGRES_PASSWORD
ALTER ROLE CURRENT_USER PASSWORD :'password';
SQL
touch "$done"
