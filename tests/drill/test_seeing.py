"""Looking changes nothing, and no secret is kept where it does not belong."""

import subprocess
from pathlib import Path

import pytest
import yaml

from hikeshi.site import load
from tests.drill.conftest import hikeshi, ssh

# Left out is what any login writes (its own records, the journal, the folder in which Ansible unpacks what it copies),
# what an order writes (some of these commands buy something), and what rules of the firewall count.
STATE = (
    "find /etc /usr /opt /srv /var /root /home -xdev -not -path '/var/log/*' -not -path '/var/lib/mysql/*'"
    " -not -path '/var/lib/systemd/*' -not -path '*/.ansible/*' -printf '%p %m %u %g %s %T@ %l\\n';"
    " ls /run; { iptables-save; ip6tables-save; } | sed '/^#/d; s/\\[.*\\]//';"
    " systemctl list-unit-files --no-legend | grep -v '[.]scope';"
    " systemctl list-units --state=active --plain --no-legend | grep -v session- | cut -d' ' -f1"
)


def state(host: str) -> set[str]:
    """Every file, rule and unit of a host, a line each."""
    return set(ssh(host, STATE).splitlines())


@pytest.mark.long
@pytest.mark.parametrize("words", ["triage", "recover --plan", "triage --deep", "baseline"])
def test_looking_changes_nothing(whole: Path, words: str) -> None:
    hikeshi(*words.split())  # what the first login and the first order make stays made
    before = {host: state(host) for host in ("web1", "batch1")}
    done = hikeshi(*words.split(), "--json")
    assert done.status == 0, done.err
    changed = {host: sorted(state(host) ^ lines) for host, lines in before.items()}
    assert changed == {"web1": [], "batch1": []}
    if "--deep" in words:
        assert (done.data["packages"], done.data["desired"]) == ([], []), "nothing would change on a site that is whole"


def test_secrets_are_in_no_record(whole: Path) -> None:
    secrets = yaml.safe_load((whole / "site/group_vars/all/secrets.yml").read_text())
    assert hikeshi("build", "--check").status == 0
    kept = load("drill").records
    for name, secret in secrets.items():
        hits = subprocess.run(["grep", "-rlF", secret, kept], capture_output=True, text=True, check=False).stdout
        assert not hits, f"{name} stands in {hits}"
        for place in ("/var/log", "/proc/[0-9]*/cmdline"):
            found = ssh("web1", f"grep -rlF -e '{secret}' {place} 2>/dev/null || test $? -lt 3")
            own = [line for line in found.splitlines() if "/proc/" not in line]
            assert not own, f"{name} stands in {own}"
    for path in [kept, *kept.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"
