"""What every template must come to, with the defaults and the least that is required."""

import re

import pytest

from tests.templates.rendering import TEMPLATES, render

# A page for customers says nothing about how it is made.
WITHOUT_HEADER = {("load_balancer", "sorry.html.j2")}


@pytest.mark.parametrize(("role", "name"), TEMPLATES)
def test_renders_whole(role: str, name: str) -> None:
    text = render(role, name)
    file = f"roles/{role}/templates/{name}"
    assert text.endswith("\n") and not text.endswith("\n\n"), f"{file}: must end with one newline"
    left = re.findall(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", text)
    assert not left, f"{file}: {left} is not rendered"
    odd = [line for line in text.splitlines() if line != line.rstrip() or re.search(r"\b(None|undefined)\b|\t", line)]
    assert not odd, f"{file}: tabs, blanks at the end, or a value that is missing: {odd}"


@pytest.mark.parametrize(("role", "name"), [item for item in TEMPLATES if item not in WITHOUT_HEADER])
def test_says_who_manages_it(role: str, name: str) -> None:
    head = render(role, name).splitlines()[:2]
    assert any("Ansible managed" in line for line in head), (
        f"roles/{role}/templates/{name}: one of the first two lines must hold {{{{ ansible_managed }}}}"
    )


@pytest.mark.parametrize(("role", "name"), TEMPLATES)
def test_renders_the_same_twice(role: str, name: str) -> None:
    assert render(role, name) == render(role, name), f"roles/{role}/templates/{name} would change at every run"
