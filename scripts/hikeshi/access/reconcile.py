"""Load balancer and web servers saw the same accesses: what differs is explained, or flagged. Pure."""

from dataclasses import dataclass, field
from typing import Any

from hikeshi.access.answer import Answer, Side

MOST_SHARE, MOST = 0.001, 5  # that may differ: what was under way at the window's edges, what a crash did not log


@dataclass
class Reconciled:
    """What the load balancer handed on, what the web servers logged, and why these differ."""

    least: int  # handed on and answered
    most: int  # also those that a web server may or may not have seen to the end
    web: int
    reasons: list[str] = field(default_factory=list)

    @property
    def unexplained(self) -> int:
        """How many are too few (negative) or too many at the web servers."""
        return min(0, self.web - self.least) or max(0, self.web - self.most)

    @property
    def flagged(self) -> bool:
        """Whether that is more than what is always under way."""
        return abs(self.unexplained) > max(MOST, MOST_SHARE * self.least)

    @property
    def words(self) -> str:
        """Say what is left, and what it may be."""
        odd = self.unexplained
        if not odd:
            return "nothing is left to explain"
        if not self.flagged:
            return (
                f"{abs(odd)} {'too few' if odd < 0 else 'too many'} at the web servers, as happens at a window's edges"
            )
        if odd < 0:
            return (
                f"{-odd} accesses were handed on that no web server logged: is a log missing or rotated away, is a web "
                "server not counted, or does a location not log?"
            )
        return (
            f"{odd} accesses stand in the web servers' logs that the load balancer did not hand on: did somebody come "
            "past it, is a log of it missing, or did its syslog drop lines?"
        )

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "handed_on_least": self.least, "handed_on_most": self.most, "web": self.web, "reasons": self.reasons,
            "unexplained": self.unexplained, "flagged": self.flagged, "words": self.words,
        }  # fmt: skip


def reconcile(answer: Answer) -> Reconciled | None:
    """Compare the two sides; None where only one was counted."""
    if set(answer.sides) != {"lb", "web"}:
        return None
    return _reconciled(answer.sides["lb"], answer.sides["web"])


def _reconciled(lb: Side, web: Side) -> Reconciled:
    outcomes, classes = lb.total.outcomes, web.total.classes
    doubtful = outcomes["failed"] + outcomes["aborted"]
    made = Reconciled(outcomes["served"], outcomes["served"] + doubtful, web.total.hits - classes["checks"])
    for count, words in (
        (outcomes["sorry"], "were shown the sorry page, and came to no web server"),
        (outcomes["local"], "were answered by the load balancer itself"),
        (outcomes["refused"], "were refused by the load balancer"),
        (outcomes["left"] + outcomes["unreached"], "ended before a web server had them"),
        (doubtful, "broke off at a web server, which may have logged them or not"),
        (classes["checks"], "at the web servers are health checks, which are no customer's and not in the other log"),
    ):
        if count:
            made.reasons.append(f"{count} {words}")
    return made
