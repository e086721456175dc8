"""Parameters of a run: the settings of the deployment, overridden by the trigger.

The JSON schemas define the trigger form, and `plan` validates the parameters against them. Tasks take the parameters
unchecked (`unchecked_params`): otherwise Airflow validates them whenever it starts a task, and a value that the trigger
accepted but that cannot be read later would fail the teardown and the verdict as well.
"""

from collections.abc import Mapping
from typing import Any, Literal

from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict
from pydantic import BaseModel, ConfigDict

from fruits_airflow.config.param_check import check_params
from fruits_airflow.config.regions import EU_REGIONS, require_eu_region
from fruits_airflow.config.settings import ENGINES, MAX_LIMIT, Settings
from fruits_airflow.config.validators import FOLDER_PATTERN, SHA256_PATTERN

Mode = Literal["nightly", "demo"]
_COUNT = {"minimum": 1, "maximum": MAX_LIMIT}


def _at_most(limit: float) -> dict[str, Any]:
    """Return the schema of a number up to `limit`; `maximum` alone accepts NaN, which is above no number."""
    return {"maximum": limit, "not": {"exclusiveMinimum": limit}}


def _schema(default: Any, kind: str | list[str], description: str, **rules: Any) -> dict[str, Any]:
    return {"default": default, "type": kind, "description": description, **rules}


def parameter_schemas(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the JSON schema and default of each parameter of the DAG, by name."""
    profiles = dict.fromkeys((settings.demo_profile, settings.nightly_profile))
    return {
        "input_prefix": _schema(
            settings.raw_prefix,
            "string",
            "Folder of the raw bucket; any other folder than the configured one writes to the demo tables",
            pattern=FOLDER_PATTERN,
            maxLength=900,
        ),
        "limit": _schema(
            None, ["null", "integer"], "Maximum number of images, chosen evenly; writes to the demo tables", **_COUNT
        ),
        "variance": _schema(
            settings.variance,
            "number",
            "Share of the variance to keep; k takes precedence",
            exclusiveMinimum=0,
            **_at_most(1),
        ),
        "k": _schema(settings.k, ["null", "integer"], "Number of principal components", minimum=1, maximum=1280),
        "engine": _schema(
            settings.engine,
            "string",
            "Runtime of MobileNetV2: LiteRT, or TensorFlow as the reference",
            enum=list(ENGINES),
        ),
        "model_id": _schema(
            settings.model_id, ["null", "string"], "The model, as printed by make model", pattern=SHA256_PATTERN
        ),
        "region": _schema(
            settings.region, "string", "Region of the cluster; EU member states only", enum=list(EU_REGIONS)
        ),
        "profile": _schema(
            None, ["null", "string"], "Size of the cluster; the default depends on the mode", enum=[None, *profiles]
        ),
        "max_cost_eur": _schema(
            settings.max_cost_eur,
            "number",
            "A run whose forecast exceeds it is refused; its cluster ends before it is spent. "
            "The setting max_cost_eur is the maximum",
            exclusiveMinimum=0,
            **_at_most(settings.max_cost_eur),
        ),
        "full_refresh": _schema(False, "boolean", "Load and featurize every image again"),
        "force": _schema(
            False,
            "boolean",
            "Run although nothing changed, although the same input failed its quality gate, or although more photos "
            "are gone than max_removed_share and max_removed_rows allow",
        ),
    }


class RunParameters(BaseModel):
    """Resolved parameters; pydantic reads `5.0`, an integer in JSON, as 5."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    mode: Mode  # `nightly` over the full configured prefix, else `demo`
    complete: bool  # whether the listing covers the full configured prefix, so that rows of absent objects may go
    database: str  # database that the run writes to
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


def unchecked_params(schemas: Mapping[str, Mapping[str, Any]]) -> ParamsDict:
    """Return the parameters of a task: the defaults of the form without its schemas."""
    return ParamsDict({name: Param(schema["default"]) for name, schema in schemas.items()})


def mode_of(settings: Settings, params: Mapping[str, Any]) -> Mode:
    """Return `nightly` for a run over the full configured prefix, however it was triggered; else `demo`."""
    complete = params.get("limit") is None and params.get("input_prefix") == settings.raw_prefix
    return "nightly" if complete else "demo"


def database_of(settings: Settings, params: Mapping[str, Any]) -> str:
    """Return the database that a run with these parameters writes to."""
    return settings.database if mode_of(settings, params) == "nightly" else settings.demo_database


def region_of(settings: Settings, params: Mapping[str, Any]) -> str:
    """Return the region where the run may have a cluster: the configured region if `plan` refuses the parameter."""
    region = params.get("region")
    return region if isinstance(region, str) and region in EU_REGIONS else settings.region


def resolve_parameters(
    settings: Settings,
    params: Mapping[str, Any],
    conf: Mapping[str, Any] | None,
    schemas: Mapping[str, Mapping[str, Any]],
) -> RunParameters:
    """Validate the parameters of a run and the keys of its trigger's configuration; return the resolved parameters.

    Raises:
        ConfigError: `conf` has an unknown key, or the schema of a parameter does not allow its value.
        ResidencyError: The region is not in the European Union.
    """
    require_eu_region(str(params.get("region")), "params.region")
    check_params(params, conf, schemas, "a run")
    mode = mode_of(settings, params)
    complete = mode == "nightly"
    profile = settings.nightly_profile if complete else settings.demo_profile
    values = {name: params[name] for name in schemas} | {"profile": params["profile"] or profile}
    return RunParameters(mode=mode, complete=complete, database=database_of(settings, params), **values)
