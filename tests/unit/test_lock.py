"""One recovery of a site at a time."""

import pytest

from hikeshi import lock
from hikeshi.errors import RefusedError
from hikeshi.site import load
from tests.unit.conftest import Project


def test_second_owner_is_refused_by_name(project: Project) -> None:
    site = load()
    refused = pytest.raises(RefusedError, match=r"site shop is being changed by .*recover")
    with lock.held(site, "recover"), refused, lock.held(site, "build"):
        pass
    with lock.held(site, "build"):
        pass
