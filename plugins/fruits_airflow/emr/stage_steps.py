"""The stages of a run, and of an erasure, as EMR steps: their command lines and names.

A step's name is `<stage>/<digest of code and arguments>`: AddJobFlowSteps accepts no idempotency token, so that a
retry finds the step by its name.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

STAGES = ("load_images", "featurize", "reduce_pca", "publish")
ERASURE_JOB = "erase_images"
ERASURE_STAGES = {
    "erase_images": "database",
    "erase_demo_images": "demo_database",
    "erase_notebook_images": "notebook_database",
}
"""The steps of an erasure, one per database, and the plan's key of that database; all run ERASURE_JOB."""
JOBS = (*STAGES, ERASURE_JOB)

# Keys of the plan that a job takes as an option of the same name.
_OPTIONS = {
    "load_images": ("max_bytes", "max_pixels", "max_removed_share", "max_removed_rows", "expected_removals"),
    "featurize": ("model_id", "engine", "batch_size"),
    "reduce_pca": ("model_id", "network", "max_drift_degrees", "max_variance_loss"),
    "publish": (
        *("model_id", "network", "weights", "max_reject_rate", "min_explained_variance", "min_agreement"),
        *("classifier", "shrinkage", "held_out_share", "refit_share", "max_accuracy_loss", "unknown_error"),
    ),
    ERASURE_JOB: ("erasure",),
}


def _arguments(job: str, plan: Mapping[str, Any]) -> list[str]:
    """Return the job's own arguments."""
    lake = f"s3://{plan['lake_bucket']}"
    arguments: list[str] = []
    if job == "load_images":
        arguments += ["--input", f"s3://{plan['raw_bucket']}/{plan['input_prefix']}"]
        arguments += ["--complete"] if plan["complete"] else []
        arguments += ["--suppression", f"{lake}/suppression"]
    elif job == "featurize":
        arguments += ["--model", f"{lake}/models/{plan['model_id']}"]
    for name in _OPTIONS[job]:
        arguments += [f"--{name.replace('_', '-')}", str(plan[name])]
    if job == "reduce_pca":
        size = "variance" if plan["k"] is None else "k"
        arguments += [f"--{size}", str(plan[size])]
    if job in ("load_images", "featurize", "reduce_pca") and plan["full_refresh"]:
        arguments.append("--full-refresh")
    return arguments


def step_for(stage: str, plan: Mapping[str, Any], code_digest: str) -> dict[str, Any]:
    """Build the step of a stage of STAGES or ERASURE_STAGES, as AddJobFlowSteps accepts it."""
    code = f"s3://{plan['lake_bucket']}/code/{code_digest}"
    job, database, folder = stage, plan["database"], plan["run_folder"]
    if stage in ERASURE_STAGES:
        job, database = ERASURE_JOB, plan[ERASURE_STAGES[stage]]
        folder = f"{folder}/{database}"  # the steps of an erasure write metrics of the same name
    command = [
        # With cluster mode, the driver's output would be in YARN's container logs, not in the step's.
        *("spark-submit", "--deploy-mode", "client", "--name", stage),
        *("--py-files", f"{code}/fruits.zip", f"{code}/{job}.py"),
        *("--database", f"lake.{database}", "--run-id", plan["run_id"], "--run-folder", folder),
        *_arguments(job, plan),
    ]
    digest = hashlib.sha256(json.dumps(command).encode()).hexdigest()
    return {
        "Name": f"{stage}/{digest[:16]}",
        "ActionOnFailure": "CANCEL_AND_WAIT",  # the cluster stays for its logs; terminate_cluster ends it
        "HadoopJarStep": {"Jar": "command-runner.jar", "Args": command},
    }
