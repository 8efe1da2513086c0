"""Customers for the practice shop: started on client1, stopped, and their truth brought home.

The program is `inventories/drill/customers/customers.py`; it sends to the practice load balancer only, at a bounded
rate, and ends by itself. What it writes is the drill's truth for orders and counts, kept where recovery does not look.
"""

import json
import shlex
from dataclasses import dataclass, field
from typing import Any

from hikeshi.drill import containers
from hikeshi.drill.ledger import run_on
from hikeshi.errors import UsageError
from hikeshi.files import write_private
from hikeshi.site import Site, practice_folder, read_yaml

HOST = "client1"
UNIT = "hikeshi-customers.service"
FOLDER = "/var/lib/hikeshi-customers"
PROGRAM = containers.PRACTICE / "customers" / "customers.py"
FASTEST, LONGEST_S = 0.2, 3600  # the program's own bounds


@dataclass(frozen=True)
class Truth:
    """What customers sent and what came back. `requests` and `orders` are the program's lines."""

    requests: list[dict[str, Any]] = field(default_factory=list)
    orders: list[dict[str, Any]] = field(default_factory=list)

    @property
    def order_numbers(self) -> list[str]:
        """The numbers that stood on customers' screens."""
        return [str(item["order"]) for item in self.orders]

    def summary(self) -> dict[str, Any]:
        """Return counts for the score: requests, answers by status, orders."""
        answers: dict[str, int] = {}
        for item in self.requests:
            answers[str(item["status"])] = answers.get(str(item["status"]), 0) + 1
        return {"requests": len(self.requests), "answers": dict(sorted(answers.items())), "orders": len(self.orders)}


def start(site: Site, seed: int, *, every: float = 2.0, seconds: float = 900.0, orders: float = 0.4) -> None:
    """Let customers come: one every `every` seconds on the mean, for at most `seconds`; the share `orders` buys."""
    if every < FASTEST or not 0 < seconds <= LONGEST_S or not 0 <= orders <= 1:
        raise UsageError(
            f"customers every {every} s for {seconds} s, {orders} of them buying: allowed are {FASTEST} s or more "
            f"between two, up to {LONGEST_S} s, a share from 0 to 1.",
            "hikeshi drill customers --help",
        )
    lb = read_yaml(site.private / "hosts.yml")["all"]["hosts"]["lb1"]
    command = ["/usr/bin/python3", f"{FOLDER}/customers.py", "--to", lb["practice_ipv4"], "--to", lb["practice_ipv6"],
               "--seed", str(seed), "--every", str(every), "--seconds", str(seconds), "--orders", str(orders),
               "--truth", f"{FOLDER}/truth.jsonl"]  # fmt: skip
    program = PROGRAM.read_text(encoding="utf-8")
    run_on(
        site,
        HOST,
        f"install -d -o deploy {FOLDER}\ncat > {FOLDER}/customers.py <<'PROGRAM-ENDS'\n{program}PROGRAM-ENDS\n"
        # The truth of those who came before is not theirs. A unit that is not there is stopped already.
        f"systemctl stop {UNIT} 2>/dev/null || true\nrm -f {FOLDER}/truth.jsonl\n"
        f"systemd-run --quiet --collect --unit={UNIT} --uid=deploy {shlex.join(command)}\n",
    )


def stop(site: Site) -> Truth:
    """Send the customers home, let those inside finish, and bring their truth home; it is kept with the drill."""
    told = run_on(
        site, HOST, f"systemctl stop {UNIT} 2>/dev/null || true\ncat {FOLDER}/truth.jsonl 2>/dev/null || true"
    )
    write_private(practice_folder() / "drill" / "customers.jsonl", told)
    lines = [json.loads(line) for line in told.splitlines()]
    return Truth([item for item in lines if "order" not in item], [item for item in lines if "order" in item])
