"""Every role has the same anatomy, so that knowing one is knowing all."""

import re
from typing import Any

import pytest
import yaml

from tests.contract.project import ROLE_NAMES, ROLES, ROOT, Role, load

each_role = pytest.mark.parametrize("role", ROLES, ids=ROLE_NAMES)
SECTIONS = ["Example", "Rollback", "Troubleshooting"]


@each_role
@pytest.mark.parametrize("name", ["README.md", "meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml"])
def test_file_exists(role: Role, name: str) -> None:
    assert (role.path / name).is_file(), f"write roles/{role.name}/{name}; CONTRIBUTING.md shows a role's anatomy"


@each_role
def test_readme_has_its_sections(role: Role) -> None:
    file = f"roles/{role.name}/README.md"
    assert role.readme.startswith(f"# {role.name}\n"), f"{file}: the first line must be '# {role.name}'"
    found = re.findall(r"^## (.+)$", role.readme, re.MULTILINE)
    assert found == SECTIONS, f"{file}: the sections must be {SECTIONS}, they are {found}"
    for title, body in zip(found, re.split(r"^## .+$", role.readme, flags=re.MULTILINE)[1:], strict=True):
        assert body.strip(), f"{file}: section '{title}' is empty"


@each_role
def test_readme_says_what_the_role_does_not(role: Role) -> None:
    purpose = role.readme.split("\n## ")[0]
    assert re.search(r"\*\*(Does )?not\*\*", purpose), (
        f"roles/{role.name}/README.md: above '## Example', say what the role does **not** do, with **not** in bold"
    )


def example(role: Role) -> list[dict[str, Any]]:
    """Return the inputs that the README's example gives to the role, one mapping each time it is used."""
    blocks = re.findall(r"^```ya?ml\n(.*?)^```", role.readme, re.MULTILINE | re.DOTALL)
    plays = [play for block in blocks for play in yaml.safe_load(block) or [] if isinstance(play, dict)]
    used = [item for play in plays for item in play.get("roles", []) if isinstance(item, dict)]
    return [item.get("vars") or {} for item in used if item.get("role") == role.name]


@each_role
def test_readme_example_can_be_copied(role: Role) -> None:
    file = f"roles/{role.name}/README.md"
    options = role.entry_points["main"]
    examples = example(role)
    assert examples, f"{file}: '## Example' needs a ```yaml play with '- role: {role.name}' and its vars"
    for given in examples:
        unknown = sorted(given.keys() - options.keys())
        assert not unknown, f"{file}: the example gives {unknown}, which meta/argument_specs.yml does not have"
        missing = sorted(name for name, option in options.items() if option.get("required") and name not in given)
        assert not missing, f"{file}: the example lacks the required {missing}"


@each_role
def test_meta_names_license_and_platforms(role: Role) -> None:
    file = f"roles/{role.name}/meta/main.yml"
    about = load(role.path / "meta" / "main.yml")["galaxy_info"]
    assert about.get("license") == "MIT", f"{file}: license must be MIT, it is {about.get('license')}"
    assert about.get("description"), f"{file}: description is missing"
    platforms = {item["name"]: set(item["versions"]) for item in about.get("platforms", [])}
    assert platforms.get("Debian", set()) >= {"bookworm", "trixie"}, (
        f"{file}: platforms must name Debian bookworm and trixie, it names {platforms}"
    )


@each_role
def test_role_has_a_molecule_scenario(role: Role) -> None:
    for name in ("molecule.yml", "converge.yml"):
        path = ROOT / "molecule" / role.name / name
        assert path.is_file(), f"write molecule/{role.name}/{name}; another role's scenario is the model"


@each_role
def test_role_has_an_infra_test(role: Role) -> None:
    path = ROOT / "tests" / "infra" / f"test_{role.name}.py"
    assert path.is_file(), (
        f"write tests/infra/test_{role.name}.py: behaviour of a converged host, and one must-fail test"
    )
    assert "def test_" in path.read_text(), f"tests/infra/test_{role.name}.py holds no test"
