"""A unit runs, and does not listen where its role wants it: whoever asks there finds nobody."""

from collections.abc import Iterator

from hikeshi.triage.findings import Evidence, Finding, Step, effect_of_down, effect_of_risk


def find(evidence: Evidence) -> Iterator[Finding]:
    """Turn it into the owner's step, which writes again what says where, and a restart that reads it.

    A socket that was only removed is still listened on: that is path_wrong's. The shop asks at a socket; who asks at an
    address is somebody else.
    """
    host = evidence["host"]
    for subject in evidence["subjects"]:
        for wanted in subject.get("listens") or []:
            unit, place = wanted["unit"], place_of(wanted)
            if evidence["units"].get(unit, {}).get("active") != "active":
                continue
            if evidence.get("listens", {}).get(place, True):
                continue
            steps: tuple[Step, ...] = ()
            if wanted.get("restore_step"):
                restart = {"unit": unit, "newer": wanted["settings"]}
                steps = (
                    Step(host, subject["role"], wanted["restore_step"], "disk"),
                    Step(host, "host_base", "unit_restart", "live", restart),
                )
            yield Finding(
                rule="not_listening",
                host=host,
                subject=f"listen:{place}",
                effect=effect_of_down(subject) if "socket" in wanted else effect_of_risk(subject),
                cause=f"{unit} runs, and does not listen on {place}: who asks there finds nobody",
                quote=f"{place}: nobody listens; {unit}: active",
                remedy=steps,
                explains=(f"path:{place}",),
            )


def place_of(wanted: Evidence) -> str:
    """Return what the collector calls a socket, or an address and its port."""
    if "socket" in wanted:
        return str(wanted["socket"])
    address = wanted["address"]
    return f"[{address}]:{wanted['port']}" if ":" in address else f"{address}:{wanted['port']}"
