"""Nobody gets in: every fault of the way in, all at once, is found on a copied disk and mended there.

It needs podman and the base image, and no practice site. That each of them keeps us out, and that we get in again once
its disk is swapped in, is asked of the practice site (test_rescue.py).
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hikeshi.copies import disk, making, mending, record
from hikeshi.drill import engine, faults
from hikeshi.site import Site
from tests.drill import copy_site
from tests.drill.copy_site import INSTANCE, inside, left

pytestmark = pytest.mark.long

PROJECT = Path(__file__).resolve().parents[2]
INJECTOR = PROJECT / "roles" / "fault_injection" / "library" / "inject_fault.py"
SHUT = [name for name, fault in faults.catalogue().items() if fault.keeps_out and fault.mendable]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site of one small instance that has an account of automation, its key and host keys."""
    engine.prepare(print)
    copy_site.sweep()
    copy_site.write_site(tmp_path)
    copy_site.make_instance(engine.base_image())
    inside("""
        ssh-keygen -A; mkdir -m 0700 /home/deploy/.ssh
        echo ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExample controller \
            > /home/deploy/.ssh/authorized_keys
        chmod 0600 /home/deploy/.ssh/authorized_keys; chown -R deploy: /home/deploy/.ssh
    """)
    yield copy_site.look_there(monkeypatch, tmp_path)
    copy_site.sweep()
    assert left() == []


def inject(chosen: list[faults.Fault]) -> None:
    """Break the instance as the drill does; what only befalls a running system is left out: none runs here."""
    operations = [item for fault in chosen for item in fault.operations if "kill" not in item]
    program = INJECTOR.read_text().rpartition("\nif __name__")[0]
    program += f"\nfor operation in {operations!r}:\n    assert not check(operation) and apply(operation), operation\n"
    engine.podman("exec", "--interactive", INSTANCE, "python3", "-", text_input=program.encode())


def about(chosen: list[faults.Fault], look: disk.DiskLook) -> set[str]:
    """Return the faults that findings are about."""
    found = {item.subject for item in look.found}
    return {fault.name for fault in chosen if found & set(fault.subjects)}


def test_everything_that_shuts_us_out_is_found_on_the_disk_and_mended_there(site: Site, seed: int) -> None:
    chosen = [faults.choose(name, seed) for name in SHUT]
    making.take(site, approve=lambda *_: True)
    (whole,) = record.read_all(site)
    assert about(chosen, disk.judge(site, whole)) == set(), "this is found on a disk on which nothing is shut"
    making.delete(site, whole.id)

    inject(chosen)
    making.take(site, approve=lambda *_: True)
    (copy,) = record.read_all(site)
    look = disk.judge(site, copy)
    assert about(chosen, look) == set(SHUT), [item.id for item in look.found]
    done = mending.mend(site, copy, look, holds=[])
    print([(item.planned.step.words, item.changed, item.failed) for item in done.steps])
    assert about(chosen, done.look) == set(), [(item.id, item.quote) for item in done.look.found]
    # Of roles that did not build this instance there are no units.
    assert {item.planned.step.step for item in done.steps if item.failed} <= {"unit_enable"}
    told = {item.subject for item in done.difference}
    assert {"file:/etc/nologin", "file:/etc/hosts.deny", "user:deploy"} <= told
    assert "file:/etc/passwd" not in told
