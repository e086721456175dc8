#!/usr/bin/env bash
# The stack of docker-compose.yaml: docker/compose_stack.sh up | down | trigger [--wait] [KEY=VALUE ...] | DOCKER COMPOSE ARGUMENTS...
# AWS_PROFILE in the environment drives that account instead of the laptop's AWS (docker/real_account.yaml).
# For tests: FRUITS_ENV_FILE instead of .env; COMPOSE_FILE and COMPOSE_PROJECT_NAME as docker compose has them.
set -euo pipefail
cd "$(dirname "$0")/.."
env_file=${FRUITS_ENV_FILE:-.env}

die() {
  echo "ERROR: $*" >&2
  exit 1
}

compose() { docker compose --env-file "$env_file" "$@"; }

# Some versions write terminal codes even into a file.
logs_of() { compose logs --no-color --no-log-prefix "$@" | sed 's/\x1b\[[0-9;]*[A-Za-z]//g'; }

need_engine() {
  docker compose version --short > /dev/null 2>&1 || die "docker compose is not there: install Docker Engine with its compose plugin (2.24 or newer)."
  docker info > /dev/null 2>&1 || die "no Docker engine answers: start it, or see that you may use it (docker info)."
}

fill_secrets() {
  if [[ ! -e $env_file ]]; then
    (umask 077 && cp .env.example "$env_file")
    echo "$env_file written, with random secrets"
  fi
  local line name value filled=()
  # A file of an earlier version lacks the secrets that have been added since; its last line may lack its end.
  [[ -z $(tail -c 1 "$env_file") ]] || echo >> "$env_file"
  while IFS= read -r line; do
    grep -q "^${line%%=*}=" "$env_file" || echo "$line" >> "$env_file"
  done < <(grep '=generate-me$' .env.example)
  grep -q '=generate-me$' "$env_file" || return 0
  while IFS= read -r line; do
    if [[ $line == *=generate-me ]]; then
      name=${line%%=*}
      # Fernet wants 32 bytes in URL-safe base64; the rest goes into an URL and into JSON, so letters and digits only.
      case $name in
        *FERNET*) value=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_') ;;
        *PASSWORD) value=$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n') ;;
        *) value=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n') ;;
      esac
      line=$name=$value
    fi
    filled+=("$line")
  done < "$env_file"
  printf '%s\n' "${filled[@]}" > "$env_file"
}

# A variable as docker compose sees it: the environment first, then the file.
setting() {
  if [[ -n ${!1:-} ]]; then echo "${!1}"; else sed -n "s/^$1=//p" "$env_file" | tail -n 1; fi
}

up() {
  need_engine
  fill_secrets
  # A relative path would be looked for in the folder of the compose file, and a missing one made as an empty folder.
  local given name
  for name in IMAGES WEIGHTS; do
    given=${!name:-}
    [[ -z $given ]] && { unset "$name"; continue; }
    [[ -e $given ]] || die "$name=$given does not exist."
    export "$name=$(realpath "$given")"
  done
  echo "Building the images and starting the services: minutes the first time, then less than one ($log)"
  if ! compose up --build --detach --wait --wait-timeout "${UP_SECONDS:-600}" > "$log" 2>&1; then
    tail -n 30 "$log" >&2
    compose ps --all --format 'table {{.Service}}\t{{.Status}}' >&2
    for service in $(compose ps --all --format '{{.Service}} {{.State}} {{.ExitCode}} {{.Health}}' |
      awk '$2 == "exited" && $3 != 0 || $4 == "unhealthy" {print $1}'); do
      echo "--- the end of $service:" >&2
      logs_of --tail 25 "$service" >&2
    done
    die "the stack did not get healthy (whole log: $log). \`make down\` removes what is there."
  fi
  [[ -n ${AWS_PROFILE:-} ]] || logs_of account
  cat <<TEXT

Airflow is up:  http://localhost:$(setting AIRFLOW_PORT)
Log in as       admin / $(setting AIRFLOW_ADMIN_PASSWORD)   (or viewer / $(setting AIRFLOW_VIEWER_PASSWORD); both are in $env_file)
What runs did:  http://localhost:$(setting AIRFLOW_PORT)/plugin/fruits-runs
Start a run:    make trigger      See the logs: docker compose logs -f scheduler      End: make down
TEXT
  if [[ -n ${AWS_PROFILE:-} ]]; then
    echo "AWS:            the account of profile $AWS_PROFILE, deployment $(setting FRUITS_DEPLOYMENT_ID). Runs cost money there."
  else
    echo "AWS:            the laptop's, in memory: \`make down\` empties it; Airflow's history stays."
  fi
}

log=build/compose-up.log
mkdir -p build
if [[ -n ${AWS_PROFILE:-} ]]; then
  COMPOSE_FILE=${COMPOSE_FILE:-docker-compose.yaml}:docker/real_account.yaml
  FRUITS_UID=$(id -u)
  AWS_ENVIRONMENT=/dev/null # not the laptop's endpoint and keys
  export COMPOSE_FILE FRUITS_UID AWS_ENVIRONMENT
fi

case ${1-} in
  up) up ;;
  down)
    need_engine
    fill_secrets
    compose down --timeout 20 --remove-orphans
    ;;
  trigger)
    need_engine
    shift
    compose exec -T api-server python /opt/fruits/docker/trigger.py "$@" ||
      die "the run was not started or did not succeed (above). Is the stack up? \`make up\`"
    ;;
  '') die "say what: up, down, trigger, or arguments of docker compose" ;;
  *) compose "$@" ;;
esac
