"""A whole little project in a temporary folder, and a little shop on loopback."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import settings

from hikeshi import look, runner
from hikeshi import site as sites
from hikeshi.copies.proving import Login
from tests.unit.commands import Runs
from tests.unit.shop import Shop

SITE = {
    "title": "Test shop",
    "views": {"customer": {"url": "http://127.0.0.1:1"}, "direct": {"url": "http://127.0.0.1:1"}},
}
PROBES: dict[str, Any] = {"probes": [{"id": "top", "title": "The top page opens", "steps": [{"get": "/"}]}]}

# Hypothesis would fail an example for its time; a busy machine is no defect.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def open_files() -> Iterator[None]:
    """Files that a test makes are for all to read unless it says otherwise; the command itself makes private ones."""
    before = os.umask(0o022)
    yield
    os.umask(before)


class Project:
    """Writes the files of one site of a project of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "inventories" / "shop"
        self.folder.mkdir(parents=True)
        self.site(SITE)
        self.probes(PROBES)
        self.write("hosts.yml", "all: {hosts: {web1: {}}}\n")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def site(self, data: dict[str, Any]) -> None:
        self.write("site.yml", yaml.safe_dump(data))

    def probes(self, data: dict[str, Any]) -> None:
        self.write("probes.yml", yaml.safe_dump(data))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with one valid site, `shop`."""
    monkeypatch.setattr(sites, "PROJECT", tmp_path)
    monkeypatch.setattr(sites, "INVENTORIES", tmp_path / "inventories")
    monkeypatch.delenv("HIKESHI_SITE", raising=False)
    return Project(tmp_path)


@pytest.fixture
def shop() -> Iterator[Shop]:
    """A real HTTP server on loopback that sells lanterns and can be told to misbehave."""
    with Shop() as running:
        yield running


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, project: Project, shop: Shop) -> Runs:
    fake = Runs()
    monkeypatch.setattr(runner, "run", fake)
    monkeypatch.setattr(look, "proving", SimpleNamespace(log_in=lambda *_, **__: Login({"uid": "0"})))
    project.site({**SITE, "views": dict.fromkeys(("customer", "direct"), {"url": shop.url})})
    return fake
