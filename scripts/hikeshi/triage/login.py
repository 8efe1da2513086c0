"""What the files that decide who gets in mean, as far as their text says it: sshd's, PAM's, TCP wrappers'. Pure.

Of a running host its own programs are asked (`sshd -t`); of a disk, whose programs are not run, only its text speaks.
So what is unknown here is not called wrong, and what depends on where a login comes from is left out.
"""

import fnmatch
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from hikeshi.triage.findings import Evidence, Step

Line = Mapping[str, Any]  # {file, words} and, of sshd's, match
# OpenSSH 9.2 and 10.0 as Debian builds them, with the words that they know of old and ignore.
KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        """
    acceptenv addressfamily afstokenpassing allowagentforwarding allowgroups allowstreamlocalforwarding
    allowtcpforwarding allowusers authenticationmethods authorizedkeyscommand authorizedkeyscommanduser
    authorizedkeysfile authorizedkeysfile2 authorizedprincipalscommand authorizedprincipalscommanduser
    authorizedprincipalsfile banner casignaturealgorithms challengeresponseauthentication channeltimeout
    checkmail chrootdirectory ciphers clientalivecountmax clientaliveinterval compression debianbanner
    denygroups denyusers disableforwarding dsaauthentication exposeauthinfo fingerprinthash forcecommand
    gatewayports gssapiauthentication gssapicleanupcredentials gssapicleanupcreds gssapikexalgorithms
    gssapikeyexchange gssapistorecredentialsonrekey gssapistrictacceptorcheck gssapiusesessioncredcache
    gssusesessionccache hostbasedacceptedalgorithms hostbasedacceptedkeytypes hostbasedauthentication
    hostbasedusesnamefrompacketonly hostcertificate hostdsakey hostkey hostkeyagent hostkeyalgorithms
    ignorerhosts ignoreuserknownhosts include ipqos kbdinteractiveauthentication kerberosauthentication
    kerberosgetafstoken kerberosorlocalpasswd kerberostgtpassing kerberosticketcleanup kexalgorithms
    keyregenerationinterval listenaddress logingracetime loglevel logverbose macs match maxauthtries maxsessions
    maxstartups modulifile pamauthenticationviakbdint pamservicename passwordauthentication
    permitblacklistedkeys permitemptypasswords permitlisten permitopen permitrootlogin permittty permittunnel
    permituserenvironment permituserrc persourcemaxstartups persourcenetblocksize persourcepenalties
    persourcepenaltyexemptlist pidfile port printlastlog printmotd protocol pubkeyacceptedalgorithms
    pubkeyacceptedkeytypes pubkeyauthentication pubkeyauthoptions rdomain refuseconnection rekeylimit
    requiredrsasize reversemappingcheck revokedkeys rhostsauthentication rhostsrsaauthentication
    rsaauthentication securitykeyprovider serverkeybits setenv skeyauthentication sshdauthpath sshdsessionpath
    streamlocalbindmask streamlocalbindunlink strictmodes subsystem syslogfacility tcpkeepalive
    trustedusercakeys unusedconnectiontimeout usedns uselogin usepam useprivilegeseparation verifyreversemapping
    versionaddendum x11displayoffset x11forwarding x11uselocalhost xauthlocation
        """,
    )
)
SWITCHES = frozenset(
    re.findall(
        r"\w+",
        """
    exposeauthinfo gssapiauthentication hostbasedauthentication ignoreuserknownhosts
    kbdinteractiveauthentication kerberosauthentication passwordauthentication permitemptypasswords permittty
    permituserrc printlastlog printmotd pubkeyauthentication streamlocalbindunlink strictmodes tcpkeepalive
    usedns usepam x11forwarding x11uselocalhost
        """,
    )
)
NUMBERS = frozenset(("port", "maxauthtries", "maxsessions", "clientalivecountmax", "x11displayoffset"))
NO_SHELLS = ("/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/usr/bin/false")


def directive(words: str) -> tuple[str, str]:
    """Return a line of sshd's as its word, in small letters, and the rest."""
    told = re.fullmatch(r"([^\s=\"]+)\s*=?\s*(.*)", words)
    return (told[1].lower(), told[2].strip()) if told else (words.lower(), "")


def refused(words: str) -> str:
    """Return why sshd would not start with a line, in words; "" where its text does not say so."""
    key, value = directive(words)
    if key not in KEYWORDS:
        return f"it does not know '{key}'"
    if not value:
        return f"'{key}' has no value"
    if key in SWITCHES and value.strip('"').lower() not in ("yes", "no", "true", "false"):
        return f"'{key}' is neither yes nor no"
    if key in NUMBERS and not re.fullmatch(r'"?\d+"?', value):
        return f"'{key}' is no number"
    return ""


def speaks_of(match: str, user: str) -> bool:
    """Say whether what stands in a Match, or in none, is about a user, wherever the login comes from."""
    words = match.split()
    if not words or [word.lower() for word in words] == ["all"]:
        return True
    return len(words) == 2 and words[0].lower() == "user" and in_list(words[1].split(","), [user])


def in_list(patterns: Sequence[str], names: Collection[str]) -> bool:
    """Say whether a list of patterns, some of them negated, has one of these names, wherever a login comes from."""
    hits = [item for item in patterns if any(fnmatch.fnmatchcase(name, item.lstrip("!")) for name in names)]
    return bool(hits) and not any(item.startswith("!") for item in hits)


