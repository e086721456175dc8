"""The stages of a run, and of an erasure, as EMR steps: their command lines and their names.

The name is `<stage>/<digest of code and arguments>`: AddJobFlowSteps takes no idempotency token, so a step is found
again by its name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

STAGES = ("load_images", "featurize", "reduce_pca", "publish")
# The steps of an erasure, one for each database, and what the plan calls that database; all run one job.
ERASURE_JOB = "erase_images"
ERASURE_STAGES = {
    "erase_images": "database",
    "erase_demo_images": "demo_database",
    "erase_notebook_images": "notebook_database",
}
JOBS = (*STAGES, ERASURE_JOB)


def _load_images(plan: Mapping[str, Any]) -> list[str]:
    arguments = ["--input", f"s3://{plan['raw_bucket']}/{plan['input_prefix']}"]
    arguments += ["--complete"] if plan["complete"] else []
    arguments += ["--suppression", f"s3://{plan['lake_bucket']}/suppression"]
    for name in ("max_bytes", "max_pixels", "max_removed_share", "max_removed_rows", "expected_removals"):
        arguments += [f"--{name.replace('_', '-')}", str(plan[name])]
    return arguments + (["--full-refresh"] if plan["full_refresh"] else [])


def _featurize(plan: Mapping[str, Any]) -> list[str]:
    arguments = ["--model", f"s3://{plan['lake_bucket']}/models/{plan['model_id']}"]
    arguments += ["--model-id", plan["model_id"], "--engine", plan["engine"]]
    arguments += ["--batch-size", str(plan["batch_size"])]
    return arguments + (["--full-refresh"] if plan["full_refresh"] else [])


def _reduce_pca(plan: Mapping[str, Any]) -> list[str]:
    size = ["--k", str(plan["k"])] if plan["k"] is not None else ["--variance", str(plan["variance"])]
    drift = ["--max-drift-degrees", str(plan["max_drift_degrees"])]
    drift += ["--max-variance-loss", str(plan["max_variance_loss"])]
    return [
        *("--model-id", plan["model_id"], *drift, *size),
        *(["--full-refresh"] if plan["full_refresh"] else []),
    ]


def _publish(plan: Mapping[str, Any]) -> list[str]:
    return [
        *("--model-id", plan["model_id"], "--weights", plan["weights"]),
        *("--max-reject-rate", str(plan["max_reject_rate"])),
        *("--min-explained-variance", str(plan["min_explained_variance"])),
        *("--min-agreement", str(plan["min_agreement"])),
    ]


def _erase_images(plan: Mapping[str, Any]) -> list[str]:
    return ["--erasure", plan["erasure"]]


_ARGUMENTS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "load_images": _load_images,
    "featurize": _featurize,
    "reduce_pca": _reduce_pca,
    "publish": _publish,
    **dict.fromkeys(ERASURE_STAGES, _erase_images),
}


def step_for(stage: str, plan: Mapping[str, Any], code_digest: str) -> dict[str, Any]:
    """The step of `stage` as AddJobFlowSteps takes it.

    Args:
        stage: one of STAGES or ERASURE_STAGES.
        plan: what the task `plan` returned.
        code_digest: digest of the code that `upload_code` shipped.
    """
    code = f"s3://{plan['lake_bucket']}/code/{code_digest}"
    job, database, folder = stage, plan["database"], plan["run_folder"]
    if stage in ERASURE_STAGES:
        job, database = ERASURE_JOB, plan[ERASURE_STAGES[stage]]
        folder = f"{folder}/{database}"  # all steps leave metrics of the same name
    common = ["--database", f"lake.{database}", "--run-id", plan["run_id"], "--run-folder", folder]
    command = [
        # client: with cluster the driver's output would be in YARN's container logs, not in the step's
        *("spark-submit", "--deploy-mode", "client", "--name", stage),
        *("--py-files", f"{code}/fruits.zip", f"{code}/{job}.py"),
        *common,
        *_ARGUMENTS[stage](plan),
    ]
    digest = hashlib.sha256(json.dumps(command).encode()).hexdigest()
    return {
        "Name": f"{stage}/{digest[:16]}",
        "ActionOnFailure": "CANCEL_AND_WAIT",  # the cluster stays for the logs; terminate_cluster ends it
        "HadoopJarStep": {"Jar": "command-runner.jar", "Args": command},
    }
