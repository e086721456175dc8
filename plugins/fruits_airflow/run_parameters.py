"""What one run was asked to do: the settings of the deployment, changed by the trigger's parameters.

The same table of parameters makes the form's JSON schema and the check for unknown keys, which Airflow accepts
silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fruits_airflow.errors import ConfigError
from fruits_airflow.forms import FOLDER_PATTERN
from fruits_airflow.regions import EU_REGIONS, require_eu_region
from fruits_airflow.settings import ENGINES, Settings

Mode = Literal["nightly", "demo"]


def parameter_schemas(settings: Settings) -> dict[str, dict[str, Any]]:
    """JSON schema and default of each parameter of the DAG, by name."""
    return {
        "input_prefix": {
            "default": settings.raw_prefix,
            "type": "string",
            "pattern": FOLDER_PATTERN,
            "maxLength": 900,
            "description": "Folder of the raw bucket; another one than the configured writes to the demo tables",
        },
        "limit": {
            "default": None,
            "type": ["null", "integer"],
            "minimum": 1,
            "description": "At most so many images, chosen evenly; writes to the demo tables",
        },
        "variance": {
            "default": settings.variance,
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "description": "Share of the variance to keep; k, if given, goes first",
        },
        "k": {
            "default": settings.k,
            "type": ["null", "integer"],
            "minimum": 1,
            "maximum": 1280,
            "description": "Number of principal components",
        },
        "engine": {
            "default": settings.engine,
            "type": "string",
            "enum": list(ENGINES),
            "description": "What runs MobileNetV2: LiteRT, or TensorFlow as the reference",
        },
        "model_id": {
            "default": settings.model_id,
            "type": ["null", "string"],
            "pattern": "^[0-9a-f]{64}$",
            "description": "The model, as printed by make model",
        },
        "region": {
            "default": settings.region,
            "type": "string",
            "enum": list(EU_REGIONS),
            "description": "Where the cluster runs; EU member states only",
        },
        "profile": {
            "default": None,
            "type": ["null", "string"],
            "enum": [None, *dict.fromkeys((settings.demo_profile, settings.nightly_profile))],
            "description": "Size of the cluster; by default the one of the mode",
        },
        "max_cost_eur": {
            "default": settings.max_cost_eur,
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 10_000,
            "description": "A run forecast above it is refused; its cluster is gone before it is spent",
        },
        "full_refresh": {
            "default": False,
            "type": "boolean",
            "description": "Load and featurize every image again",
        },
        "force": {
            "default": False,
            "type": "boolean",
            "description": "Run although nothing changed, or although this very input failed its quality gate",
        },
    }


@dataclass(frozen=True, kw_only=True)
class RunParameters:
    """What a run does, resolved.

    Attributes:
        mode: nightly over the full configured prefix, else demo.
        complete: the listing covers the full configured prefix, so that rows of absent objects may be removed.
        database: where the run writes.
    """

    mode: Mode
    complete: bool
    database: str
    profile: str
    region: str
    input_prefix: str
    limit: int | None
    variance: float
    k: int | None
    engine: str
    model_id: str | None
    max_cost_eur: float
    full_refresh: bool
    force: bool


def mode_of(settings: Settings, params: Mapping[str, Any]) -> Mode:
    """Nightly for a run over the full configured prefix, however it was triggered; else demo."""
    whole = params.get("limit") is None and params.get("input_prefix") == settings.raw_prefix
    return "nightly" if whole else "demo"


def database_of(settings: Settings, params: Mapping[str, Any]) -> str:
    """Where a run with these parameters writes."""
    return settings.database if mode_of(settings, params) == "nightly" else settings.demo_database


def resolve_parameters(
    settings: Settings, params: Mapping[str, Any], conf: Mapping[str, Any] | None, known: Iterable[str]
) -> RunParameters:
    """Settles what the run does.

    Args:
        settings: of the deployment.
        params: the run's parameters, validated by Airflow against their schemas.
        conf: what the trigger passed, for the check of its keys.
        known: names of the DAG's parameters.

    Raises:
        ConfigError: an unknown key in `conf`.
        ResidencyError: the region is not in the European Union.
    """
    unknown = sorted(set(conf or {}) - set(known))
    if unknown:
        raise ConfigError(f"conf: unknown {', '.join(unknown)}; a run takes {', '.join(sorted(known))}")
    mode = mode_of(settings, params)
    whole = mode == "nightly"
    profile = settings.nightly_profile if whole else settings.demo_profile
    return RunParameters(
        mode=mode,
        complete=whole,
        database=database_of(settings, params),
        profile=params["profile"] or profile,
        region=require_eu_region(params["region"], "params.region"),
        input_prefix=params["input_prefix"],
        limit=params["limit"],
        variance=float(params["variance"]),
        k=params["k"],
        engine=params["engine"],
        model_id=params["model_id"],
        max_cost_eur=float(params["max_cost_eur"]),
        full_refresh=params["full_refresh"],
        force=params["force"],
    )
