"""Renders a role's templates and variables with Ansible's own Templar, as the template module would."""

from functools import cache
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, generate_ansible_template_vars, trust_as_template

from tests.contract.project import ROLES, ROOT

# role, file name of the template; found, never listed, so that a new template is tested from its first day.
TEMPLATES = [(role.name, path.name) for role in ROLES for path in sorted((role.path / "templates").glob("*.j2"))]
SAMPLES: dict[str, Any] = {"int": 1, "float": 1.0, "bool": True, "path": "/srv/sample"}

init_plugin_loader([])


@cache
def _file(role: str, name: str) -> dict[str, Any]:
    path = ROOT / "roles" / role / name / "main.yml"
    if not path.is_file():
        return {}
    return DataLoader().load_from_file(str(path), trusted_as_template=True) or {}


def sample(option: dict[str, Any]) -> Any:
    """Return a plain value that argument_specs allows for an option."""
    kind = option.get("type", "str")
    if option.get("choices"):
        return option["choices"][0]
    if kind == "list":
        return [sample({**option, "type": option.get("elements", "str")})]
    if kind == "dict":
        inner = option.get("options") or {}
        return {name: sample(item) for name, item in inner.items() if item.get("required")} or {"NAME": "value"}
    return SAMPLES.get(kind, "sample")


def required(role: str) -> dict[str, Any]:
    """Return the least that a role must be given, made from its argument_specs."""
    main = next(item for item in ROLES if item.name == role).entry_points["main"]
    return {name: sample(option) for name, option in main.items() if option.get("required")}


def _templar(role: str, inputs: dict[str, Any], extra: dict[str, object] | None = None) -> Any:
    variables = {**_file(role, "defaults"), **required(role), **inputs, **_file(role, "vars"), **(extra or {})}
    return Templar(loader=DataLoader(), variables=variables)


def render(role: str, template: str, **inputs: Any) -> str:
    """Return one template of a role with its defaults, its constants and these inputs."""
    path = ROOT / "roles" / role / "templates" / template
    about = generate_ansible_template_vars(template, str(path), "/dev/null")
    words = {"trim_blocks": True, "lstrip_blocks": False, "newline_sequence": "\n"}  # the template module's own
    text = trust_as_template(path.read_text())
    return str(_templar(role, inputs, about).template(text, escape_backslashes=False, overrides=words))


def expression(role: str, text: str, **inputs: Any) -> Any:
    """Return the value of a template given as text, such as one from a task file."""
    return _templar(role, inputs).template(trust_as_template(text))


def value(role: str, name: str, **inputs: Any) -> Any:
    """Return one variable of a role, rendered."""
    return expression(role, f"{{{{ {name} }}}}", **inputs)
