"""The stacks of one account and region."""

import logging
import threading
from typing import Any

from moto.cloudformation import models, parsing
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import Change, ChangeSet, CloudFormationBackend, Stack
from moto.utilities.utils import get_partition

from local_aws.cloudformation.resources import CompleteResource, Scope

log = logging.getLogger(__name__)
# moto's models of these would create clusters in moto's EMR, which is replaced.
_NOT_HERE = {"AWS::EMR::Cluster", "AWS::EMR::InstanceGroupConfig"}
_SUFFIXES = {"aws-cn": "amazonaws.com.cn", "aws-eusc": "amazonaws.eu"}
# AWS answers ExecuteChangeSet before the stack's status changes.
_EXECUTION_DELAY_S = 0.2


class RegionalResourceMap(parsing.ResourceMap):
    """moto's map with system tags, the pseudo parameters of the stack's partition and ordered deletion."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        partition = get_partition(self._region_name)
        self._parsed_resources |= {
            "AWS::Partition": partition,
            "AWS::URLSuffix": _SUFFIXES.get(partition, "amazonaws.com"),
        }

    def create(self, template: dict[str, Any]) -> bool:
        """Create every resource and tag those that CloudFormation tags."""
        ready = super().create(template)
        self._add_system_tags()
        return ready

    def update(self, template: dict[str, Any], parameters: dict[str, Any] | None = None) -> None:
        """Update the resources; system tags survive, as on AWS."""
        super().update(template, parameters)
        self._add_system_tags()

    def _add_system_tags(self) -> None:
        for name, resource in self._parsed_resources.items():
            kind = self._resource_json_map.get(name, {}).get("Type")
            resource_class = parsing.resource_class_from_type(kind) if kind else None
            if resource_class is not None and issubclass(resource_class, CompleteResource):
                tags = {
                    "aws:cloudformation:stack-name": str(self["AWS::StackName"]),
                    "aws:cloudformation:stack-id": str(self["AWS::StackId"]),
                    "aws:cloudformation:logical-id": name,
                }
                scope = Scope(self._account_id, self._region_name, CompleteResource.clients)
                resource_class(resource.physical_resource_id).add_system_tags(tags, scope)

    def delete(self, creating: bool = False) -> None:
        """Delete the last created resource first, as AWS does, so that dependants go before what they refer to.

        When the stack's creation is rolled back (`creating`), `RetainExceptOnCreate` keeps nothing.

        Raises:
            Exception: The first error of a service; every other resource is deleted.
        """
        kept = {"Retain"} if creating else {"Retain", "RetainExceptOnCreate"}
        failure: Exception | None = None
        for name, resource in reversed(list(self._parsed_resources.items())):
            template = self._resource_json_map.get(name)
            if template is None or isinstance(resource, str) or template.get("DeletionPolicy") in kept:
                continue
            try:
                self._delete_resource(resource, template)
            except Exception as error:  # noqa: BLE001  any error of a service
                failure = failure or error
            else:
                del self._parsed_resources[name]
        if failure is not None:
            raise failure


class StrictCloudFormationBackend(CloudFormationBackend):
    """moto's, but an unknown type fails the call, and a resource that cannot be created rolls the stack back."""

    def create_stack(self, name: str, template: str, parameters: dict[str, Any], *args: Any, **kwargs: Any) -> Stack:
        """Create a stack and return it, CREATE_COMPLETE or (with the reason in its events) ROLLBACK_COMPLETE.

        Raises:
            ValidationError: The template is wrong, or has an unknown type.
        """
        _check_types(Stack.parse_template(template))
        try:
            return super().create_stack(name, template, parameters, *args, **kwargs)
        except Exception as error:
            stack = next((stack for stack in self.stacks.values() if stack.name == name), None)
            if stack is None or stack.status != "CREATE_IN_PROGRESS":
                raise
            _roll_back_creation(stack, error)
            return stack

    def create_change_set(
        self, stack_name: str, change_set_name: str, template: str, *args: Any, **kwargs: Any
    ) -> tuple[str, str]:
        """Create a change set. A resource that a condition leaves out is no change.

        Raises:
            ValidationError: The template has an unknown type.
        """
        parsed = Stack.parse_template(template)
        _check_types(parsed)
        ids = super().create_change_set(stack_name, change_set_name, template, *args, **kwargs)
        change_set = self.change_sets[ids[0]]
        conditions = self._conditions(stack_name, parsed, change_set.parameters)
        if change_set.change_set_type == "UPDATE":
            _apply_defaults(change_set.stack)
            diff = change_set.stack.resource_map.build_resource_diff(parsed, change_set.parameters)
            kinds = change_set.stack.template_dict["Resources"] | parsed["Resources"]
            change_set.changes = [
                Change(action, name, kinds[name]["Type"]) for action, names in diff.items() for name in names
            ]
        change_set.changes = [
            change
            for change in change_set.changes
            if change.action == "Remove"
            or conditions.get(parsed["Resources"][change.logical_resource_id].get("Condition"), True)
        ]
        return ids

    def _conditions(self, name: str, template: dict[str, Any], parameters: dict[str, Any]) -> dict[str, bool]:
        """Return the values of the template's conditions."""
        resources = RegionalResourceMap("", name, parameters, {}, self.region_name, self.account_id, template, {})
        resources.load()
        return dict(resources.lazy_condition_map.items())

    def execute_change_set(self, change_set_name: str, stack_name: str | None = None) -> None:
        """Start to execute a change set; its ExecutionStatus and the stack's status follow, as on AWS.

        Raises:
            ValidationError: The change set cannot be executed, or local_aws cannot do the update.
        """
        change_set = self.describe_change_set(change_set_name)
        if change_set is None or change_set.execution_status != "AVAILABLE":
            raise ValidationError(message=f"ChangeSet [{change_set_name}] cannot be executed in its current status")
        if change_set.change_set_type == "UPDATE":
            self._require_possible_update(change_set.stack, change_set.template, dict(change_set.parameters))
        change_set.execution_status = "EXECUTE_IN_PROGRESS"
        timer = threading.Timer(_EXECUTION_DELAY_S, self._execute, [change_set])
        timer.daemon = True
        timer.start()

    def _execute(self, change_set: ChangeSet) -> None:
        stack = change_set.stack
        try:
            if change_set.change_set_type == "CREATE":
                self._create_reviewed(stack, change_set)
            else:
                values = change_set.parameters.items()
                parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in values]
                stack.status, tags = "UPDATE_IN_PROGRESS", change_set.tags
                super().update_stack(stack.name, change_set.template, None, parameters=parameters, tags=tags)
        except Exception as error:  # noqa: BLE001  any error of a service
            log.warning("stack %s: %s", stack.name, error)
            if change_set.change_set_type == "CREATE":
                _roll_back_creation(stack, error)
            else:  # the state before is not kept
                stack._add_stack_event("UPDATE_FAILED", resource_status_reason=str(error))
                stack.status = "UPDATE_ROLLBACK_FAILED"
            change_set.execution_status = "EXECUTE_FAILED"
        else:
            change_set.execution_status = "EXECUTE_COMPLETE"

    def _create_reviewed(self, stack: Stack, change_set: ChangeSet) -> None:
        """Create the resources of a change set in its stack in review; its id stays, as on AWS."""
        stack.status = "CREATE_IN_PROGRESS"
        stack._add_stack_event("CREATE_IN_PROGRESS", resource_status_reason="User Initiated")
        stack.template, stack.parameters = change_set.template, dict(change_set.parameters)
        stack.tags = change_set.tags or {}
        stack._parse_template()
        stack.resource_map = stack._create_resource_map()
        stack.output_map = stack._create_output_map()
        stack.create_resources()
        if stack.status == "CREATE_IN_PROGRESS":
            stack.mark_creation_complete()

    def delete_stack(self, name_or_stack_id: str) -> None:
        """Delete a stack; as on AWS it is DELETE_FAILED when a resource cannot be deleted."""
        for stack in self.stacks.values():
            if name_or_stack_id in (stack.name, stack.stack_id):
                try:
                    stack.resource_map.delete()
                except Exception as error:  # noqa: BLE001  any error of a service
                    stack._add_stack_event("DELETE_FAILED", resource_status_reason=str(error))
                    stack.status, stack.stack_status_reason = "DELETE_FAILED", str(error)  # type: ignore[attr-defined]
                    return
        super().delete_stack(name_or_stack_id)

    def update_stack(self, name: str, template: str, *args: Any, **kwargs: Any) -> Stack:
        """Update a stack.

        Raises:
            ValidationError: The template is wrong, or local_aws cannot update a changed resource.
        """
        stack = self.get_stack(name)
        parameters = kwargs.get("parameters") or []
        resolved = self._resolve_update_parameters(instance=stack, incoming_params=parameters)
        self._require_possible_update(stack, template, resolved)
        return super().update_stack(name, template, *args, **kwargs)

    def _require_possible_update(self, stack: Stack, template: str, resolved: dict[str, Any]) -> None:
        new = Stack.parse_template(template)
        _check_types(new)
        _apply_defaults(stack)
        before = self._conditions(stack.name, stack.template_dict, stack.resource_map.input_parameters)
        after = self._conditions(stack.name, new, resolved)
        if changed := sorted(key for key in before.keys() & after.keys() if before[key] != after[key]):
            raise ValidationError(
                message=f"local_aws cannot change what {', '.join(changed)} decides: delete and create the stack."
            )
        for logical_id in stack.resource_map.build_resource_diff(new, resolved)["Modify"]:
            kind = new["Resources"][logical_id]["Type"]
            update = parsing.resource_class_from_type(kind).update_from_cloudformation_json
            if getattr(update, "__isabstractmethod__", False):  # moto would drop the resource silently
                raise ValidationError(
                    message=f"local_aws cannot update {logical_id} ({kind}): delete and create the stack."
                )


