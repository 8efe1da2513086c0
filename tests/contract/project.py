"""What the tree says about itself: roles and their files, read as plain YAML."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KINDS = ("disk", "live")


@cache
def tracked() -> tuple[Path, ...]:
    """Return every file that git holds or would take, below the project."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, check=True, text=True)
    paths = (ROOT / name for name in sorted(set(done.stdout.split("\0"))) if name)
    return tuple(path for path in paths if path.is_file())


def relative(path: Path) -> str:
    """Return a path as a message should name it."""
    return str(path.relative_to(ROOT))


def load(path: Path) -> Any:
    """Load one YAML file; a missing one is empty."""
    return yaml.safe_load(path.read_text()) if path.is_file() else None


def lines_that_count(text: str) -> list[str]:
    """Return the lines of a YAML file or template without blank ones, comments and the document's start."""
    kept = (re.sub(r"\s#\s.*", "", line) for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [line for line in kept if line.strip() and line.strip() != "---"]


@dataclass(frozen=True)
class Role:
    """One folder of roles/."""

    name: str

    @property
    def path(self) -> Path:
        return ROOT / "roles" / self.name

    @property
    def readme(self) -> str:
        path = self.path / "README.md"
        return path.read_text() if path.is_file() else ""

    @property
    def entry_points(self) -> dict[str, dict[str, Any]]:
        """Entry point → its options, in the order they are written."""
        specs = (load(self.path / "meta" / "argument_specs.yml") or {}).get("argument_specs", {})
        return {name: spec.get("options") or {} for name, spec in specs.items()}

    @property
    def defaults(self) -> dict[str, Any]:
        return load(self.path / "defaults" / "main.yml") or {}

    @property
    def variables(self) -> dict[str, Any]:
        return load(self.path / "vars" / "main.yml") or {}

    @property
    def task_files(self) -> list[Path]:
        return sorted((self.path / "tasks").glob("*.yml"))

    def steps(self, kind: str) -> list[str]:
        """Return the names of the repair steps of one kind, disk or live."""
        return list(self.variables.get(f"__{self.name}_{kind}_steps", []))


ROLES = [Role(path.name) for path in sorted((ROOT / "roles").iterdir()) if path.is_dir() and path.name[0].isalpha()]
ROLE_NAMES = [role.name for role in ROLES]


def tasks(data: Any) -> Iterator[dict[str, Any]]:
    """Yield every task of a task file, those of blocks included."""
    for task in data or []:
        yield task
        for key in ("block", "rescue", "always"):
            yield from tasks(task.get(key))
