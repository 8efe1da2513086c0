"""The account that automation logs in with is shut, or sshd ignores its keys, because others could write to them."""

from collections.abc import Iterator
from typing import Any

from hikeshi.triage import login
from hikeshi.triage.findings import Effect, Evidence, Finding, Step

ON_DISK = True
_DAY_S = 86400
_OTHERS_WRITE, _GROUP_WRITES = 0o022, 0o020


def find(evidence: Evidence) -> Iterator[Finding]:
    """Open an account by what policy says of it: no date in the past, no password to be changed first, a shell."""
    host = evidence["host"]
    for subject in login.owners(evidence):
        way_in = evidence["way_in"]
        judged = {item["path"] for item in subject.get("paths") or []} & (evidence.get("paths") or {}).keys()
        for name in subject["accounts"]:
            account = way_in["accounts"].get(name)
            why = _shut(account, int(evidence["at"] // _DAY_S))
            if why:
                yield Finding(
                    rule="account_shut",
                    host=host,
                    subject=f"account:{name}",
                    effect=Effect.CANNOT_BE_REPAIRED,
                    cause=f"nobody gets in as {name}: {why}",
                    quote=_quote(account),
                    remedy=(Step(host, subject["role"], "account_open", "disk", {"user": name}),) if account else (),
                )
            for item in way_in["key_paths"].get(name, []):
                if item["path"] not in judged:
                    yield from _open_to_others(host, name, item)


def _shut(account: Evidence | None, today: int) -> str:
    """Return why an account lets nobody in, as PAM and sshd see it; "" where it is open."""
    if account is None:
        return "there is no such account"
    changed, most = account["changed"], account["most"]
    if account["expires"] is not None and account["expires"] <= today:
        return "the account has expired"
    if changed == 0:
        return "its password must be changed first, for which a key's login has no terminal"
    if changed is not None and most is not None and changed + most < today:
        return "its password has expired, and must be changed first"
    if account["shell"] in login.NO_SHELLS or account["shell_kind"] == "missing":
        return f"its shell is {account['shell'] or 'missing'}"
    return ""


def _quote(account: Evidence | None) -> str:
    if account is None:
        return "not in /etc/passwd"
    numbers = ", ".join(f"{key} {account[key]}" for key in ("changed", "most", "inactive", "expires"))
    return f"shadow, in days: {numbers}; shell {account['shell']} ({account['shell_kind']})"


def _open_to_others(host: str, name: str, item: dict[str, Any]) -> Iterator[Finding]:
    mode, args = int(item["mode"], 8), {}
    # Debian's sshd does not mind a group that is the account's alone.
    own_group = item["members"] == [name] and _GROUP_WRITES
    if mode & _OTHERS_WRITE & ~own_group:
        args["mode"] = f"{mode & ~_OTHERS_WRITE:04o}"
    if item["owner"] not in (name, "root"):
        args["owner"] = name
    if args and item["kind"] in ("file", "directory"):
        yield Finding(
            rule="account_shut",
            host=host,
            subject=f"path:{item['path']}",
            effect=Effect.CANNOT_BE_REPAIRED,
            cause=f"sshd ignores the keys of {name}: others than {name} can write to {item['path']}",
            quote=f"{item['path']}: {item['mode']} {item['owner']}",
            remedy=(Step(host, "host_base", "path_mode", "disk", {"path": item["path"], **args}),),
        )
