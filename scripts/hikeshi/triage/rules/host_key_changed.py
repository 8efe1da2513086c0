"""The keys by which everybody knows the host are others than on a healthy day: a disk of another host, or new ones."""

from collections.abc import Iterator

from hikeshi.triage.findings import Effect, Evidence, Finding, on_disk

ON_DISK = True
KIND = "host_key:"


def find(evidence: Evidence) -> Iterator[Finding]:
    """Tell of it, and mend nothing: private keys stand in no baseline, and new ones only a person may accept.

    Who reaches a running host has accepted its keys before; there it is drift.
    """
    if not on_disk(evidence):
        return
    then = (evidence.get("healthy") or {}).get("facts", {})
    now = (evidence.get("state") or {}).get("facts", {})
    for subject in sorted(now.keys() & then.keys()):
        if subject.startswith(KIND) and now[subject] != then[subject]:
            known, shown = (fields[subject].get("fingerprint") for fields in (then, now))
            yield Finding(
                rule="host_key_changed",
                host=evidence["host"],
                subject=subject,
                effect=Effect.CANNOT_BE_REPAIRED,
                cause=f"its {subject.removeprefix(KIND)} host key is not the one that was recorded: ssh refuses it. "
                "Ask whoever runs the host, by another way, whether it was changed; only then enter it in known_hosts",
                quote=f"recorded {known}, now {shown}",
                remedy=(),
            )
