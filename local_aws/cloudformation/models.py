"""The stacks of one account and region."""

from __future__ import annotations

import logging
from typing import Any

from moto.cloudformation import models, parsing
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import Change, CloudFormationBackend, Stack
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

    def delete(self) -> None:
        """Deletes what was made last first, as AWS does: what refers to another goes before it. moto's order is chance.

        Raises:
            Exception: the first that a resource could not be deleted for; the others are gone.
        """
        failure: Exception | None = None
        for name, made in reversed(list(self._parsed_resources.items())):
            template = self._resource_json_map.get(name)
            if template is None or isinstance(made, str) or _is_retained(template):
                continue
            try:
                self._delete_resource(made, template)
            except Exception as error:  # noqa: BLE001 - whatever the service says
                failure = failure or error
            else:
                del self._parsed_resources[name]
        if failure is not None:
            raise failure


def _is_retained(resource: dict[str, Any]) -> bool:
    return str(resource.get("DeletionPolicy")) in ("Retain", "RetainExceptOnCreate")


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

    def create_change_set(
        self, stack_name: str, change_set_name: str, template: str, *args: Any, **kwargs: Any
    ) -> tuple[str, str]:
        """Creates a change set; what a condition leaves out is no change.

        Raises:
            ValidationError: the template names a type that is not there.
        """
        parsed = Stack.parse_template(template)
        _check_types(parsed)
        made = super().create_change_set(stack_name, change_set_name, template, *args, **kwargs)
        change_set = self.change_sets[made[0]]
        conditions = self._conditions(stack_name, parsed, change_set.parameters)
        if change_set.change_set_type == "UPDATE":
            _know_defaults(change_set.stack)
            diff = change_set.stack.resource_map.build_resource_diff(parsed, change_set.parameters)
            change_set.changes = [
                Change(
                    action,
                    name,
                    (parsed if action != "Remove" else change_set.stack.template_dict)["Resources"][name][
                        "Type"
                    ],
                )
                for action, names in diff.items()
                for name in names
            ]
        change_set.changes = [
            change
            for change in change_set.changes
            if change.action == "Remove"
            or conditions.get(parsed["Resources"][change.logical_resource_id].get("Condition"), True)
        ]
        return made

    def _conditions(self, name: str, template: dict[str, Any], parameters: dict[str, Any]) -> dict[str, bool]:
        """The template's conditions under some parameters."""
        resources = RegionalResourceMap(
            "", name, parameters, {}, self.region_name, self.account_id, template, {}
        )
        resources.load()
        return dict(resources.lazy_condition_map.items())

    def execute_change_set(self, change_set_name: str, stack_name: str | None = None) -> None:  # noqa: ARG002
        """Executes a change set as CreateStack and UpdateStack do, rolled back where it cannot be."""
        change_set = self.describe_change_set(change_set_name)
        if change_set is None or change_set.execution_status != "AVAILABLE":
            raise ValidationError(
                message=f"ChangeSet [{change_set_name}] cannot be executed in its current status"
            )
        stack = self.stacks[change_set.stack_id]
        parameters = dict(change_set.parameters)
        if change_set.change_set_type == "CREATE":
            del self.stacks[stack.stack_id]  # it was there for review only
            made = self.create_stack(stack.name, change_set.template, parameters, tags=change_set.tags)
            if made.status == "CREATE_IN_PROGRESS":
                made.status = "CREATE_COMPLETE"
        else:
            listed = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
            self.update_stack(stack.name, change_set.template, None, parameters=listed, tags=change_set.tags)
        change_set.execution_status = "EXECUTE_COMPLETE"

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
        _know_defaults(stack)
        before = self._conditions(name, stack.template_dict, stack.resource_map.input_parameters)
        after = self._conditions(name, wanted, resolved)
        if changed := sorted(key for key in before.keys() & after.keys() if before[key] != after[key]):
            raise ValidationError(
                message=f"local_aws cannot change what {', '.join(changed)} decides: delete and create the stack."
            )
        for logical_id in stack.resource_map.build_resource_diff(wanted, resolved)["Modify"]:
            kind = wanted["Resources"][logical_id]["Type"]
            update = parsing.resource_class_from_type(kind).update_from_cloudformation_json
            if getattr(update, "__isabstractmethod__", False):  # moto would drop the resource without a word
                raise ValidationError(
                    message=f"local_aws cannot update {logical_id} ({kind}): delete and create the stack."
                )
        return super().update_stack(name, template, *args, **kwargs)


def _know_defaults(stack: Stack) -> None:
    """Makes a parameter that is given as it was by default no change."""
    known = stack.resource_map
    known.input_parameters = {**known.resolved_parameters, **known.input_parameters}


def _check_types(template: dict[str, Any]) -> None:
    known = (parsing.get_model_map().keys() | set(parsing.NULL_MODELS)) - _NOT_HERE
    unknown = sorted({one["Type"] for one in (template.get("Resources") or {}).values()} - known)
    if unknown:
        raise ValidationError(
            message=f"Template format error: Unrecognized resource types: [{', '.join(unknown)}]"
        )


def _stack_resources(stack: Stack) -> list[Any]:
    """The resources of a stack; moto lists an empty one for each that a condition leaves out."""
    return [one for one in stack.resource_map.values() if one is not None]


def install() -> None:
    """Replaces these parts of moto, for this process."""
    vars(models)["ResourceMap"] = RegionalResourceMap
    Stack.stack_resources = property(_stack_resources)  # type: ignore[assignment,method-assign]
