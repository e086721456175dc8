#!/usr/bin/env bash
# Runs the notebook over IMAGES, or over drawn fruits, with the model made of WEIGHTS. Usage: dev/notebook.sh run | lab
set -euo pipefail
PYTHONPATH=plugins .venv-airflow/bin/python -m dev.demo.preflight
images=${IMAGES:-build/notebook/photos}
if [[ -z ${IMAGES:-} ]]; then .venv-airflow/bin/python -m dev.demo.drawing "$images"; fi
model=$(.venv-spark/bin/python dev/make_model.py ${WEIGHTS:+--weights="$WEIGHTS"} | sed -E 's/.*"model_id": "([0-9a-f]+)".*/\1/')
export PYTHONPATH=$PWD:$PWD/spark_jobs
if [[ $1 == run ]]; then
  exec .venv-notebook/bin/python dev/run_notebook.py --photos="$images" --model=".cache/models/$model" \
    ${MY_PHOTO:+--my-photo="$MY_PHOTO"} ${PUBLISH:+--publish}
fi
NOTEBOOK_PHOTOS=$(realpath -- "$images")
export NOTEBOOK_PHOTOS NOTEBOOK_MODEL="$PWD/.cache/models/$model"
exec .venv-notebook/bin/python -m jupyterlab --notebook-dir=notebooks
