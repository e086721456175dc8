"""The stacks of one account and region."""

from __future__ import annotations

import logging
from typing import Any

from moto.cloudformation import models, parsing
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import CloudFormationBackend, Stack
from moto.utilities.utils import get_partition

log = logging.getLogger(__name__)
# moto's models of these would make clusters in moto's EMR, which nobody reaches.
_NOT_HERE = {"AWS::EMR::Cluster", "AWS::EMR::InstanceGroupConfig"}
_SUFFIXES = {"aws-cn": "amazonaws.com.cn", "aws-eusc": "amazonaws.eu"}


class RegionalResourceMap(parsing.ResourceMap):
    """moto's, with the pseudo parameters of the stack's own partition."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        partition = get_partition(self._region_name)
        self._parsed_resources |= {
            "AWS::Partition": partition,
            "AWS::URLSuffix": _SUFFIXES.get(partition, "amazonaws.com"),
        }


class StrictCloudFormationBackend(CloudFormationBackend):
    """moto's, but a type it does not know fails the call, and a resource that cannot be made rolls the stack back."""

    def create_stack(
        self, name: str, template: str, parameters: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Stack:
        """Creates a stack.

        Returns:
            The stack, CREATE_COMPLETE or (with the reason in its events) ROLLBACK_COMPLETE, as AWS answers with an id
            whatever becomes of it.

        Raises:
            ValidationError: the template is wrong, or names a type or property that is not there.
        """
        _check_types(Stack.parse_template(template))
        try:
            return super().create_stack(name, template, parameters, *args, **kwargs)
        except Exception as error:
            made = next((one for one in self.stacks.values() if one.name == name), None)
            if made is None or made.status != "CREATE_IN_PROGRESS":
                raise
            log.warning("stack %s is rolled back: %s", name, error)
            made._add_stack_event("CREATE_FAILED", resource_status_reason=str(error))
            made._add_stack_event("ROLLBACK_IN_PROGRESS", resource_status_reason=str(error))
            made.resource_map.delete()
            # moto makes a resource when it is looked at: there must be none left to look at
            made.template_dict = {"Resources": {}}
            made.resource_map._resource_json_map = {}
            made.output_map = made._create_output_map()
            made.status, made.stack_status_reason = "ROLLBACK_COMPLETE", str(error)  # type: ignore[attr-defined]
            made._add_stack_event("ROLLBACK_COMPLETE")
            return made

    def update_stack(self, name: str, template: str, *args: Any, **kwargs: Any) -> Stack:
        """Updates a stack.

        Raises:
            ValidationError: the template is wrong, or a changed resource cannot be updated here.
        """
        stack = self.get_stack(name)
        parameters = kwargs.get("parameters") or []
        resolved = self._resolve_update_parameters(instance=stack, incoming_params=parameters)
        wanted = Stack.parse_template(template)
        _check_types(wanted)
        for logical_id in stack.resource_map.build_resource_diff(wanted, resolved)["Modify"]:
            kind = wanted["Resources"][logical_id]["Type"]
            update = parsing.resource_class_from_type(kind).update_from_cloudformation_json
            if getattr(update, "__isabstractmethod__", False):  # moto would drop the resource without a word
                raise ValidationError(
                    message=f"local_aws cannot update {logical_id} ({kind}): delete and create the stack."
                )
        return super().update_stack(name, template, *args, **kwargs)


def _check_types(template: dict[str, Any]) -> None:
    known = (parsing.get_model_map().keys() | set(parsing.NULL_MODELS)) - _NOT_HERE
    unknown = sorted({one["Type"] for one in (template.get("Resources") or {}).values()} - known)
    if unknown:
        raise ValidationError(
            message=f"Template format error: Unrecognized resource types: [{', '.join(unknown)}]"
        )


def install() -> None:
    """Replaces these parts of moto, for this process."""
    vars(models)["ResourceMap"] = RegionalResourceMap
