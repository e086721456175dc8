#!/usr/bin/env bash
# Converts the weights (WEIGHTS=file.h5 make up; else Keras' ImageNet, else random ones, loudly) and leaves which
# model it is in made.json.
set -euo pipefail
models=/var/lib/fruits/models
weights=()
[[ -s /input/weights.h5 ]] && weights=(--weights /input/weights.h5)
python /opt/fruits/dev/make_model.py --out "$models" "${weights[@]}" > "$models/made.json.new"
mv "$models/made.json.new" "$models/made.json"
cat "$models/made.json"
