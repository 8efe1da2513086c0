"""`up` twice is `up` once; `down` leaves nothing; a dead site is replaced; another checkout's is left alone."""

from pathlib import Path

import pytest

from hikeshi.drill import containers, engine
from hikeshi.errors import RefusedError
from hikeshi.site import practice_prefix
from tests.drill.conftest import hikeshi


def ours(*words: str) -> list[str]:
    """What podman lists of this practice site."""
    return [line for line in engine.podman(*words).splitlines() if line.startswith(practice_prefix())]


def test_up_again_changes_nothing(whole: Path) -> None:
    before = ours("ps", "--format", "{{.Names}} {{.ID}}")
    again = hikeshi("drill", "up")
    assert again.status == 0
    assert "is up" in again.err
    assert ours("ps", "--format", "{{.Names}} {{.ID}}") == before


def test_another_checkouts_site_is_left_alone(whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(containers, "PROJECT", tmp_path)
    with pytest.raises(RefusedError, match="belongs to the checkout in"):
        containers.remove(practice_prefix())
    assert ours("ps", "--format", "{{.Names}}")


@pytest.mark.long
def test_dead_containers_are_replaced(whole: Path) -> None:
    engine.podman("kill", containers.container("web1"))
    assert "dead" in hikeshi("drill", "up").err
    assert hikeshi("probe").status == 0


def test_down_leaves_nothing(whole: Path) -> None:
    assert hikeshi("drill", "down").status == 0
    assert ours("ps", "--all", "--format", "{{.Names}}") == []
    assert ours("volume", "ls", "--format", "{{.Name}}") == []
    assert ours("network", "ls", "--format", "{{.Name}}") == []
    assert not whole.exists()
    assert hikeshi("recover", "--yes").status == 4
    assert hikeshi("drill", "down").status == 0
    assert hikeshi("drill", "up").status == 0
    assert hikeshi("recover", "--plan", "--json").data["kept"] == [], "nobody has added anything to a new site"
