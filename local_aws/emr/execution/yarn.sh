#!/usr/bin/env bash
# Runs a daemon of YARN, with the site files of $HADOOP_CONF_DIR. Usage: yarn.sh ResourceManager|NodeManager HEAP_MB
set -euo pipefail
exec java --add-opens=java.base/java.lang=ALL-UNNAMED -Dorg.apache.logging.log4j.level=INFO \
  -Xmx"$2m" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$HADOOP_CONF_DIR:$JARS/yarn/*:$SPARK_JARS/*" \
  "org.apache.hadoop.yarn.server.${1,,}.$1"
