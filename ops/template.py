"""Read include/stack.yaml with CloudFormation's short tags, and resolve its functions."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
TEMPLATE = REPOSITORY / "include" / "stack.yaml"

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z0-9:.]+)\}")


class TemplateError(Exception):
    """The template refers to something that it does not declare, or uses an unknown function."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that turns `!Ref x` into `{"Ref": x}`."""


def _function(loader: yaml.Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]  # the third kind of node
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _function)


def read_template(path: Path = TEMPLATE) -> dict[str, Any]:
    """Return the template with its functions in their long form."""
    content: dict[str, Any] = yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506  a SafeLoader
    return content


def template_body(path: Path = TEMPLATE) -> str:
    """Return the template for CloudFormation, without its comment lines, which count towards its size limit."""
    lines = path.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.lstrip().startswith("#"))


@dataclass(frozen=True)
class Resolver:
    """Values for everything that a template refers to."""

    template: Mapping[str, Any]  # as `read_template` returns it
    parameters: Mapping[str, Any]  # values of parameters; the others have the template's defaults
    pseudo: Mapping[str, str]  # AWS::Partition, AWS::Region, AWS::AccountId and so on
    reference: Callable[[str], Any]  # returns the value of `Ref` of a resource
    attribute: Callable[[str, str], Any]  # returns the value of `Fn::GetAtt` of a resource
    zones: Callable[[], list[str]]  # returns the availability zones of the region

    def resources(self) -> dict[str, dict[str, Any]]:
        """Return every resource whose condition holds, with its properties resolved."""
        return {
            name: {**resource, "Properties": self.resolve(resource.get("Properties", {}))}
            for name, resource in self.template["Resources"].items()
            if "Condition" not in resource or self.holds(resource["Condition"])
        }

    def holds(self, name: str) -> bool:
        """Tell whether a condition holds."""
        return bool(self.resolve(self.template["Conditions"][name]))

    def resolve(self, node: Any) -> Any:
        """Return a part of the template with its functions evaluated.

        Raises:
            TemplateError: It refers to something that the template does not declare.
        """
        if isinstance(node, list):
            return [value for value in map(self.resolve, node) if value is not _NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            [(name, argument)] = node.items()
            if name == "Ref":
                return self._ref(argument)
            if name == "Condition" and isinstance(argument, str):
                return self.holds(argument)
            if name.startswith("Fn::"):
                return self._call(name.removeprefix("Fn::"), argument)
        resolved = {key: self.resolve(value) for key, value in node.items()}
        return {key: value for key, value in resolved.items() if value is not _NO_VALUE}

    def _ref(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return _NO_VALUE
        if name in self.pseudo:
            return self.pseudo[name]
        declared = self.template.get("Parameters", {})
        if name in declared:
            value = self.parameters.get(name, declared[name].get("Default"))
            if value is None:
                raise TemplateError(f"parameter {name} has no value and no default")
            return value
        if name in self.template["Resources"]:
            return self.reference(name)
        raise TemplateError(f"Ref {name}: no such parameter or resource")

    def _call(self, name: str, argument: Any) -> Any:
        if name == "GetAtt":
            return self.attribute(*argument)
        if name == "Sub":
            return _PLACEHOLDER.sub(self._substitute, argument)
        if name == "If":
            condition, yes, no = argument
            return self.resolve(yes if self.holds(condition) else no)
        if name == "GetAZs":
            return self.zones()
        value = self.resolve(argument)
        if name == "Equals":
            return value[0] == value[1]
        if name == "Not":
            return not value[0]
        if name in ("And", "Or"):
            return (all if name == "And" else any)(value)
        if name == "Select":
            return value[1][int(value[0])]
        raise TemplateError(f"Fn::{name} is not known here; teach ops/template.py")

    def _substitute(self, match: re.Match[str]) -> str:
        name, _, attribute = match[1].partition(".")
        return str(self.attribute(name, attribute) if attribute else self._ref(match[1]))


_NO_VALUE = object()
