"""An incident as a brief says it: what the customer allowed, in whose words, and by when."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from hikeshi.drill import practice
from hikeshi.errors import RefusedError
from hikeshi.incident import clock, opening, permissions, store
from hikeshi.incident import state as states
from hikeshi.incident.opening import Brief
from hikeshi.site import Site, load
from tests.unit.conftest import Project

BRIEF = {
    "name": "tv",
    "by": "Ms Ito",
    "words": "Pictures are not shown.",
    "permissions": {"reboot": "You may restart it.", "sorry": "Show it."},
    "deadlines": {"report": {"minutes": 90, "kind": "report", "owner": "lead"}},
}


@pytest.fixture
def site(project: Project) -> Site:
    return load()


def test_brief_opens_an_incident_with_permissions_and_deadlines(site: Site) -> None:
    before = datetime.now(UTC)
    journal = opening.by_brief(site, Brief.model_validate(BRIEF), "tv-1")
    assert journal.folder == store.open_folder(site)
    records = journal.records()
    assert permissions.require(site, "reboot", "restart web1").words == "You may restart it."
    assert {name for name, item in permissions.ledger(records).items() if item.granted} == {"reboot", "sorry"}
    (report,) = clock.standing(records)
    assert (report.name, report.kind, report.owner) == ("report", "report", "lead")
    assert before + timedelta(minutes=89) < report.at < before + timedelta(minutes=91)


def test_second_incident_is_refused_and_the_first_can_be_ended(site: Site) -> None:
    opening.end(site, "the drill", "nothing to end")
    journal = opening.by_brief(site, Brief.model_validate(BRIEF), "tv-1")
    journal.append("item.opened", {"item": "gate", "words": "closed", "close": "hikeshi sorry off"})
    with pytest.raises(RefusedError, match="is open"):
        opening.by_brief(site, Brief.model_validate(BRIEF), "tv-2")
    opening.end(site, "the drill", "another begins")
    assert store.open_folder(site) is None
    again = opening.by_brief(site, Brief.model_validate(BRIEF), "tv-2")
    assert list(states.derive(again.records()).items) == ["gate"], "what is open goes along"


@pytest.mark.parametrize(
    "wrong",
    [
        {"permissions": {"everything": "yes"}},
        {"deadlines": {"tv": {"minutes": 0, "owner": "lead"}}},
        {"deadlines": {"tv": {"minutes": 5}}},
        {"words": ""},
    ],
)
def test_brief_that_says_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Brief.model_validate({**BRIEF, **wrong})


def test_the_whole_story_allows_what_a_rescue_needs_and_has_its_bomb_before_the_television() -> None:
    story = practice.scenario("torashu05")
    assert story.incident
    assert set(story.incident.permissions) == {"reboot", "copy", "sorry", "hold-jobs"}
    last = max(item.minutes for item in story.incident.deadlines.values())
    assert [job.minutes < last for job in story.at_jobs] == [True]
    assert {"sshd-refuses", "nologin-left", "pam-module-missing"} < set(story.faults)
    assert set(practice.scenario(practice.BROKEN).faults) < set(story.faults)