def values(lines: Sequence[Line], key: str, user: str) -> list[Line]:
    """Return the lines with a word for a user, first the one that counts: a Match wins, then what is read first."""
    given = [line for line in lines if directive(line["words"])[0] == key and speaks_of(line["match"], user)]
    return sorted(given, key=lambda line: not line["match"])


def shutting(lines: Sequence[Line], user: str, groups: Sequence[str]) -> Iterator[tuple[Line, str, str]]:
    """Yield each line of sshd's that keeps a user with a key out, why, and what it should be ("": gone)."""
    for title, names in (("Users", [user]), ("Groups", groups)):
        for line in values(lines, f"deny{title.lower()}", user):
            items = directive(line["words"])[1].split()
            if in_list(items, names):
                left = [item for item in items if not in_list([item], names)]
                yield line, f"Deny{title} names {user}", f"Deny{title} {' '.join(left)}" if left else ""
        allowed = values(lines, f"allow{title.lower()}", user)
        # Whoever may come from one place only is allowed all the same: from where we come is not known here.
        items = [item.partition("@")[0] for line in allowed for item in directive(line["words"])[1].split()]
        if items and not in_list(items, names) and names:
            own = user if user in names else names[0]
            yield allowed[0], f"Allow{title} leaves {user} out", f"{allowed[0]['words']} {own}"
    for key, bad, why in (
        ("maxsessions", re.compile(r'"?0+"?'), "it allows no session at all"),
        ("pubkeyauthentication", re.compile(r'(?i)"?no"?'), "it takes no key"),
        ("authorizedkeysfile", re.compile(r'(?i)"?none"?'), "it reads no authorized keys"),
        ("authenticationmethods", re.compile(r"(?!(.*\s)?\"?(any|publickey)\"?(\s|$)).*"), "a key is not enough"),
        ("forcecommand", re.compile(r"(?!\"?none\"?$).*"), "it runs one command only, whatever is asked for"),
        ("chrootdirectory", re.compile(r"(?!\"?none\"?$).*"), "it shuts the session into a directory"),
    ):  # fmt: skip
        counts = values(lines, key, user)[:1]
        if counts and bad.fullmatch(directive(counts[0]["words"])[1]):
            yield counts[0], why, ""


def stops_login(control: str) -> bool:
    """Say whether PAM lets nobody in where what a line names cannot be loaded."""
    if not control.startswith("["):
        return control in ("required", "requisite", "@include", "include", "substack")
    results = dict(item.split("=", 1) for item in control.strip("[]").split() if "=" in item)
    return results.get("module_unknown", results.get("default", "ignore")) in ("bad", "die")


def wrapped_out(rules: Sequence[Line]) -> Iterator[tuple[Line, str]]:
    """Yield each rule of TCP wrappers that refuses sshd to everybody, and what it should be ("": gone)."""
    for rule in rules:
        daemons, _, rest = rule["words"].partition(":")
        clients, _, option = rest.partition(":")
        names = [word for word in re.split(r"[\s,]+", daemons.strip()) if word]
        if "EXCEPT" in names or not {"sshd", "ALL"} & set(names):
            continue
        allows = rule["file"].endswith(".allow")
        refuses = "deny" in option.lower().split() or (not allows and "allow" not in option.lower().split())
        if not refuses:
            return  # somebody is let in before it is refused: by which address is not known here
        if [word for word in re.split(r"[\s,]+", clients.strip()) if word] != ["ALL"]:
            continue
        left = [name for name in names if name != "sshd"]
        if "ALL" in names:
            yield rule, f"ALL EXCEPT sshd:{rest}"
        else:
            yield rule, f"{', '.join(left)}:{rest}" if left else ""


def line_step(host: str, role: str, line: Line, to: str = "") -> Step:
    """Return the step that makes a line of a file another, or takes it away."""
    return Step(host, role, "replace_line", "disk", {"path": line["file"], "line": line["words"], "to": to})


def owners(evidence: Evidence) -> Iterator[Evidence]:
    """Yield what is owned by the role that lets people in, on a host whose way in was looked at."""
    if evidence.get("way_in"):
        yield from (subject for subject in evidence["subjects"] if subject.get("accounts"))


def kept_text(evidence: Evidence, path: str) -> dict[str, str] | None:
    """Return, as arguments of a step, the text that a file had on a healthy day; None where it is not known.

    Nor where the file still has it: then something else is wrong.
    """
    healthy = evidence.get("healthy") or {}
    then = healthy.get("facts", {}).get(f"file:{path}", {})
    now = (evidence.get("state") or {}).get("facts", {}).get(f"file:{path}", {})
    text = healthy.get("texts", {}).get(path)
    if not text or (now.get("digest") and now.get("digest") == then.get("digest")):
        return None
    return {"path": path, "text": str(text), "mode": str(then.get("mode", "0644"))}


def is_new(evidence: Evidence, subject: str) -> bool | None:
    """Say whether something was not there on a healthy day; None where no such day is known."""
    facts = (evidence.get("healthy") or {}).get("facts")
    return None if not facts else subject not in facts
