#!/usr/bin/env bash
# Runs COMMAND with a Docker engine and its compose plugin at hand: the one that is there, else one of its own that
# lives as long as COMMAND does. Usage: compose/engine.sh COMMAND...
#
# The engine of its own: Debian's packages, unpacked, not installed, in mount and process namespaces, so that whatever
# happens all of it ends with this script. It has no bridge network (COMPOSE_FILE gets compose/private_engine.yaml), and
# makes the base images, which Docker Hub would give, from Debian's packages too. Packages are kept in
# .cache/compose, everything else is under build/compose (in memory where there is plenty) and removed.
#
# Where that cannot be, COMMAND runs all the same, with the reason in NO_ENGINE: a test then skips, and says why.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
cache=$PWD/.cache/compose state=$PWD/build/compose
suite=bookworm newer=trixie # compose and buildx are in Debian from 13 on; they need no more than 12's libc
needed_gib=12

log() { printf '[engine %3ss] %s\n' "$SECONDS" "$*" >&2; }

# —— Outside: is it possible, and packages ————————————————————————————————

without() {
  log "no Docker engine here, and none of our own: $*"
  NO_ENGINE="$*" exec "${command[@]}"
}

# Debian's packages of one suite, by the machine's own mirror and without touching its package lists.
apt_of() {
  local name=$1 root=$cache/apt-$1
  shift
  mkdir -p "$root"/{lists,cache/archives}/partial
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $name main" > "$root/sources.list"
  apt-get -qq -o "Dir::Etc::sourcelist=$root/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$root/lists" \
    -o "Dir::Cache=$root/cache" -o APT::Sandbox::User=root "$@"
}

unpack_engine() {
  local new=$cache/engine.new
  rm -rf "$new"
  mkdir -p "$new/debs" "$new/root"
  apt_of $suite update
  apt_of $newer update
  (cd "$new/debs" && apt_of $suite download docker.io containerd runc tini debootstrap && apt_of $newer download docker-compose docker-buildx)
  for deb in "$new"/debs/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -C "$new/root" -x --exclude='./usr/share/doc' --exclude='./usr/share/man'
  done
  mkdir -p "$new/root/config"
  mv "$new/root/usr/libexec/docker/cli-plugins" "$new/root/config/"
  rm -rf "$cache/engine"
  mv "$new/root" "$cache/engine"
  rm -rf "$new"
  log "engine unpacked ($(du -sh "$cache/engine" | cut -f1))"
}

