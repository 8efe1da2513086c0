"""A program's own login at its database is refused: the password was changed on one side."""

from collections.abc import Iterator

from hikeshi.triage.findings import Evidence, Finding, Step, effect_of_down

# 1044: not for this database; 1045, 1698: no such user, or another password, or none at all is asked for.
# 0: the file lacks what a login needs. https://mariadb.com/kb/en/mariadb-error-code-reference/
REFUSED = (1044, 1045, 1698, 0)


def find(evidence: Evidence) -> Iterator[Finding]:
    """Put both sides right: the file is written again, the server is given the same password, the program reads it.

    A server that is down, or full, is others' business: only a refusal is judged.
    """
    host = evidence["host"]
    servers = [subject["role"] for subject in evidence["subjects"] if subject.get("database")]
    for subject in evidence["subjects"]:
        wanted = subject.get("login")
        seen = evidence.get("logins", {}).get(wanted["environment"]) if wanted else None
        if not wanted or seen is None or seen["ok"] or seen["code"] not in REFUSED:
            continue
        file, unit = wanted["environment"], wanted["unit"]
        steps = [Step(host, subject["role"], wanted["restore_step"], "disk")]
        steps += [Step(host, role, "user_password", "live") for role in servers]
        steps.append(Step(host, "host_base", "unit_restart", "live", {"unit": unit, "newer": file}))
        yield Finding(
            rule="login_refused",
            host=host,
            subject=f"login:{file}",
            effect=effect_of_down(subject),
            cause=f"{unit} cannot log in at its database with what stands in {file}",
            quote=seen["message"],
            remedy=tuple(steps),
        )
