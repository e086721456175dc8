#!/usr/bin/env bash
# Runs COMMAND on the Java of set-up, with .cache/home as its home folder: AWS's clients, Keras, Jupyter, Matplotlib and
# Ivy read settings in ~, and of the caller's files they get the weights that Keras keeps. Usage: dev/launch.sh COMMAND...
set -euo pipefail
home=$PWD/.cache/home
# Not every shell replaces the ~ of `make IMAGES=~/photos`.
for name in IMAGES WEIGHTS OUT MY_PHOTO; do
  if [[ ${!name-} == \~/* ]]; then export "$name=$HOME/${!name:2}"; fi
done
mkdir -p "$home/.keras"
if [[ $HOME != "$home" ]] && mkdir -p "$HOME/.keras/models" 2> /dev/null; then ln -sfn "$HOME/.keras/models" "$home/.keras/models"; fi
JAVA_HOME=$(< .cache/ready/java_home)
export JAVA_HOME HOME=$home
exec "$@"
