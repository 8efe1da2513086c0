"""What the base image is made from, and the settings to try."""

from pathlib import Path

import pytest

from hikeshi.drill import engine
from hikeshi.errors import MisconfiguredError

DEB822 = """
# a comment
Types: deb
URIs: http://mirror.example/debian
# http://archive.example/old
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main
"""


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(engine, "host_release", lambda: ("debian", "bookworm"))
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def test_sources_keep_mirror_and_key_and_leave_third_parties_out(apt: Path) -> None:
    (apt / "sources.list.d" / "debian.sources").write_text(DEB822)
    (apt / "sources.list.d" / "other.list").write_text("deb https://vendor.example/apt stable main\n")
    key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    assert engine.apt_sources("trixie", apt).splitlines() == [
        f"deb {key} http://mirror.example/debian trixie main",
        f"deb {key} http://mirror.example/debian trixie-updates main",
    ]


def test_one_line_sources_are_read(apt: Path) -> None:
    (apt / "sources.list").write_text(
        "deb http://mirror.example/debian bookworm main contrib\n"
        "# deb http://mirror.example/debian bookworm-updates main\n"
        "deb [trusted=yes] http://mirror.example/security bookworm-security main\n"
    )
    assert engine.apt_sources("bookworm", apt).splitlines() == [
        "deb http://mirror.example/debian bookworm main",
        "deb [trusted=yes] http://mirror.example/security bookworm-security main",
    ]


def test_no_source_is_a_clear_error(apt: Path) -> None:
    with pytest.raises(MisconfiguredError, match="no apt source for Debian 'bookworm'"):
        engine.apt_sources("bookworm", apt)


def test_no_podman_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MisconfiguredError, match="podman is not in PATH"):
        engine.podman("ps")


def test_unknown_release_is_refused() -> None:
    with pytest.raises(MisconfiguredError, match="unknown Debian release '11'; allowed: 12, 13"):
        engine.ensure_base_image("11", print)


def test_settings_name_only_what_is_asked() -> None:
    assert "ulimits" not in engine.render_settings(None, None)
    assert 'runtime = "runc"' in engine.render_settings("runc", (10, 20))
    assert '"nofile=10:10", "nproc=20:20"' in engine.render_settings("runc", (10, 20))
