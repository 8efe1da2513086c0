"""One recovery of a site at a time."""

import multiprocessing
import os
import signal
from typing import Any

import pytest

from hikeshi import lock
from hikeshi.errors import RefusedError
from hikeshi.incident import store
from hikeshi.site import Site, load
from tests.unit.conftest import Project

FORK = multiprocessing.get_context("fork")


def test_second_owner_is_refused_by_name(project: Project) -> None:
    site = load()
    refused = pytest.raises(RefusedError, match=r"site shop is being changed by .*recover")
    with lock.held(site, "recover"), refused, lock.held(site, "build"):
        pass
    with lock.held(site, "build"):
        pass
    assert store.journal(site).records() == []  # nobody died


def hold(site: Site, told: Any, go: Any) -> None:
    try:
        with lock.held(site, "recover"):
            told.put(("holds", os.getpid(), ""))
            go.wait()
    except RefusedError as error:
        told.put(("refused", os.getpid(), error.message))


def test_of_twenty_one_runs_and_nineteen_name_it(project: Project) -> None:
    site = load()
    with lock.held(site, "recover"):  # a dead owner's name must not be taken for the new one's
        (site.records / "lock").write_text("somebody@elsewhere, pid 4194399, recover, 00:00:00Z")
    (site.records / "lock").write_text("somebody@elsewhere, pid 4194399, recover, 00:00:00Z")
    told, go = FORK.Queue(), FORK.Event()
    holders = [FORK.Process(target=hold, args=(site, told, go)) for _ in range(20)]
    for holder in holders:
        holder.start()
    answers = [told.get(timeout=60) for _ in holders]
    go.set()
    for holder in holders:
        holder.join()
    ((_, owner, _),) = [answer for answer in answers if answer[0] == "holds"]
    refusals = [words for verdict, _, words in answers if verdict == "refused"]
    assert len(refusals) == 19
    assert all(f"pid {owner}, recover" in words for words in refusals), refusals


def test_dead_owner_is_succeeded_and_the_journal_says_so(project: Project) -> None:
    site = load()
    told, go = FORK.Queue(), FORK.Event()
    holder = FORK.Process(target=hold, args=(site, told, go))
    holder.start()
    assert told.get(timeout=60)[0] == "holds"
    assert holder.pid
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with lock.held(site, "build"):
        taken = store.journal(site).records()[-1]
    assert taken.kind == "lock.taken"
    assert f"pid {holder.pid}, recover" in taken.data["owner"]
    with lock.held(site, "build"):
        pass
    assert [record.kind for record in store.journal(site).records()].count("lock.taken") == 1
