"""fault_injection: each operation does what it says, times tell nothing, and the host keeps no answer sheet."""

from typing import Any

import pytest
from testinfra.host import Host

from tests.infra.asking import Apply, must

TREE = "/srv/target"


def listing(host: Host) -> dict[str, str]:
    """Return what lies in the tree: path → type, mode, day of its time, target of a link."""
    told = must(host, f"find {TREE} -printf '%p %y %m %TY-%Tm-%Td %l\\n'")
    return {path: rest.strip() for path, rest in (line.split(" ", 1) for line in told.splitlines())}


@pytest.mark.parametrize(
    ("path", "state", "text"),
    [
        ("removed", None, ""),
        ("relinked", "l 777 2021-01-01 /dev/null", ""),
        ("masked", "l 777 2024-01-01 /dev/null", ""),
        ("closed", "d 0 2023-01-01", ""),
        ("written", "f 640 2021-01-01", "server {\n"),
        ("made", "f 644 2024-01-01", "gzip_levle 6;\n"),
        ("appended", "f 644 2022-01-01", "healthy\ninclude gone.conf;\n"),
        ("far/real", "f 644 2022-01-01", "healthy\ninclude gone.conf;\n"),
        ("moved", None, ""),
        ("away/moved.bak", "f 644 2022-01-01", "healthy\n"),
    ],
)
def test_operation_does_what_it_says_and_keeps_the_times(host: Host, path: str, state: str | None, text: str) -> None:
    seen = listing(host)
    if path == "far/real":
        assert seen[f"{TREE}/linked"].endswith(" far/real"), "a link was replaced instead of followed"
    assert seen.get(f"{TREE}/{path}") == state
    if text:
        assert must(host, f"cat {TREE}/{path}") == text


def test_folders_look_untouched(host: Host) -> None:
    assert must(host, f"cat {TREE}/made")
    days = {path: listing(host)[f"{TREE}{path}"].split()[2] for path in ("", "/away", "/far")}
    assert days == {"": "2024-01-01", "/away": "2023-01-01", "/far": "2023-01-01"}


def injected(apply: Apply, *operations: dict[str, Any], practice: bool = True) -> Any:
    return apply("fault_injection", "main", fault_injection_operations=operations, fault_injection_practice=practice)


@pytest.mark.at_rest
def test_no_answer_sheet_is_left_on_the_host(host: Host, apply: Apply) -> None:
    applied = injected(apply, {"write": f"{TREE}/made", "text": "unseen_marker 1;"})
    assert (applied.status, applied.changed) == (0, 1), applied.output
    assert "unseen_marker" not in applied.output, "the operator of a drill is told nothing, either"
    assert must(host, f"cat {TREE}/made") == "unseen_marker 1;\n"
    words = "unseen_marker|inject_fault"
    assert must(host, f"journalctl --sync; journalctl -o export | grep -aE '{words}' || true") == ""
    assert must(host, f"grep -rlaE '{words}' /var/log /tmp /var/tmp /run /root /home /etc 2>/dev/null || true") == ""
    left = must(host, "find /tmp /var/tmp /root /home -newer /proc/1 -iname '*ansible*'")
    assert left == "", "a temporary file stayed"


@pytest.mark.at_rest
def test_host_that_is_no_practice_host_is_refused(host: Host, apply: Apply) -> None:
    before = listing(host)
    applied = injected(apply, {"remove": f"{TREE}/far"}, {"remove": f"{TREE}/far/real"}, practice=False)
    assert (applied.status != 0, applied.changed) == (True, 0), applied.output
    assert "instance is no practice host" in applied.output, applied.output
    assert listing(host) == before


@pytest.mark.at_rest
@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ({"format": "/"}, "needs one of"),
        ({"remove": f"{TREE}/far/real", "link": f"{TREE}/far/real", "to": "/"}, "needs one of"),
        ({"link": f"{TREE}/far/real"}, "link needs to"),
        ({"chmod": f"{TREE}/far/real", "mode": 448}, "mode must be"),
        ({"remove": "far/real"}, "must be an absolute path"),
        ({"chmod": f"{TREE}/none", "mode": "0000"}, "No such file or directory"),
    ],
)
def test_bad_operation_is_refused_in_words(host: Host, apply: Apply, operation: dict[str, Any], words: str) -> None:
    before = listing(host)
    applied = injected(apply, operation)
    assert (applied.status != 0, applied.changed) == (True, 0), applied.output
    assert words in applied.output, applied.output
    assert "censored" not in applied.output, "the runner reads what a task says, not the screen"
    assert listing(host) == before


@pytest.mark.at_rest
def test_bad_operation_keeps_the_good_ones_back(host: Host, apply: Apply) -> None:
    before = listing(host)
    applied = injected(apply, {"remove": f"{TREE}/far/real"}, {"chmod": f"{TREE}/far/real", "mode": "rwx"})
    assert applied.status != 0
    assert listing(host) == before


@pytest.mark.at_rest
def test_times_are_kept_where_an_operation_fails(host: Host, apply: Apply) -> None:
    """The old link is gone when the new one turns out to be impossible."""
    before = listing(host)
    applied = injected(apply, {"link": f"{TREE}/far/real", "to": "x" * 5000})
    assert applied.status != 0
    assert "name too long" in applied.output, applied.output
    assert listing(host) == before
