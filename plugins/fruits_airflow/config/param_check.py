"""Check what a trigger passes to a DAG against the JSON schemas of the DAG's form."""

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import best_match  # type: ignore[import-untyped]

from fruits_airflow.config.errors import ConfigError


def check_params(
    params: Mapping[str, Any],
    conf: Mapping[str, Any] | None,
    schemas: Mapping[str, Mapping[str, Any]],
    taker: str,
    is_personal: bool = False,
) -> None:
    """Refuse parameters that the form would not take, by their JSON schemas, and unknown keys that the trigger passed.

    `taker` is what takes the parameters, for the error. With `is_personal` the error does not repeat a value, since it
    may name a person's photo.

    Raises:
        ConfigError: An unknown key in `conf`, or a value that its schema does not allow.
    """
    if unknown := sorted(set(conf or {}) - set(schemas)):
        raise ConfigError(f"conf: unknown {', '.join(unknown)}; {taker} takes {', '.join(sorted(schemas))}")
    for name, schema in schemas.items():
        if error := best_match(Draft202012Validator(schema).iter_errors(params.get(name))):
            place = f"params.{name}{error.json_path.removeprefix('$')}"
            problem = f"violates {error.validator} {error.validator_value}" if is_personal else error.message
            raise ConfigError(f"{place}: {problem}; {schema['description']}")