# A Debian root with some packages, as a tar: what stands for an image of Docker Hub.
make_root() {
  local name=$1 packages=$2 root
  # In memory where there is room: dpkg waits for the disk after every file.
  root=$(TMPDIR=$(roomy /dev/shm || echo "$cache") mktemp -d --tmpdir fruits-root.XXXXXX)
  if ! DEBOOTSTRAP_DIR=$cache/engine/usr/share/debootstrap "$cache/engine/usr/sbin/debootstrap" --variant=minbase \
    --include="$packages" $suite "$root" "$mirror" > "$cache/debootstrap-$name.log" 2>&1; then
    tail -n 5 "$cache/debootstrap-$name.log" >&2
    rm -rf --one-file-system "$root"
    return 1
  fi
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale} \
    "$root"/var/lib/postgresql/*/main "$root"/usr/lib/postgresql/*/lib/{llvmjit*,bitcode} "$root"/usr/lib/*/libLLVM*
  chmod 755 "$root"
  tar -C "$root" --one-file-system -c . > "$cache/$name.tar.new"
  mv "$cache/$name.tar.new" "$cache/$name.tar"
  rm -rf --one-file-system "$root"
  log "base root $name made ($(du -sh "$cache/$name.tar" | cut -f1))"
}

roomy() { (($(df -Pm "$1" 2> /dev/null | awk 'NR == 2 {print $4}') > 2000)) && echo "$1"; }

fetch_packages() {
  # shellcheck disable=SC2016  # apt's own variable
  mirror=$(apt-get indextargets --format '$(SITE)' | grep -v security | sort -u | head -n 1)
  [[ -n $mirror ]] || { echo "apt names no mirror" >&2; return 1; }
  [[ -x $cache/engine/usr/sbin/dockerd ]] || unpack_engine || return 1
  local pids=()
  [[ -e $cache/python.tar ]] || { make_root python ca-certificates,python3,python3-pip,python3-venv & pids+=($!); }
  [[ -e $cache/postgres.tar ]] || { make_root postgres ca-certificates,postgresql & pids+=($!); }
  local pid
  for pid in "${pids[@]}"; do wait "$pid" || return 1; done
}

# —— Inside the namespaces ————————————————————————————————————————————————

# Images and layers are some 7 GB, written once and thrown away: in memory where there is plenty, which ends with us.
keep_state_in_memory() {
  local free_gib
  free_gib=$(awk '/^MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
  ((free_gib < 18)) || mount -t tmpfs -o size=10g fruits-compose "$state"
}

start_engine() {
  # Sockets need short paths; both folders are this namespace's own.
  mkdir -p /run/containerd
  mount -t tmpfs fruits-compose /run/containerd
  mkdir -p /run/containerd/engine
  export PATH=$cache/engine/usr/sbin:$cache/engine/usr/bin:$PATH DOCKER_CONFIG=$cache/engine/config
  export DOCKER_HOST=unix:///run/containerd/engine/docker.sock DOCKER_BUILDKIT=1
  unset DOCKER_CONTEXT DOCKER_TLS_VERIFY
  dockerd --host "$DOCKER_HOST" --data-root "$state/root" --exec-root /run/containerd/engine --pidfile "$state/dockerd.pid" \
    --storage-driver overlay2 --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
    --userland-proxy=false --oom-score-adjust 0 > "$state/dockerd.log" 2>&1 < /dev/null &
  local tries
  for ((tries = 0; tries < 150; tries++)); do
    docker info > /dev/null 2>&1 && break
    kill -0 $! 2> /dev/null || break
    sleep 0.2
  done
  docker info > /dev/null 2>&1 || { tail -n 3 "$state/dockerd.log" >&2; return 1; }
  log "engine $(docker version --format '{{.Server.Version}}') is up, compose $(docker compose version --short)"
}

# What this machine needs to reach its package indexes: its own certificates, pip and uv settings.
write_machine_settings() {
  local folder=$1 name
  mkdir -p "$folder/ca" "$folder/etc/uv"
  python3 - "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$cache/python.tar" "$folder/ca" <<'PYTHON'
import pathlib, re, sys, tarfile
bundle, root, folder = sys.argv[1:]
pem = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.S)
known = tarfile.open(root).extractfile("./etc/ssl/certs/ca-certificates.crt").read()
certificates = pem.findall(pathlib.Path(bundle).read_bytes()) if pathlib.Path(bundle).exists() else []
in_root = {b"".join(certificate.split()) for certificate in pem.findall(known)}
extra = [certificate for certificate in certificates if b"".join(certificate.split()) not in in_root]
for number, certificate in enumerate(extra):
    pathlib.Path(folder, f"machine-{number}.crt").write_bytes(certificate + b"\n")
PYTHON
  touch "$folder/ca/none" # COPY wants at least one file
  for name in /etc/pip.conf "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf"; do
    if [[ -r $name ]]; then cp "$name" "$folder/etc/pip.conf"; fi
  done
  for name in /etc/uv/uv.toml "$HOME/.config/uv/uv.toml"; do
    if [[ -r $name ]]; then cp "$name" "$folder/etc/uv/uv.toml"; fi
  done
  for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_DEFAULT_TIMEOUT UV_INDEX UV_INDEX_URL UV_DEFAULT_INDEX \
    UV_EXTRA_INDEX_URL UV_HTTP_TIMEOUT http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    if [[ -n ${!name:-} ]]; then echo "ENV $name=\"${!name}\""; fi
  done > "$folder/environment"
}

# The images that docker-compose.yaml and the Dockerfile take from Docker Hub, by the names they use.
make_base_images() {
  local folder=$state/base name
  write_machine_settings "$folder"
  for name in python postgres; do docker import "$cache/$name.tar" "fruits-root-$name" > /dev/null; done
  cp "$repository/compose/private_postgres.sh" "$folder/"
  {
    cat <<'DOCKERFILE'
FROM fruits-root-python AS python
COPY ca/ /usr/local/share/ca-certificates/
COPY etc/ /etc/
RUN update-ca-certificates > /dev/null 2>&1 && ln -s python3 /usr/bin/python && rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_ROOT_USER_ACTION=ignore
DOCKERFILE
    cat "$folder/environment"
    cat <<'DOCKERFILE'
CMD ["python3"]
FROM fruits-root-postgres AS postgres
RUN ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/
COPY --chmod=755 private_postgres.sh /usr/local/bin/docker-entrypoint.sh
ENV PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
DOCKERFILE
  } > "$folder/Dockerfile"
  docker build -q --network host --target python -t python:3.11-slim-bookworm "$folder" > /dev/null
  docker build -q --network host --target postgres -t postgres:16-bookworm "$folder" > /dev/null
  log "base images made"
}

inside() {
  command=("$@")
  keep_state_in_memory
  start_engine || without "dockerd does not start here (its last words are above)"
  local status=0
  trap stop_engine EXIT
  make_base_images
  COMPOSE_FILE=docker-compose.yaml:compose/private_engine.yaml "${command[@]}" || status=$?
  exit $status
}

# shellcheck disable=SC2317,SC2329  # called by the trap
stop_engine() {
  docker ps --quiet | xargs --no-run-if-empty docker kill > /dev/null 2>&1 || true
  kill "$(cat "$state/dockerd.pid")" 2> /dev/null || true
  wait
}

# ———————————————————————————————————————————————————————————————————————

if [[ ${1-} == --inside ]]; then
  shift
  inside "$@"
fi

command=("$@")
((${#command[@]})) || { echo "usage: compose/engine.sh COMMAND..." >&2; exit 2; }
if docker info > /dev/null 2>&1; then
  docker compose version > /dev/null 2>&1 || without "a Docker engine answers, but docker has no compose plugin"
  exec "${command[@]}"
fi
((EUID == 0)) || without "it needs root"
for tool in apt-get dpkg-deb unshare python3 flock; do
  command -v $tool > /dev/null || without "it needs $tool"
done
unshare -mpf --mount-proc --propagation private true 2> /dev/null || without "this machine lets us make no namespaces"
grep -qw overlay /proc/filesystems || modprobe overlay 2> /dev/null || without "the kernel has no overlay file system"
free_gib=$(df -Pk . | awk 'NR == 2 {print int($4 / 1048576)}')
((free_gib >= needed_gib)) || without "it needs $needed_gib GiB of disk here, there are $free_gib"
mkdir -p "$cache" build
exec 9> "$cache/.lock"
flock -n 9 || { echo "ERROR: another compose/engine.sh is at work in $repository" >&2; exit 1; }
fetch_packages || without "Debian's packages could not be fetched (cause above)"
! ldd "$cache/engine/usr/sbin/dockerd" | grep -q 'not found' || without "Debian $suite's engine does not fit the libraries here"

remove_state() { rm -rf --one-file-system "$state"; }
remove_state
mkdir -p "$state"
trap remove_state EXIT
log "starting an engine of our own"
status=0
unshare -mpf --mount-proc --propagation private --kill-child "$0" --inside "${command[@]}" 9>&- || status=$?
exit $status
