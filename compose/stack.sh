#!/usr/bin/env bash
# The stack of docker-compose.yaml: compose/stack.sh up | down [--volumes] | trigger [--wait] [KEY=VALUE ...] | DOCKER COMPOSE ARGUMENTS...
# AWS_PROFILE in the environment drives that account instead of the AWS emulator (compose/real_account.yaml).
# For tests: FRUITS_ENV_FILE instead of .env; COMPOSE_FILE and COMPOSE_PROJECT_NAME as docker compose has them.
set -euo pipefail
cd -P "$(dirname "$0")/.."
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
  docker info > /dev/null 2>&1 || die "no Docker engine answers: start it, or see in the output of \`docker info\` why you may not use it."
}

# Sets NAME=VALUE in the file, or removes NAME where VALUE is empty. Single quotes: compose takes what is in them as it is.
remember() {
  [[ $2 != *[\'$'\n']* ]] || die "$1=$2: docker compose takes no value with a quote or a line end."
  local kept
  kept=$(grep -v "^$1=" "$env_file" || true)
  if [[ -n $2 ]]; then kept+=$'\n'"$1='$2'"; fi
  printf '%s\n' "$kept" > "$env_file"
}

# A variable as the file has it; a variable as docker compose sees it: the environment first, then the file.
in_file() {
  local value
  value=$(sed -n "s/^$1=//p" "$env_file" | tail -n 1)
  if [[ $value =~ ^\'(.*)\'$ || $value =~ ^\"(.*)\"$ ]]; then value=${BASH_REMATCH[1]}; fi
  echo "$value"
}
setting() { if [[ -n ${!1:-} ]]; then echo "${!1}"; else in_file "$1"; fi; }

free_port() {
  local port=$((8080 + 0x$1 % 1000))
  while (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do port=$((port + 1)); done
  echo "$port"
}

# Writes what the file lacks: the secrets, and what no other clone may share with this one.
fill_env_file() {
  if [[ ! -e $env_file ]]; then
    (umask 077 && cp .env.example "$env_file")
    echo "$env_file written, with random secrets"
  fi
  if grep -q $'\r' "$env_file"; then
    printf '%s\n' "$(tr -d '\r' < "$env_file")" > "$env_file"
    echo "$env_file had the line ends of Windows; they are removed."
  fi
  local line name value filled=()
  # A file of an earlier version lacks the secrets that have been added since; its last line may lack its end.
  [[ -z $(tail -c 1 "$env_file") ]] || echo >> "$env_file"
  while IFS= read -r line; do
    grep -q "^${line%%=*}=" "$env_file" || echo "$line" >> "$env_file"
  done < <(grep '=generate-me$' .env.example)
  while IFS= read -r line; do
    if [[ $line =~ ^[A-Z_]+=generate-me(,|$) ]]; then
      name=${line%%=*}
      # Fernet wants 32 bytes in URL-safe base64; the rest goes into an URL and into JSON, so letters and digits only.
      case $name in
        *FERNET*) value=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_') ;;
        *PASSWORD) value=$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n') ;;
        *) value=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n') ;;
      esac
      line=${line/generate-me/$value} # what follows a comma is the Fernet key before
    fi
    filled+=("$line")
  done < "$env_file"
  printf '%s\n' "${filled[@]}" > "$env_file"

  local folder digest
  folder=$(in_file CLONE_FOLDER)
  if [[ $folder != "$PWD" ]]; then
    [[ -z $folder || ! -e $folder/docker-compose.yaml ]] ||
      die "$env_file belongs to the clone in $folder, whose stack it would take over. Remove it: make up writes one for this clone."
    remember CLONE_FOLDER "$PWD"
  fi
  digest=$(printf %s "$PWD" | sha256sum | cut -c 1-8)
  [[ -n $(in_file COMPOSE_PROJECT_NAME) ]] || remember COMPOSE_PROJECT_NAME "fruits-$digest"
  [[ -n $(in_file AIRFLOW_PORT) ]] || remember AIRFLOW_PORT "$(free_port "$digest")"
}

# The project's name, and whether its containers are this clone's; those of a clone that was moved here are.
own_project() {
  COMPOSE_PROJECT_NAME=$(setting COMPOSE_PROJECT_NAME)
  COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME:-fruits}${AWS_PROFILE:+-account}
  export COMPOSE_PROJECT_NAME
  [[ $1 != config ]] || return 0
  local folder
  while IFS= read -r folder; do
    [[ -z $folder || $folder == "$PWD" || ! -e $folder/docker-compose.yaml ]] ||
      die "the stack $COMPOSE_PROJECT_NAME is that of the clone in $folder: set another COMPOSE_PROJECT_NAME in $env_file, or end that one there."
  done < <(docker ps --all --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" \
    --format '{{.Label "com.docker.compose.project.working_dir"}}' | sort -u)
}

# Each FRUITS_* of the file, then of the environment: what compose gives to Airflow besides its own variables.
write_settings() {
  export FRUITS_SETTINGS=$PWD/build/$COMPOSE_PROJECT_NAME.env
  local name
  {
    grep '^FRUITS_' "$env_file" || true
    for name in $(compgen -e FRUITS_); do
      case $name in
        FRUITS_ENV_FILE | FRUITS_SETTINGS | FRUITS_UID | FRUITS_SHARED) ;;
        *) [[ ${!name} != *[\'$'\n']* ]] || die "$name: docker compose takes no value with a quote or a line end."
          echo "$name='${!name}'" ;;
      esac
    done
  } > "$FRUITS_SETTINGS"
}

# What would come out wrong, or only as an error of something else.
check_values() {
  local name value path
  while IFS= read -r name; do
    value=$(setting "$name")
    [[ $value =~ ^[A-Za-z0-9._~=,-]+$ ]] ||
      die "$name in $env_file: a secret is letters, digits and ._~=,- only, since it goes into a URL and into JSON. The value generate-me makes one."
  done < <(sed -n 's/=generate-me$//p' .env.example)
  [[ $(setting AIRFLOW_FERNET_KEY),0 =~ ^([A-Za-z0-9_-]{43}=,)+0$ ]] ||
    die "AIRFLOW_FERNET_KEY in $env_file: a key is 32 bytes in URL-safe base64, with a comma before the next. The value generate-me makes one."
  value=$(setting AIRFLOW_PORT)
  [[ $value =~ ^[0-9]+$ ]] || die "AIRFLOW_PORT=$value in $env_file is no port."
  if (: < "/dev/tcp/127.0.0.1/$value") 2> /dev/null && [[ -z $(compose ps --quiet pod 2> /dev/null) ]]; then
    die "AIRFLOW_PORT=$value in $env_file is taken by another program: set a free one."
  fi
  # The containers read them as a user of their own.
  for path in compose dags dev include local_aws ops plugins spark_jobs "${IMAGES:-}" "${WEIGHTS:-}"; do
    [[ -n $path ]] || continue
    value=$(find "$path" -name __pycache__ -prune -o \( -type d ! -perm -005 -o -type f ! -perm -004 \) -print -quit)
    [[ -z $value ]] || die "$value may be read by its owner only, and not by the containers: chmod -R o+rX '$path'"
  done
  [[ -n ${AWS_PROFILE:-} ]] || return 0
  [[ -d $HOME/.aws ]] || die "there is no $HOME/.aws with profile $AWS_PROFILE."
  local missing=()
  while IFS=: read -r name value; do
    [[ -n $(setting "$name") ]] || missing+=("$name: $value")
  done < <(sed -n 's/.*\${\(FRUITS_[A-Z_]*\):?\(name [^}]*\)}.*/\1:\2/p' compose/real_account.yaml)
  ((${#missing[@]} == 0)) || die "a real account needs more settings; nothing was started."$'\n'"$(printf '  %s\n' "${missing[@]}")"
}

# A relative path would be looked for in the folder of the compose file, and a missing one made as an empty folder.
# What was named stays until something else is, or nothing: `make up IMAGES=`.
find_inputs() {
  local name value
  for name in IMAGES WEIGHTS; do
    if [[ -v $name && -z ${!name} ]]; then remember "$name" ""; fi
    value=$(setting "$name")
    unset "$name"
    [[ -n $value ]] || continue
    [[ -e $value ]] || die "$name=$value does not exist. Name another; \`make up $name=\` goes on without."
    value=$(realpath "$value")
    remember "$name" "$value"
    export "$name=$value"
  done
}

up() {
  find_inputs
  check_values
  echo "Building the images and starting the services: minutes the first time, then less than one ($log)"
  compose --profile check build > "$log" 2>&1 || { tail -n 30 "$log" >&2; die "the images could not be built (whole log: $log)."; }
  compose run --rm --no-deps -T check 2>> "$log" || die "the settings in $env_file or include/settings.yaml are wrong (above); nothing was started."
  if [[ -n ${AWS_PROFILE:-} ]]; then
    caller=$(compose run --rm --no-deps -T caller 2> >(tee -a "$log" >&2)) ||
      die "profile $AWS_PROFILE gives no credentials (above); nothing was started."
    [[ $caller == *":assumed-role/fruits-$(setting FRUITS_DEPLOYMENT_ID)-airflow-"* ]] ||
      echo "WARNING: Airflow acts as $caller and not as the AirflowRole of the deployment, which alone is locked to its region." >&2
  fi
  if ! compose up --detach --wait --wait-timeout "${UP_SECONDS:-600}" >> "$log" 2>&1; then
    tail -n 30 "$log" >&2
    compose ps --all --format 'table {{.Service}}\t{{.Status}}' >&2
    for service in $(compose ps --all --format '{{.Service}} {{.State}} {{.ExitCode}} {{.Health}}' |
      awk '$2 == "exited" && $3 != 0 || $4 == "unhealthy" || $2 == "restarting" {print $1}'); do
      echo "--- the end of $service:" >&2
      logs_of --tail 25 "$service" >&2
    done
    die "the stack did not get healthy (whole log: $log). \`make down\` removes what is there."
  fi
  [[ -n ${AWS_PROFILE:-} ]] || logs_of account
  compose exec -T api-server python -m compose.trigger --check ||
    die "Airflow is up, and has no DAG to run (above)."
  cat <<TEXT

Airflow is up:  http://localhost:$(setting AIRFLOW_PORT)
Log in as       admin / $(setting AIRFLOW_ADMIN_PASSWORD)   (or viewer / $(setting AIRFLOW_VIEWER_PASSWORD); both are in $env_file)
What runs did:  http://localhost:$(setting AIRFLOW_PORT)/plugin/fruits-runs
Start a run:    make trigger      See the logs: compose/stack.sh logs -f scheduler      End: make down
TEXT
  if [[ -n ${AWS_PROFILE:-} ]]; then
    echo "AWS:            $caller of profile $AWS_PROFILE, deployment $(setting FRUITS_DEPLOYMENT_ID). Runs cost money there."
  else
    echo "AWS:            the AWS emulator, in memory: \`make down\` empties it; Airflow's history stays."
  fi
}

case ${1-} in
  '') die "name a command: up, down, trigger, or one of docker compose" ;;
  up) (($# == 1)) || die "up takes no arguments, and \"${*:2}\" was given: it starts every service." ;;&
  config) ;;
  *) need_engine ;;
esac
log=build/compose-up.log
mkdir -p build
case $1 in
  up | down) fill_env_file ;;
  *) [[ -e $env_file ]] || die "there is no $env_file: \`make up\` writes it and starts the stack." ;;
esac
own_project "$1"
write_settings
if [[ -n ${AWS_PROFILE:-} ]]; then
  COMPOSE_FILE=${COMPOSE_FILE:-docker-compose.yaml}:compose/real_account.yaml
  FRUITS_UID=$(id -u)
  AWS_ENVIRONMENT=/dev/null # not the laptop's endpoint and keys
  export COMPOSE_FILE FRUITS_UID AWS_ENVIRONMENT
fi

case $1 in
  up) up ;;
  down) compose down --timeout 20 --remove-orphans "${@:2}" ;;
  trigger)
    compose exec -T api-server python -m compose.trigger "${@:2}" ||
      die "the run was not started or did not succeed (above). Is the stack up? \`make up\`"
    ;;
  *) compose "$@" ;;
esac
