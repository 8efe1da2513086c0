"""The firewall that the next boot loads is not the one that works now: it blocks what is open, or the other way."""

from collections.abc import Iterator, Sequence

from hikeshi.triage import firewall
from hikeshi.triage.findings import Effect, Evidence, Finding, Step

_Key = tuple[str, str, frozenset[firewall.Test], str]


def find(evidence: Evidence) -> Iterator[Finding]:
    """Take out of the saved rules what surely harms; any other difference is for people to judge.

    Compared are only rules that stand in INPUT and OUTPUT themselves: chains of their own are made by programs, which
    put their rules there after the boot. Nor one about a single source: whoever is banned is banned for a while.

    That the next boot would shut us out of ssh, wherever it listens, is told first; who is to get in, people decide.
    """
    host, live = evidence["host"], evidence.get("firewall", [])
    for path, saved in evidence.get("saved_firewall", {}).items():
        family = saved["family"]
        chains = [{"family": family, "backend": "", **chain} for chain in saved["chains"]]
        harmful = firewall.harmful(chains, evidence)
        now = [chain for chain in live if chain["family"] == family]
        booted, working = _rules(chains), _rules(now)
        # What could not be read is no firewall that is open.
        compared = family not in evidence.get("firewall_cut", [])
        shut_out = firewall.shut_out(chains, now, evidence, family) if compared else {}
        known = {barrier.rule: barrier.words for barrier in [*shut_out, *harmful]}
        closing = [rule for key, rule in booted[0].items() if key not in working[0] and rule not in known]
        closing = closing if compared and working[1] else []
        if harmful or shut_out or closing:
            what = [*sorted(set(shut_out.values())), *sorted(set(harmful.values()))] or ["what is open now"]
            yield Finding(
                rule="firewall_blocks_at_boot",
                host=host,
                subject=f"firewall:{path}",
                effect=Effect.WILL_BREAK,
                cause=f"the firewall that the next boot loads from {path} drops {' and '.join(what)}",
                quote="; ".join([*known.values(), *closing]),
                remedy=tuple(
                    Step(host, "host_base", "firewall_saved_rule", "disk", {"path": path, "rule": barrier.rule})
                    for barrier in harmful
                    if barrier.removable
                ),
            )
        # What harms now is taken out, and need not be saved before.
        mended = {barrier.rule for barrier in firewall.harmful(now, evidence)}
        opening = [rule for key, rule in working[0].items() if key not in booted[0] and rule not in mended]
        if opening and compared and booted[1]:
            yield Finding(
                rule="firewall_unsaved",
                host=host,
                subject=f"firewall:{path}",
                effect=Effect.UNTIDY,
                cause=f"what the firewall drops now will pass after the next boot: {path} does not have it",
                quote="; ".join(opening),
                remedy=(),
            )


def _rules(chains: Sequence[Evidence]) -> tuple[dict[_Key, str], bool]:
    """Return the rules of INPUT and OUTPUT that block, by what they mean, and whether all of them were understood."""
    found: dict[_Key, str] = {}
    own = [chain for chain in chains if chain["chain"] in ("INPUT", "OUTPUT")]
    understood = all(chain["complete"] for chain in own)
    for chain in own:
        for words in chain["rules"]:
            rule = firewall.read(words)
            if rule.target in ("DROP", "REJECT"):
                understood = understood and rule.clear
                if rule.clear and not any(map(_is_one_source, rule.tests)):
                    found[chain["table"], chain["chain"], frozenset(rule.tests), rule.target] = words
    return found, understood


def _is_one_source(test: firewall.Test) -> bool:
    option, value, negated = test
    return option == "-s" and not negated and value.endswith("/128" if ":" in value else "/32")
