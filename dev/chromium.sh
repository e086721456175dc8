#!/usr/bin/env bash
# Prints the path of a Chromium for the browser tests: the one that is there, else Debian's, unpacked, not installed,
# below .cache/chromium (once; some 130 MB to fetch). Where neither can be, says why and exits with 1.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=$PWD/.cache/chromium

for name in chromium chromium-browser google-chrome; do
  if command -v "$name"; then exit 0; fi
done

without() {
  echo "no Chromium here, and none of our own: $*" >&2
  exit 1
}
for tool in apt-get dpkg-deb flock; do
  command -v $tool > /dev/null || without "it needs $tool (any Chromium on the PATH will do)"
done

# The machine's own sources, without touching its package lists or its locks.
apt() {
  apt-get -qq -o "Dir::State::lists=$new/lists" -o "Dir::Cache=$new/cache" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
    -o APT::Sandbox::User=root -o Debug::NoLocking=1 "$@" 1>&2
}

mkdir -p "$cache"
exec 9> "$cache/.lock"
flock 9
if [[ -x $cache/chromium ]]; then
  echo "$cache/chromium"
  exit 0
fi
new=$cache/new
rm -rf "$new"
mkdir -p "$new"/{lists,cache/archives}/partial "$new/root"
apt update || without "Debian's package lists could not be fetched (cause above)"
apt install --yes --download-only --no-install-recommends chromium fonts-liberation ||
  without "Debian's packages could not be fetched (cause above)"
for deb in "$new"/cache/archives/*.deb; do
  dpkg-deb --fsys-tarfile "$deb" | tar -C "$new/root" -x --no-same-owner --exclude='./usr/share/doc' --exclude='./usr/share/man'
done
rm -rf "$new/lists" "$new/cache" "$cache/root"
mv "$new/root" "$cache/root"
rm -rf "$new"

cat > "$cache/fonts.conf" <<XML
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <dir>$cache/root/usr/share/fonts</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir>$cache/fonts</cachedir>
</fontconfig>
XML
# Beside the libraries that the machine has, those that it lacks; one of them looks for its own in a folder below.
libraries=$(printf '%s:' "$cache"/root/usr/lib/*-linux-gnu{,/pulseaudio} "$cache"/root/lib/*-linux-gnu)
cat > "$cache/chromium.new" <<SH
#!/bin/sh
LD_LIBRARY_PATH='$libraries' FONTCONFIG_FILE='$cache/fonts.conf' exec '$cache/root/usr/lib/chromium/chromium' "\$@"
SH
chmod +x "$cache/chromium.new"
! LD_LIBRARY_PATH=$libraries ldd "$cache/root/usr/lib/chromium/chromium" | grep 'not found' >&2 ||
  without "Debian's Chromium lacks a library here (above)"
mv "$cache/chromium.new" "$cache/chromium"
echo "$cache/chromium"