def _roll_back_creation(stack: Stack, error: Exception) -> None:
    """Delete what a failed creation left, and record the reason."""
    log.warning("stack %s is rolled back: %s", stack.name, error)
    stack._add_stack_event("CREATE_FAILED", resource_status_reason=str(error))
    stack._add_stack_event("ROLLBACK_IN_PROGRESS", resource_status_reason=str(error))
    status, resources = "ROLLBACK_COMPLETE", stack.resource_map
    try:
        resources.delete(creating=True) if isinstance(resources, RegionalResourceMap) else resources.delete()
    except Exception as left:  # noqa: BLE001  any error of a service
        status = "ROLLBACK_FAILED"
        stack._add_stack_event("DELETE_FAILED", resource_status_reason=str(left))
    # moto creates a resource when it is looked up: remove all
    stack.template_dict = {"Resources": {}}
    resources._resource_json_map = {}
    stack.output_map = stack._create_output_map()
    stack.status, stack.stack_status_reason = status, str(error)  # type: ignore[attr-defined]
    stack._add_stack_event(status)


def _apply_defaults(stack: Stack) -> None:
    """Add the defaults to the stack's parameters, so that a default value is no change."""
    resources = stack.resource_map
    resources.input_parameters = {**resources.resolved_parameters, **resources.input_parameters}


def _check_types(template: dict[str, Any]) -> None:
    known = (parsing.get_model_map().keys() | set(parsing.NULL_MODELS)) - _NOT_HERE
    unknown = sorted({resource["Type"] for resource in (template.get("Resources") or {}).values()} - known)
    if unknown:
        raise ValidationError(message=f"Template format error: Unrecognized resource types: [{', '.join(unknown)}]")


_MOTO_OUTPUTS = vars(Stack)["outputs"].fget


def _stack_resources(stack: Stack) -> list[Any]:
    """Return the resources that exist. moto would create others, beside the thread that creates the stack."""
    created = stack.resource_map._parsed_resources
    return [created[name] for name in stack.resource_map.resources if created.get(name) is not None]


def _outputs(stack: Stack) -> Any:
    """Return the outputs; none before the stack is complete, since moto would create what they refer to."""
    return _MOTO_OUTPUTS(stack) if stack.status.endswith("_COMPLETE") else None


def install() -> None:
    """Replace these parts of moto in this process."""
    vars(models)["ResourceMap"] = RegionalResourceMap
    Stack.stack_resources = property(_stack_resources)  # type: ignore[assignment,method-assign]
    Stack.outputs = property(_outputs)  # type: ignore[assignment,method-assign]
