"""The disk of a copy judged and mended in place, by its own programs, which may be anybody's; the controller is untouched.

It needs podman and the base image, and no practice site.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hikeshi.copies import disk, making, mending, record, work
from hikeshi.copies.record import Copy
from hikeshi.drill import engine
from hikeshi.errors import HikeshiError
from hikeshi.incident import store
from hikeshi.site import Site
from tests.drill import copy_site
from tests.drill.copy_site import inside, left

pytestmark = pytest.mark.long

BROKEN = "/etc/ssh/sshd_config.d/60-broken.conf"


def agree(words: Sequence[str], question: str) -> bool:
    return True


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site whose one instance runs, with keys for sshd, a data disk and a job that would reboot it."""
    engine.prepare(print)
    copy_site.sweep()
    copy_site.write_site(tmp_path)
    copy_site.make_instance(engine.base_image())
    inside("""
        ssh-keygen -A; mkdir -p /var/spool/cron/atjobs
        printf '#!/bin/sh\n# atrun uid=0 gid=0\n# mail root 0\ncd / || {\n\t echo no\n\t exit 1\n}\nreboot\n' \
            > /var/spool/cron/atjobs/a0000301ffffff
        chown -R daemon:daemon /var/spool/cron/atjobs; chmod 1770 /var/spool/cron/atjobs
        chmod 0700 /var/spool/cron/atjobs/a0000301ffffff
    """)
    yield copy_site.look_there(monkeypatch, tmp_path)
    copy_site.sweep()
    assert left() == []


def taken(site: Site) -> Copy:
    making.take(site, approve=agree)
    (copy,) = record.read_all(site)
    return copy


def subjects(look: disk.DiskLook) -> set[str]:
    return {item.subject for item in look.found}


def test_a_disk_is_judged_and_mended_in_place(site: Site) -> None:
    inside(f"""
        echo 'NoSuchWord yes' > {BROKEN}
        systemctl mask ssh.service; chmod 0700 /etc/ssh; chmod 0644 /etc/ssh/ssh_host_ed25519_key
    """)
    copy = taken(site)
    look = disk.judge(site, copy)
    broken = {"config:sshd", "unit:ssh.service", "path:/etc/ssh", "path:/etc/ssh/ssh_host_ed25519_key"}
    assert broken <= subjects(look)
    assert look.plan.steps and all(item.step.kind == "disk" for item in look.plan.steps)
    print([item.step.words for item in look.plan.steps], look.unseen)
    done = mending.mend(site, copy, look, holds=look.bombs)
    print([(item.planned.step.words, item.changed, item.failed) for item in done.steps], done.look.found)
    assert not broken & subjects(done.look)
    told = {item.subject: item.words for item in done.difference}
    assert told["file:/etc/ssh"] == "mode 0700 → 0755" and BROKEN in str(told)
    print(told, done.texts)
